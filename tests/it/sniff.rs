//! Components that are not served, and what `guesthouse check` says about each: what is wrong,
//! where it comes from, and what to do.

use crate::host::command;

/// A component that exports one function as `handle` of this interface.
fn component(imports: &str, export: &str) -> String {
    format!(
        r#"(component
            {imports}
            (core module $module (func (export "handle")))
            (core instance $instance (instantiate $module))
            (func $handle (canon lift (core func $instance "handle")))
            (instance $handler (export "handle" (func $handle)))
            (export "{export}" (instance $handler)))"#
    )
}

/// The exit code and output of `check` for a component text.
fn check(text: &str) -> (Option<i32>, String) {
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("guest.wat");
    std::fs::write(&file, text).expect("a file");
    let output = command().arg("check").arg(&file).output().expect("the program runs");
    (output.status.code(), String::from_utf8_lossy(&output.stdout).into_owned())
}

#[track_caller]
fn assert_says(text: &str, words: &[&str]) {
    let (code, said) = check(text);
    assert_eq!(code, Some(1), "{said}");
    let error = said.lines().find(|line| line.starts_with("error: ")).unwrap_or_default();
    for word in words {
        assert!(error.contains(word), "no {word:?} in {error:?}");
    }
}

const HANDLER: &str = "wasi:http/incoming-handler@0.2.0";

fn import(interface: &str) -> String {
    format!(r#"(import "{interface}" (instance (export "open" (func))))"#)
}

#[test]
fn an_unknown_import_is_named_with_where_it_comes_from() {
    let cases = [
        ("wasi:nn/graph@0.2.0", "an interface of WASI that this host does not offer"),
        ("wasi:io/streams@0.2.0-rc-2023-11-10", "a draft; the nearest is wasi:io/streams@0.2.12"),
        ("wasi:config/store@0.2.0-draft", "the nearest is wasi:config/store@0.2.0-rc.1"),
        ("wasi:config/store@0.2.0", "the nearest is wasi:config/store@0.2.0-rc.1"),
        ("wasi:config/runtime@0.2.0-draft", "the nearest is wasi:config/store@0.2.0-rc.1"),
        ("wasi:io/streams@0.3.0", "the nearest is wasi:io/streams@0.2.12"),
        ("wasi:http/types@0.3.0-rc-2025-09-16", "a draft; the nearest is wasi:http/types@0.3.2"),
        ("wasi:http/handler@0.3.0", "this is middleware"),
        ("wasi:http/incoming-handler@0.2.0", "this is middleware"),
        ("fermyon:spin/key-value@2.0.0", "from the Spin SDK"),
        ("wasmcloud:bus/lattice@1.0.0", "from wasmCloud"),
        ("fastly:api/dictionary", "from the Fastly Compute SDK"),
        ("acme:billing/ledger@1.0.0", "compose it with a component that exports it"),
    ];
    for (interface, origin) in cases {
        assert_says(&component(&import(interface), HANDLER), &["imports ", interface, origin]);
    }
}

#[test]
fn many_unknown_imports_are_counted() {
    let imports: String = (0..9).map(|number| import(&format!("acme:a/b{number}"))).collect();
    assert_says(&component(&imports, HANDLER), &["acme:a/b0", "and 4 more unknown imports"]);
}

/// An interface that only has types needs nothing from the host. The fault of this component is the
/// type of its handler.
#[test]
fn an_import_of_types_is_not_missed() {
    let types = r#"(import "acme:billing/types@1.0.0"
        (instance (type $sum u32) (export "sum" (type (eq $sum)))))"#;
    let (code, said) = check(&component(types, HANDLER));
    assert_eq!(code, Some(1), "{said}");
    assert!(!said.contains("acme:billing/types@1.0.0, which"), "{said}");
    assert!(said.contains("an instance cannot be made: expected 2-tuple"), "{said}");
}

#[test]
fn another_world_is_told_by_its_exports() {
    let cases = [
        ("wasi:http/incoming-handler@0.2.0-rc-2023-12-05", "from before 0.2.0"),
        (
            "wasi:http/handler@0.3.0-rc-2025-09-16",
            "speaks wasi:http 0.3.0-rc-2025-09-16, a draft of 0.3.0: rebuild it",
        ),
        ("wasi:cli/run@0.2.0", "a command component"),
        ("acme:billing/ledger@1.0.0", "it exports acme:billing/ledger@1.0.0, but neither"),
    ];
    for (export, words) in cases {
        assert_says(&component("", export), &[words]);
    }
    assert_says("(component)", &["it exports nothing"]);
}

/// The fault of these is the type of their handler. The message shows by which version they would
/// be served: a handler of 0.2 takes two values, one of 0.3 takes one.
#[test]
fn of_two_versions_the_later_is_served() {
    let (old, new) = ("wasi:http/incoming-handler@0.2.0", "wasi:http/handler@0.3.0");
    for (text, words) in [
        (component("", old), "expected 2-tuple"),
        (component("", new), "expected 1-tuple"),
        (component("", &format!(r#"{old}" (instance $handler)) (export "{new}"#)), "1-tuple"),
        (component("", &format!(r#"{new}" (instance $handler)) (export "{old}"#)), "1-tuple"),
    ] {
        assert_says(&text, &["an instance cannot be made", words]);
    }
}

/// A handler of 0.2 may import all of 0.3 as well.
#[test]
fn a_handler_of_one_version_may_import_the_other() {
    let clock = |version: &str| {
        let now = r#"(instance (export "now" (func (result u64))))"#;
        format!(r#"(import "wasi:clocks/monotonic-clock@{version}" {now})"#)
    };
    for (version, export, words) in [
        ("0.3.0", "wasi:http/incoming-handler@0.2.0", "expected 2-tuple"),
        ("0.2.0", "wasi:http/handler@0.3.0", "expected 1-tuple"),
    ] {
        assert_says(&component(&clock(version), export), &["an instance cannot be made", words]);
    }
}

#[test]
fn a_component_is_held_to_the_limits_of_memory() {
    let large = r#"(component (core module (memory 3000)))"#;
    assert_says(large, &["needs 192000 KiB of memory to begin with", "raise --memory-max"]);
    assert_says("(component (core module (table 30000 funcref)))", &["a table of 30000 elements"]);
}

/// Elements are written when an instance is made. What counts is the number of all elements that a
/// request needs.
#[test]
fn elements_for_tables_are_bounded() {
    let elements = |count: usize| format!("(func $f) (elem func{})", " $f".repeat(count));
    assert_says(&module(&elements(80_001)), &["has 80001 elements", "80000 at most"]);
    let part = format!("(core module $m {})", elements(20_000));
    let instance = "(core instance (instantiate $m))";
    let flat = format!("{part} {}", instance.repeat(5));
    assert_says(&component(&flat, HANDLER), &["has 100000 elements"]);
    let inner = "(alias outer $c $m (core module $n))
        (core instance (instantiate $n)) (core instance (instantiate $n))";
    let nested = format!(
        "(component $c {part} (component $d {inner}) {}) (instance (instantiate $c))",
        "(instance (instantiate $d))".repeat(3)
    );
    assert_says(&component(&nested, HANDLER), &["has 120000 elements"]);
}

/// Data that cannot be mapped is copied into each instance, page by page.
#[test]
fn data_that_is_far_apart_is_bounded() {
    let segments = |count: u32, offset: &dyn Fn(u32) -> String| -> String {
        (0..count).map(|at| format!("(data (offset {}) \"x\")", offset(at * 4096))).collect()
    };
    let constant = |at: u32| format!("(i32.const {at})");
    let memory = |text: &str| {
        format!(
            r#"(module (memory (export "memory") 2000) {text}
            (func (export "handle_request") (result i64) (i64.const 0)))"#
        )
    };
    // An image of more than 16 MiB that is mostly zeros.
    let sparse = memory(&segments(20_000, &constant));
    assert_says(&sparse, &["copied to 20156 pages", "2048 at most"]);
    let moved = |at: u32| format!("(i32.add (i32.const 0) (i32.const {at}))");
    assert_says(&memory(&segments(1_500, &moved)), &["copied to 3000 pages"]);
    // A smaller one is mapped.
    let (code, said) = check(&memory(&segments(4_000, &constant)));
    assert_eq!(code, Some(0), "{said}");
}

/// A small file must not become large code, which has the initial memory images in it.
#[test]
fn images_that_are_mostly_zeros_are_bounded_together() {
    let memories = |count: usize| -> String {
        let memory = |at: usize| {
            let (export, data) = (if at == 0 { r#"(export "memory")"# } else { "" }, at);
            format!(
                r#"(memory {export} 128) (data (memory {data}) (i32.const 0) "x")
                (data (memory {data}) (i32.const 8388000) "x")"#
            )
        };
        let memories: String = (0..count).map(memory).collect();
        format!(
            r#"(module {memories} (func (export "handle_request") (result i64) (i64.const 0)))"#
        )
    };
    assert_says(&memories(3), &["begin with 24576 KiB", "16384 KiB at most"]);
    let (code, said) = check(&memories(2));
    assert_eq!(code, Some(0), "{said}");
    // Images of modules that are not instantiated count, too.
    let unused = "(core module (memory 128) (data (i32.const 0) \"x\")
        (data (i32.const 8388000) \"x\"))";
    assert_says(&component(&unused.repeat(3), HANDLER), &["begin with 24576 KiB"]);
}

/// A component may get a module from another component. Such a module counts as the largest of the
/// file.
#[test]
fn a_module_that_another_component_gives_counts() {
    let far = |count: u32| -> String {
        let segments = (0..count).map(|at| {
            format!("(data (offset (i32.add (i32.const 0) (i32.const {}))) \"x\")", at * 4096)
        });
        segments.collect()
    };
    let exported = |count| {
        format!(
            r#"(component $inner (core module $large (memory 2000) {})
                (export "m" (core module $large)))
            (instance $given (instantiate $inner))
            (alias export $given "m" (core module $m)) (core instance (instantiate $m))"#,
            far(count)
        )
    };
    let imported = |count| {
        format!(
            r#"(component $inner (import "m" (core module $m)) (core instance (instantiate $m)))
            (core module $large (memory 2000) {})
            (instance (instantiate $inner (with "m" (core module $large))))"#,
            far(count)
        )
    };
    for more in [exported(1_500), imported(1_500)] {
        assert_says(&component(&more, HANDLER), &["copied to 3000 pages"]);
    }
    for more in [exported(500), imported(500)] {
        let (_, said) = check(&component(&more, HANDLER));
        assert!(!said.contains("copied to"), "{said}");
    }
    let given = r#"(component $inner (component $empty) (export "c" (component $empty)))
        (instance $given (instantiate $inner))
        (alias export $given "c" (component $c)) (instance (instantiate $c))"#;
    assert_says(&component(given, HANDLER), &["its size is not known"]);
}

/// Code in an inner component runs, too, so the component is not flat.
#[test]
fn start_up_code_of_an_inner_component_is_not_forgotten() {
    let component = |inner: &str| {
        format!(
            r#"(component
            (import "wasi:http/types@0.2.0" (instance $types
                (export "incoming-request" (type (sub resource)))
                (export "response-outparam" (type (sub resource)))))
            (alias export $types "incoming-request" (type $request))
            (alias export $types "response-outparam" (type $out))
            {inner}
            (core module $main (memory (export "memory") 1)
                (func (export "handle") (param i32 i32)))
            (core instance $main (instantiate $main))
            (func $handle (param "request" (own $request)) (param "response-out" (own $out))
                (canon lift (core func $main "handle")))
            (component $shim
                (import "request" (type $r (sub resource))) (import "out" (type $o (sub resource)))
                (import "handle" (func $f
                    (param "request" (own $r)) (param "response-out" (own $o))))
                (export $request "incoming-request" (type $r))
                (export $out "response-outparam" (type $o))
                (export "handle" (func $f)
                    (func (param "request" (own $request)) (param "response-out" (own $out)))))
            (instance $handler (instantiate $shim (with "request" (type $request))
                (with "out" (type $out)) (with "handle" (func $handle))))
            (export "{HANDLER}" (instance $handler)))"#
        )
    };
    let (code, said) = check(&component(""));
    assert_eq!(code, Some(0), "{said}");
    let traps = "(component $traps (core module $m (func $f unreachable) (start $f))
        (core instance (instantiate $m))) (instance (instantiate $traps))";
    assert_says(&component(traps), &["unreachable"]);
    // Nor if one inner component instantiates another.
    let aliased = "(component $a (core module $m (func $f unreachable) (start $f))
            (core instance (instantiate $m)))
        (component $b (alias outer 1 $a (component $x)) (instance (instantiate $x)))
        (instance (instantiate $b))";
    assert_says(&component(aliased), &["unreachable"]);
}

#[test]
fn a_component_that_is_cut_off_is_called_so() {
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("guest.wasm");
    let whole = wat::parse_str(component("", HANDLER)).expect("a component");
    std::fs::write(&file, &whole[..whole.len() / 2]).expect("a file");
    let output = command().arg("check").arg(&file).output().expect("the program runs");
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(said.contains("the file is cut off"), "{said}");
}

/// A core module that would be served but for this one thing.
fn module(more: &str) -> String {
    format!(
        r#"(module {more} (memory (export "memory") 1)
            (func (export "handle_request") (result i64) (i64.const 0)))"#
    )
}

#[test]
fn an_import_of_another_toolchain_is_told_with_a_workaround() {
    for (module_, name, ty, words) in [
        ("env", "abort", "(param i32 i32 i32 i32)", "asc --use abort="),
        ("env", "seed", "(result f64)", "asc --use seed="),
        ("env", "emscripten_resize_heap", "(param i32) (result i32)", "emcc -sSTANDALONE_WASM"),
        ("gojs", "runtime.ticks", "(result f64)", "tinygo build -target=wasip1"),
        ("wbg", "__wbindgen_throw", "(param i32 i32)", "from wasm-bindgen"),
        ("env", "mine", "", "a symbol that was declared and not linked"),
    ] {
        let import = format!(r#"(import "{module_}" "{name}" (func {ty}))"#);
        assert_says(&module(&import), &[&format!("imports {module_}::{name}"), words]);
    }
}

/// The message about a feature that a module may not use says how to build without it.
#[test]
fn a_proposal_that_is_not_served_has_a_workaround() {
    for (more, words) in [
        ("(type (struct (field i32)))", "Kotlin, Dart, Java and OCaml"),
        ("(type (array i8))", "Kotlin, Dart, Java and OCaml"),
        ("(func (drop (ref.i31 (i32.const 1))))", "Kotlin, Dart, Java and OCaml"),
        ("(rec (type (func)) (type (func)))", "Kotlin, Dart, Java and OCaml"),
        ("(type $f (func)) (func (param (ref $f)) (call_ref $f (local.get 0)))", "typed function"),
        ("(tag (param i32))", "-fwasm-exceptions"),
        ("(func try_table end)", "-fwasm-exceptions"),
        ("(func throw_ref)", "-fwasm-exceptions"),
        ("(func try catch_all end)", "-fwasm-exceptions"),
        ("(memory i64 1)", "-sMEMORY64"),
        ("(table i64 1 funcref)", "-sMEMORY64"),
        ("(memory 1 1 shared)", "-pthread"),
        ("(func (drop (i32.atomic.load (i32.const 0))))", "-pthread"),
        (
            "(func (i64.add128 (i64.const 0) (i64.const 0) (i64.const 0) (i64.const 0)) drop drop)",
            "-mwide-arithmetic",
        ),
        ("(memory 1 (pagesize 1))", "--page-size"),
    ] {
        let (code, said) = check(&module(more));
        assert_eq!(code, Some(1), "{more}: {said}");
        let error = said.lines().find(|line| line.starts_with("error: ")).unwrap_or_default();
        assert!(error.contains(words) && error.contains("not served"), "{more}: {error}");
    }
}

/// An interface that is imported only for its types is not needed from the host. That includes
/// resources, which belong to the interface that defines them.
#[test]
fn an_import_of_anothers_resources_is_not_missed() {
    let import = r#"
        (import "wasi:http/types@0.3.0" (instance $types
            (export "request" (type (sub resource)))))
        (alias export $types "request" (type $request))
        (import "wasi:http/handler@0.3.0" (instance
            (alias outer 1 $request (type $its))
            (export "request" (type (eq $its)))))"#;
    let (code, said) = check(&component(import, HANDLER));
    assert_eq!(code, Some(1), "{said}");
    assert!(said.contains("an instance cannot be made: expected 2-tuple"), "{said}");
    // An interface that defines a resource is needed, and so is one with a function.
    for more in [r#"(export "own" (type (sub resource)))"#, r#"(export "handle" (func))"#] {
        let import = import.replace(r#"(export "request" (type (eq $its)))"#, more);
        assert_says(&component(&import, HANDLER), &["wasi:http/handler@0.3.0", "middleware"]);
    }
}

#[test]
fn an_ending_in_capitals_is_named() {
    let folder = tempfile::tempdir().expect("a folder");
    let text = module("");
    let wasm = wat::parse_str(&text).expect("a module");
    for (name, bytes, meant) in
        [("One.WASM", &wasm[..], ".wasm"), ("Two.Wat", text.as_bytes(), ".wat")]
    {
        let file = folder.path().join(name);
        std::fs::write(&file, bytes).expect("a file");
        let output = command().arg("check").arg(&file).output().expect("the program runs");
        let said = String::from_utf8_lossy(&output.stdout);
        assert_eq!(output.status.code(), Some(1), "{said}");
        assert!(said.contains(meant), "{said}");
    }
    let output = command().arg("routes").arg(folder.path()).output().expect("the program runs");
    let said = String::from_utf8_lossy(&output.stderr);
    for words in ["One.WASM: it ends in .WASM", "Two.Wat: it ends in .Wat", "rename it"] {
        assert!(said.contains(words), "{said}");
    }
}

//! Which components are flattened, and which only look as if they could be.

use super::{FlatModule, MEMORY, REALLOC_IMPORT, flatten};
use crate::component::{self, WasiHttpVersion};
use crate::sniff;
use crate::tests::{HTTP02, HTTP03, escape, feed, wasm};

/// Checks that a component is valid, and flattens it.
fn flat(text: &str, version: WasiHttpVersion) -> Result<FlatModule, String> {
    let bytes = wasm(text);
    component::read(&bytes).unwrap_or_else(|error| panic!("{error} in {text}"));
    flatten(&bytes, version, escape)
}

/// Replaces `from` by `to` in the component of 0.2. Checks that the result is valid and is not
/// flattened.
#[track_caller]
fn assert_stays(from: &str, to: &str) {
    assert!(HTTP02.contains(from), "{from} is not there");
    assert!(flat(&HTTP02.replacen(from, to, 1), WasiHttpVersion::Http02).is_err(), "{to}");
}

fn names(module: &sniff::Module) -> (Vec<String>, Vec<&str>) {
    let imports = module.imports.iter().map(|it| format!("{}::{}", it.module, it.name));
    (imports.collect(), module.exports.iter().map(|it| &*it.name).collect())
}

#[test]
fn a_component_of_02_is_its_module() {
    let flat = flat(HTTP02, WasiHttpVersion::Http02).expect("it is one module");
    assert_eq!(flat.handle, "wasi:http/incoming-handler@0.2.0#handle");
    assert_eq!(flat.callback, None);
    let module = sniff::read(&flat.wasm).expect("it is valid");
    let (imports, exports) = names(&module);
    let expected = [
        "wasi:http/types::[method]incoming-request.path-with-query".to_owned(),
        "wasi:http/types::[resource-drop]incoming-request".to_owned(),
        format!("{}::{}", REALLOC_IMPORT.0, REALLOC_IMPORT.1),
    ];
    assert_eq!(imports, expected);
    assert_eq!(exports, [MEMORY, "cabi_realloc", &flat.handle]);
    let why = flatten(&wasm(HTTP02), WasiHttpVersion::Http03, escape).expect_err("it is of 0.2");
    assert_eq!(why, "it does not export one wasi:http/handler@0.3.x");
}

#[test]
fn a_component_of_03_is_its_module() {
    let flat = flat(HTTP03, WasiHttpVersion::Http03).expect("it is one module");
    assert_eq!(flat.callback.as_deref(), Some("[callback]handle"));
    let module = sniff::read(&flat.wasm).expect("it is valid");
    let expected = ["wasi:http/types@0.3::[resource-drop]request", "canon::waitable-set.new"];
    assert_eq!(names(&module).0, expected);
}

/// Each refusal says why, with escaped names.
#[test]
fn each_refusal_has_its_words() {
    for (from, to, words) in [
        (
            "(core instance $shim (instantiate $shim))",
            "(core instance $shim (instantiate $shim)) (core module $more)
          (core instance (instantiate $more))",
            "it is made of 4 core modules",
        ),
        (
            "(memory $memory) (realloc $realloc)",
            "(memory $memory) (realloc $realloc) string-encoding=utf16",
            "its texts are not UTF-8",
        ),
        (
            "(memory (export \"memory\") 1)",
            "(memory (export \"memory\") 1) (func $start) (start $start)",
            "its module has a start function",
        ),
        (
            "(core func $drop (canon resource.drop $request))",
            "(type $own (resource (rep i32)))
          (core func $drop (canon resource.drop $own))",
            "it imports wasi:http/types@0.2.0 [resource-drop]incoming",
        ),
        (
            "(elem (i32.const 0) func 0))",
            "(elem (i32.const 0) func 0) (memory 1))",
            "it imports wasi:http/types@0.2.0 [method]incoming",
        ),
    ] {
        assert!(HTTP02.contains(from), "{from} is not there");
        let why = flat(&HTTP02.replacen(from, to, 1), WasiHttpVersion::Http02).expect_err(to);
        assert!(why.contains(words), "{why}");
    }
}

/// A segment whose offset is a sum would be read as one at offset 0, and each stub would be linked
/// to the wrong function.
#[test]
fn a_segment_that_begins_behind_a_sum_is_not_read() {
    let text =
        HTTP02.replacen("(table (export \"$imports\") 1 1", "(table (export \"$imports\") 2 2", 1);
    let text = text.replacen("(table 1 1 funcref)", "(table 2 2 funcref)", 1);
    let segment = "(elem (i32.const 0) func 0)";
    assert!(flat(&text, WasiHttpVersion::Http02).is_ok());
    let moved = "(elem (offset i32.const 0 i32.const 1 i32.add) func 0)";
    assert!(flat(&text.replacen(segment, moved, 1), WasiHttpVersion::Http02).is_err());
}

/// The functions of a shim call through its first table, and another one may be filled.
#[test]
fn a_shim_with_two_tables_is_not_read() {
    let one = "(table (export \"$imports\") 1 1 funcref)";
    assert_stays(one, &format!("(table 1 1 funcref) {one}"));
}

/// The fixups module is left out of the flat form, so it may do nothing but fill the table.
#[test]
fn fixups_that_do_more_are_not_left_out() {
    assert_stays(
        "(elem (i32.const 0) func 0))",
        "(elem (i32.const 0) func 0) (start $s) (func $s))",
    );
    let text = HTTP02.replacen(
        "(elem (i32.const 0) func 0))",
        "(import \"\" \"memory\" (memory 1))
        (elem (i32.const 0) func 0) (data (i32.const 8) \"other\"))",
        1,
    );
    let text = text.replacen(
        "(export \"$imports\" (table $table))",
        "(export \"$imports\" (table $table)) (export \"memory\" (memory $memory))",
        1,
    );
    assert!(flat(&text, WasiHttpVersion::Http02).is_err());
}

/// The fixups module is checked even if no import goes through the shim.
#[test]
fn fixups_are_looked_at_if_nothing_needs_them() {
    let text = HTTP02
        .replacen("(elem (i32.const 0) func 0))", "(memory 1) (data (i32.const 0) \"x\"))", 1)
        .replacen(
            "(import \"wasi:http/types@0.2.0\" \"[method]incoming-request.path-with-query\"
      (func $path (param i32 i32)))",
            "",
            1,
        )
        .replacen("(call $path (local.get 0) (i32.const 64))", "", 1);
    assert!(flat(&text, WasiHttpVersion::Http02).is_err());
}

/// 2,000 imports go through one shim, which is read only once.
#[test]
fn a_large_shim_is_read_once() {
    const COUNT: usize = 2_000;
    let each = |text: &dyn Fn(usize) -> String| (0..COUNT).map(text).collect::<String>();
    let get = "\"[method]incoming-request.path-with-query\"";
    let text = HTTP02
        .replacen(
            "(func $path (param i32 i32)))",
            &format!(
                "(func $path (param i32 i32))){}",
                each(&|at| format!("(import \"more\" \"{at}\" (func (param i32 i32)))"))
            ),
            1,
        )
        .replacen(
            "(func (export \"0\")",
            &format!(
                "{}(func (export \"0\")",
                each(&|at| format!(
                    "(func (export \"more{at}\") (param i32 i32)
                       local.get 0 local.get 1 i32.const 0 call_indirect (type $pair))"
                ))
            ),
            1,
        )
        .replacen(
            "(core func $drop (canon",
            &format!(
                "{} (core instance $more {}) (core func $drop (canon",
                each(&|at| format!("(alias core export $shim \"more{at}\" (core func $more{at}))")),
                each(&|at| format!("(export \"{at}\" (func $more{at}))")),
            ),
            1,
        )
        .replacen(
            "(instantiate $main\n",
            "(instantiate $main (with \"more\" (instance $more))\n",
            1,
        );
    let start = std::time::Instant::now();
    let flat = flat(&text, WasiHttpVersion::Http02).expect("it is one module");
    assert_eq!(sniff::read(&flat.wasm).expect("it is valid").imports.len(), COUNT + 3, "{get}");
    assert!(start.elapsed().as_secs() < 20, "{:?}", start.elapsed());
}

#[test]
fn hostile_bytes_come_to_an_end() {
    feed(|bytes| {
        for version in [WasiHttpVersion::Http02, WasiHttpVersion::Http03] {
            drop(flatten(bytes, version, escape));
        }
    });
}

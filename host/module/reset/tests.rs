//! Which modules can be reset, and which only look like it.

use super::{MEMORY_BYTES_MAX, export_name, qualify};
use crate::sniff;
use crate::tests::{HTTP02, MODULE, feed, wasm};

/// Whether a valid module with these entries can be reset.
fn is_resettable(body: &str) -> bool {
    let text = format!("(module {body} (memory (export \"memory\") 1))");
    let bytes = wasm(&text);
    let about = sniff::read(&bytes).unwrap_or_else(|error| panic!("{error} in {text}"));
    qualify(&bytes, about.memory_bytes, about.memories).is_some()
}

#[test]
fn mutable_globals_are_exported() {
    let resettable = qualify(&wasm(MODULE), 2 << 16, 1).expect("it can be reset");
    assert_eq!(resettable.globals, 1);
    let about = sniff::read(&resettable.wasm).expect("it is valid");
    let exports: Vec<&str> = about.exports.iter().map(|export| &*export.name).collect();
    assert_eq!(exports, ["memory", "handle_request", &export_name(0)]);
    assert_eq!(export_name(3), "guesthouse:global:3");
}

#[test]
fn what_lasts_cannot_be_reset() {
    let tables = "(table $t 1 funcref) (table $u 1 funcref) (elem $e func)";
    for code in [
        "(table.set $t (i32.const 0) (ref.null func))",
        "(drop (table.grow $t (ref.null func) (i32.const 1)))",
        "(table.fill $t (i32.const 0) (ref.null func) (i32.const 1))",
        "(table.copy $t $u (i32.const 0) (i32.const 0) (i32.const 1))",
        "(table.init $t $e (i32.const 0) (i32.const 0) (i32.const 0))",
        "(elem.drop $e)",
    ] {
        assert!(!is_resettable(&format!("{tables} (func {code})")), "{code}");
    }
    assert!(!is_resettable("(data $d \"x\") (func (data.drop $d))"));
    assert!(is_resettable(&format!("{tables} (func (drop (table.get $t (i32.const 0))))")));
}

#[test]
fn what_is_not_the_instance_s_own_cannot_be_reset() {
    for body in [
        "(import \"x\" \"g\" (global (mut i32)))",
        "(import \"x\" \"t\" (table 1 funcref))",
        "(func $f) (start $f)",
        "(global (mut funcref) (ref.null func))",
        "(func (export \"guesthouse:global:0\"))",
    ] {
        assert!(!is_resettable(body), "{body}");
    }
    let globals = |count: usize| "(global (mut f64) (f64.const 0))".repeat(count);
    assert!(is_resettable(&globals(16)) && !is_resettable(&globals(17)));
    let bytes = wasm("(module (memory 1) (global (mut i32) (i32.const 0)))");
    assert!(qualify(&bytes, 1 << 16, 1).is_none(), "the global would not be exported");
    for (memory_bytes, memories) in [(MEMORY_BYTES_MAX + 1, 1), (1 << 16, 0), (1 << 16, 2)] {
        assert!(qualify(&wasm(MODULE), memory_bytes, memories).is_none());
    }
    assert!(qualify(&wasm(HTTP02), 1 << 16, 1).is_none());
}

#[test]
fn hostile_bytes_come_to_an_end() {
    feed(|bytes| drop(qualify(bytes, 1 << 16, 1)));
}

//! What is read from modules, and the errors for modules and other files that are refused.

use super::{features, is_component, kind, read};
use crate::tests::{HTTP02, MODULE, feed, list, module, wasm};

#[test]
fn a_module_is_told_with_its_sizes() {
    let about = read(&wasm(MODULE)).expect("a module");
    let imports: Vec<String> =
        about.imports.iter().map(|it| format!("{}::{} {}", it.module, it.name, it.ty)).collect();
    let expected = [
        "http_handler::write_body (i32, i32, i32)",
        "wasi_snapshot_preview1::random_get (i32, i32) -> i32",
    ];
    assert_eq!(imports, expected);
    assert!(about.imports.iter().all(|import| import.is_function));
    assert_eq!(about.export("handle_request").map(|it| &*it.ty), Some("() -> i64"));
    assert_eq!(about.export("memory").map(|it| &*it.ty), Some("memory"));
    assert!(about.export("none").is_none());
    assert_eq!((about.data_bytes, about.data_segments), (9, 2));
    assert_eq!((about.memory_bytes, about.memories), (2 << 16, 1));
    assert_eq!((about.tables, about.table_elements, about.has_start), (1, 2, false));
    let start = wasm("(module (func $f) (start $f))");
    assert!(read(&start).expect("a module").has_start);
}

#[test]
fn a_file_is_told_by_its_head() {
    assert_eq!(kind(b"\0asm\x01\0\0\0"), "core");
    assert_eq!(kind(b"\0asm\x0d\0\x01\0"), "component");
    assert_eq!(kind(b"\x7fELF\x02\x01\x01\0"), "unknown");
    assert!(is_component(&wasm(HTTP02)) && !is_component(&wasm(MODULE)) && !is_component(b"\0asm"));
}

#[test]
fn what_is_wrong_is_said() {
    for (bytes, words) in [
        (&b""[..], "the file is empty"),
        (b"\0asm\x01", "ends within its first 8 bytes"),
        (b"\x7fELF\x02\x01", "a native program"),
        (b"#!/bin/sh", "not a WebAssembly file"),
        (b"\0asm\x01\0\0\0\x01\x09", "the file is cut off (at byte "),
        (b"\0asm\x01\0\0\0\x03\x02\x01\x07", "not a valid module (at byte "),
    ] {
        let reason = read(bytes).expect_err("it is no module");
        assert!(reason.contains(words), "{reason}");
    }
    assert!(!features().contains(wasmparser::WasmFeatures::THREADS));
}

/// The validator does not notice import groups.
#[test]
fn imports_in_groups_are_refused() {
    let types = (1, list(1, &[0x60, 0, 0]));
    // Groups of no import and of two imports that share a type, and one with a type of its own.
    for group in
        [&b"\x01m\0\x7e\0\0\0"[..], b"\x01m\0\x7e\0\0\x02\x01a\x01b", b"\x01m\0\x7f\x01\x01a\0\0"]
    {
        let reason = read(&module(&[types.clone(), (2, list(1, group))])).expect_err("a group");
        assert!(reason.contains("compact import sections"), "{reason}");
    }
}

#[test]
fn hostile_bytes_come_to_an_end() {
    feed(|bytes| drop(read(bytes)));
}

/// Imports of one type share its text. With a text each, a million imports of a type with a
/// thousand parameters would take 5 GB before the validator refuses the type.
#[test]
fn a_type_is_written_once_for_all_of_its_imports() {
    const COUNT: usize = 900;
    let params = 1_000;
    let ty = [&[0x60, 0xe8, 7][..], &vec![0x7f; params], &[0]].concat();
    let about = read(&module(&[(1, list(1, &ty)), (2, list(COUNT, &[0, 0, 0, 0]))]));
    let about = about.expect("a module");
    assert_eq!(about.imports.len(), COUNT);
    assert!(std::sync::Arc::ptr_eq(&about.imports[0].ty, &about.imports[COUNT - 1].ty));
}

//! What is read from components, and which of them are served.

use super::{Component, WasiHttpVersion, features, judge, read};
use crate::imports::Rules;
use crate::tests::{HTTP02, HTTP03, escape, feed, wasm};

const RULES: Rules = Rules { memory_bytes_max: 1 << 20, escape };

#[test]
fn a_component_is_told_with_its_sizes() {
    let old = read(&wasm(HTTP02)).expect("a component");
    assert_eq!(old.imports, ["wasi:http/types@0.2.0"]);
    assert_eq!(old.exports, ["wasi:http/incoming-handler@0.2.0"]);
    assert_eq!((old.memory_bytes, old.data_bytes, old.has_start), (1 << 16, 5, false));
    assert_eq!((judge(&old, &RULES), old.needs_03()), (Ok(WasiHttpVersion::Http02), false));
    let new = read(&wasm(HTTP03)).expect("a component");
    assert_eq!((judge(&new, &RULES), new.needs_03()), (Ok(WasiHttpVersion::Http03), true));
    assert!(features().contains(wasmparser::WasmFeatures::CM_ASYNC));
}

#[test]
fn what_is_wrong_is_said_once() {
    let exports = vec!["wasi:cli/run@0.2.0".to_owned()];
    let command = Component { exports, ..Component::default() };
    let said = judge(&command, &RULES).expect_err("it is no handler");
    assert!(said.contains("a command component"), "{said}");
    let imports = (0..100_000).map(|at| format!("a:b/c{at}\x1b")).collect();
    let exports = vec!["wasi:http/handler@0.3.0".to_owned()];
    let greedy =
        Component { imports, exports, memory_bytes: u64::MAX, table_elements: 1 << 40, ..command };
    let said = judge(&greedy, &RULES).expect_err("it wants too much");
    for words in ["and 99995 more unknown imports", "raise --memory-max", "a table of"] {
        assert!(said.contains(words), "{said}");
    }
    assert!(!said.contains('\x1b') && said.len() < 4_000, "{said}");
}

#[test]
fn hostile_bytes_come_to_an_end() {
    feed(|bytes| drop(read(bytes)));
}

//! Which modules the host accepts, and the error for each that it refuses.

use super::{Rules, judge, judge_memory, judge_table};
use crate::limits::TABLE_ELEMENTS_MAX;
use crate::sniff;
use crate::tests::{MODULE, escape, wasm};

const RULES: Rules = Rules { memory_bytes_max: 1 << 20, escape };

/// The error for a text module that is refused.
fn said(text: &str) -> String {
    let about = sniff::read(&wasm(text)).unwrap_or_else(|error| panic!("{error}"));
    judge(&about, &RULES).expect_err("it does not fit")
}

const HANDLER: &str = r#"(memory (export "memory") 1)
    (func (export "handle_request") (result i64) i64.const 0)"#;

#[test]
fn what_fits_fits() {
    let about = sniff::read(&wasm(MODULE)).expect("a module");
    assert_eq!(judge(&about, &RULES), Ok(()));
}

#[test]
fn each_fault_has_its_words() {
    for (text, words) in [
        ("(module)", "no export handle_request"),
        (r#"(module (func (export "_start")))"#, "it is a command"),
        (r#"(module (func (export "handle_request")))"#, "as (), but the http-wasm ABI"),
        (r#"(module (global (export "memory") i32 (i32.const 0)))"#, "as a global"),
        (&format!(r#"(module (import "x" "y" (func)) {HANDLER})"#), "imports x::y (), which"),
        (
            &format!(r#"(module (import "http_handler" "write_body" (func)) {HANDLER})"#),
            "as (), but the host has it as (i32, i32, i32)",
        ),
        (&format!("(module {HANDLER} (memory 20))"), "raise --memory-max"),
        (&format!("(module {HANDLER} (table 30000 funcref))"), "a table of 30000 elements"),
    ] {
        let said = said(text);
        assert!(said.contains(words), "{text}: {said}");
    }
}

/// The error stays short, however many faults a module has.
#[test]
fn many_faults_are_counted() {
    let unlike = r#"(import "http_handler" "write_body" (func))"#.repeat(1_000);
    let unknown = format!(r#"(import "x" "{}" (func))"#, "y".repeat(10_000)).repeat(100);
    let said = said(&format!("(module {unlike} {unknown} {HANDLER})"));
    assert!(said.contains("and 995 more imports of another type"), "{said}");
    assert!(said.contains("and 95 more unknown imports"), "{said}");
    assert!(said.len() < 5_000, "{} bytes", said.len());
}

#[test]
fn sizes_have_limits() {
    let (mut fits, mut faults) = (Vec::new(), Vec::new());
    judge_memory(1 << 20, &RULES, &mut fits);
    judge_table(TABLE_ELEMENTS_MAX as u64, &mut fits);
    judge_memory((1 << 20) + 1, &RULES, &mut faults);
    judge_memory(u64::MAX, &RULES, &mut faults);
    judge_table(u64::MAX, &mut faults);
    assert_eq!((fits.len(), faults.len()), (0, 3));
}

//! Guests that cannot be loaded: their routes answer 503, and the log says what to do.

use super::{assert_contained, assert_discreet, host};
use crate::host::{HELLO, Host};

/// Each guest with words that the log must have: its name, what is wrong, what to do.
const NOT_LOADED: &[(&str, &[&str])] = &[
    ("data_out_of_bounds", &["out of bounds"]),
    ("huge_memory", &["--memory-max"]),
    ("huge_table", &["10000000", "20000"]),
    ("imported_memory", &["env::memory", "--import-memory"]),
    ("many_memories", &["8 memories"]),
    ("no_handler", &["handle_request", "command"]),
    ("no_memory", &["exports no memory"]),
    ("not_text", &["not valid WebAssembly text"]),
    ("request_is_memory", &["handle_request", "memory"]),
    ("start_exits_three", &["start-up", "exit status 3"]),
    ("start_recurses", &["start-up", "call stack exhausted"]),
    ("start_section_traps", &["start-up", "unreachable"]),
    ("start_sets_header", &["start-up", "no request"]),
    ("start_traps", &["start-up", "unreachable"]),
    ("threads", &["shared", "threads"]),
    ("unknown_function", &["http_handler::get_methods", "get_method"]),
    ("unknown_import", &["env::emscripten_resize_heap", "Emscripten"]),
    ("wrong_import_type", &["http_handler::get_method", "(i64) -> i64"]),
    ("wrong_request_type", &["handle_request", "() -> i64"]),
    ("wrong_response_type", &["handle_response", "(i32, i32)"]),
    ("wrong_start_type", &["_start", "(i32)"]),
];

/// The same for guests that load until the deadline.
const NEVER_STARTED: &[(&str, &[&str])] = &[
    ("start_loops", &["start-up", "deadline"]),
    ("start_section_loops", &["start-up", "deadline"]),
    ("start_sleeps", &["start-up", "deadline"]),
];

pub fn names() -> impl Iterator<Item = &'static str> {
    let tables = [NOT_LOADED, NEVER_STARTED].into_iter().flatten();
    tables.map(|(name, _)| *name)
}

#[track_caller]
fn check(guests: &[(&str, &[&str])], isolation: &str, flags: &[&str]) {
    let names = guests.iter().map(|(name, _)| *name);
    let host = host(names, isolation).args(flags).start();
    host.settled();
    for (name, words) in guests {
        let path = format!("/{name}");
        assert_contained(&host, &path, 503);
        assert_contained(&host, &path, 503);
        assert_discreet(&path, &host.request("POST", &path, &[], b"body"), 503);
        let mut words = words.to_vec();
        words.push(name);
        let line = host.wait_log_with(&words);
        assert!(matches!(line.level(), "WARN" | "ERROR"), "{}", line.text);
    }
    let rejects = host.at_rest().rejects;
    assert_eq!(rejects["not_loaded"], 3 * guests.len() as u64, "{rejects:?}");
}

#[test]
fn what_does_not_load_says_why_and_answers_503() {
    check(NOT_LOADED, "fresh", &[]);
}

#[test]
fn what_does_not_load_says_why_and_answers_503_under_reuse() {
    check(NOT_LOADED, "reuse", &[]);
}

#[test]
fn start_up_code_is_stopped_at_the_deadline() {
    check(NEVER_STARTED, "fresh", &["--deadline", "300ms"]);
}

#[test]
fn start_up_code_is_stopped_at_the_deadline_under_reuse() {
    check(NEVER_STARTED, "reuse", &["--deadline", "300ms"]);
}

/// A text with more open parentheses than a parser's stack may have room for.
#[test]
fn deep_nesting_is_an_error_of_the_file_only() {
    let depth = 200_000;
    let text = format!("(module {}{})", "(func ".repeat(depth), ")".repeat(depth));
    let folded = "(i32.eqz ".repeat(depth) + "(i32.const 1)" + &")".repeat(depth);
    let folded = format!("(module (func (result i32) {folded}))");
    let host =
        Host::with("good.wat", HELLO).file("deep.wat", text).file("folded.wat", folded).start();
    for name in ["deep", "folded"] {
        assert_contained(&host, &format!("/{name}"), 503);
        let line = host.wait_log(|line| line.level() == "ERROR" && line.has(&[name]));
        assert!(line.text.len() < 8 * 1024, "{} bytes", line.text.len());
    }
    host.at_rest();
}

/// A parser that quotes the faulty line quotes untrusted bytes.
#[test]
fn text_that_is_at_fault_cannot_write_into_the_log() {
    let text = "(module (func \u{1b}[31m\u{202e}\r\u{9b}1m oops))";
    let long = format!("(module (func (oops {})))", "x".repeat(100_000));
    let host = Host::with("short.wat", text).file("long.wat", long).start();
    for name in ["short", "long"] {
        host.get(&format!("/{name}")).assert_problem(503);
        let line = host.wait_log(|line| line.level() == "ERROR" && line.has(&[name]));
        let raw = ['\x1b', '\u{202e}', '\r', '\u{9b}'];
        assert!(!line.message().contains(raw), "{:?}", line.message());
        assert!(line.text.len() < 8 * 1024, "{} bytes", line.text.len());
    }
}

/// A module that is valid, and nested more deeply than the compiler likes. It may be served or
/// refused, and the host goes on.
#[test]
fn deeply_nested_code_does_not_stop_the_host() {
    let depth = 20_000;
    let text = format!(
        "(module (memory (export \"memory\") 1)
           (func (export \"handle_request\") (result i64) {}{} i64.const 0))",
        "block ".repeat(depth),
        "end ".repeat(depth)
    );
    let host = Host::with("good.wat", HELLO).file("deep.wat", text).start();
    let status = host.get("/deep").status;
    assert!(matches!(status, 200 | 503), "{status}");
    host.assert_serves("/good");
    host.at_rest();
}

/// Names in a module are untrusted bytes. The log has them escaped and cut.
#[test]
fn names_in_a_module_cannot_write_into_the_log() {
    let long = "x".repeat(50_000);
    let text = format!(
        r#"(module
             (import "env\1b[31m\0a" "{long}" (func))
             (memory (export "memory") 1)
             (func (export "handle_request") (result i64) (i64.const 0)))"#
    );
    let trapping = r#"
        (module
          (memory (export "memory") 1)
          (func $"red\1b[31m\0aname" (unreachable))
          (func (export "handle_request") (result i64) (call 0) (i64.const 0)))"#;
    let host = Host::with("good.wat", HELLO)
        .file("named.wat", text)
        .file("trapping.wat", trapping)
        .start();
    assert_contained(&host, "/named", 503);
    assert_contained(&host, "/trapping", 500);
    host.at_rest();
    host.wait_log_with(&["named", "does not have"]);
    host.wait_log_with(&["trapping", "unreachable"]);
    for line in host.lines() {
        assert!(line.text.len() < 8 * 1024, "{} bytes", line.text.len());
        assert!(!line.message().contains('\x1b'), "{}", line.text);
        assert!(!line.message().contains('\n'), "{}", line.text);
    }
}

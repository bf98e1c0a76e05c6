//! Host functions with arguments that they must refuse: pointers and lengths out of bounds, unknown
//! kinds, statuses and header fields that HTTP does not have.
//!
//! Each case is a guest that is made here. All of them break on a GET and answer a POST.

use super::{ISOLATIONS, assert_discreet};
use crate::abi::probe::{END, Probe};
use crate::host::{HELLO, Host};

/// Functions with a pointer and a length, both written as `{}`.
const RANGES: &[(&str, &str)] = &[
    ("get_config", "(drop (call $get_config {}))"),
    ("get_method", "(drop (call $get_method {}))"),
    ("get_uri", "(drop (call $get_uri {}))"),
    ("get_protocol_version", "(drop (call $get_protocol_version {}))"),
    ("get_source_addr", "(drop (call $get_source_addr {}))"),
    ("log", "(call $log #0 {})"),
    ("log_off", "(call $log #3 {})"),
    ("set_method", "(call $set_method {})"),
    ("set_uri", "(call $set_uri {})"),
    ("get_header_names", "(drop (call $get_header_names #0 {}))"),
    ("get_header_values", "(drop (call $get_header_values #0 'host' {}))"),
    ("get_header_values_name", "(drop (call $get_header_values #0 {} #65536 #64))"),
    ("set_header_value", "(call $set_header_value #1 'x-a' {})"),
    ("set_header_value_name", "(call $set_header_value #1 {} 'a')"),
    ("add_header_value", "(call $add_header_value #1 'x-a' {})"),
    ("add_header_value_name", "(call $add_header_value #1 {} 'a')"),
    ("remove_header", "(call $remove_header #1 {})"),
    ("read_body", "(drop (call $read_body #0 {}))"),
    ("write_body", "(call $write_body #1 {})"),
    ("write_body_request", "(call $write_body #0 {})"),
];

/// Ranges that are out of bounds in a memory that ends at [`END`].
fn ranges() -> [String; 7] {
    [
        // The first byte is in bounds, and the last one is not.
        format!("#{} #9", END - 8),
        format!("#{END} #1"),
        // The sum overflows 32 bits, and the result is small.
        "#16 #-8".into(),
        "#-8 #16".into(),
        "#0x7fffffff #0x7fffffff".into(),
        "#-1 #-1".into(),
        // As long as the whole address space.
        "#0 #-1".into(),
    ]
}

/// Other calls that must stop the guest.
const REFUSED: &[&str] = &[
    // Kinds of headers and of bodies.
    "(drop (call $get_header_names #7 #65536 #64))",
    "(drop (call $get_header_names #4 #65536 #64))",
    "(drop (call $get_header_values #-1 'host' #65536 #64))",
    "(call $set_header_value #7 'x-a' 'a')",
    "(call $add_header_value #7 'x-a' 'a')",
    "(call $remove_header #7 'x-a')",
    "(drop (call $read_body #9 #65536 #64))",
    "(drop (call $read_body #1 #65536 #64))",
    "(call $write_body #9 'a')",
    // Statuses.
    "(call $set_status_code #0)",
    "(call $set_status_code #99)",
    "(call $set_status_code #100)",
    "(call $set_status_code #101)",
    "(call $set_status_code #199)",
    "(call $set_status_code #600)",
    "(call $set_status_code #1000)",
    "(call $set_status_code #-1)",
    "(call $set_status_code #0x7fffffff)",
    "(call $set_status_code #0x100c8)", // 200 in its low 16 bits
    // Names and values of headers.
    "(call $set_header_value #1 '' 'a')",
    "(call $set_header_value #1 'x a' 'a')",
    "(call $set_header_value #1 'x-a:' 'a')",
    "(call $set_header_value #1 'x\\0a' 'a')",
    "(call $set_header_value #1 'x\\0d\\0ay' 'a')",
    "(call $set_header_value #1 'x\\00' 'a')",
    "(call $set_header_value #1 '\\c3\\a4' 'a')",
    "(call $set_header_value #1 'x-a' 'a\\0a')",
    "(call $set_header_value #1 'x-a' 'a\\0d')",
    "(call $set_header_value #1 'x-a' 'a\\0d\\0ab: c')",
    "(call $set_header_value #1 'x-a' '\\00')",
    "(call $set_header_value #1 'x-a' 'a\\1b[31m')",
    "(call $set_header_value #1 'x-a' '\\7f')",
    "(call $add_header_value #1 'x a' 'a')",
    "(call $add_header_value #1 'x-a' 'a\\0d\\0ab: c')",
    "(call $remove_header #1 'x a')",
    // The request.
    "(call $set_method '')",
    "(call $set_method 'G T')",
    "(call $set_method 'GET\\0d\\0a')",
    "(call $set_uri 'no-slash')",
    "(call $set_uri '/a b')",
    "(call $set_uri '/a\\0d\\0ab')",
    "(call $set_uri 'http://elsewhere.test/')",
    "(call $set_uri '*')",
    "(call $set_header_value #0 'x-a' 'a\\0d\\0ab: c')",
    // Trailers of the request are read-only, and those of the response are switched off.
    "(call $set_header_value #2 'x-a' 'a')",
    "(call $set_header_value #3 'x-a' 'a')",
];

/// A guest that makes this call on a GET.
fn guest(call: &str) -> String {
    let request = format!("(if (i32.eq (call $get_method #0 #0) #3) (then {call}))");
    Probe::new(&request).wat()
}

/// A host with a guest for each call. The path of a guest is `/` and its number.
fn start(calls: &[String], isolation: &str) -> Host {
    let good = Host::with("good.wat", HELLO).args(["--isolation", isolation]);
    let numbered = calls.iter().enumerate();
    numbered
        .fold(good, |setup, (number, call)| setup.file(&format!("{number}.wat"), guest(call)))
        .start()
}

fn refuse(calls: &[String]) {
    for isolation in ISOLATIONS {
        let host = start(calls, isolation);
        for (number, call) in calls.iter().enumerate() {
            let path = format!("/{number}");
            let answer = host.get(&path);
            assert_eq!(answer.status, 500, "{call}: {}", answer.text());
            assert_discreet(call, &answer, 500);
            let next = host.request("POST", &path, &[], b"");
            assert_eq!(next.status, 200, "after {call}: {}", next.text());
            host.assert_serves("/good");
        }
        let rejects = host.at_rest().rejects;
        assert_eq!(rejects.values().sum::<u64>(), calls.len() as u64, "{rejects:?}");
    }
}

#[test]
fn pointers_outside_of_the_memory_are_refused() {
    let mut calls = Vec::new();
    for (_, call) in RANGES {
        calls.extend(ranges().iter().map(|range| call.replace("{}", range)));
    }
    refuse(&calls);
}

#[test]
fn what_the_interface_does_not_have_is_refused() {
    let calls: Vec<String> = REFUSED.iter().map(|call| (*call).to_owned()).collect();
    refuse(&calls);
}

/// The opposite: arguments that are just in bounds are accepted, and so is an empty range at the
/// very end.
#[test]
fn pointers_at_the_edge_are_taken() {
    let empty = format!("#{END} #0");
    let last = format!("#{} #8", END - 8);
    let mut calls = Vec::new();
    for (name, call) in RANGES {
        calls.push((*name, call.replace("{}", &last)));
        // Nothing can be read into an empty buffer, and a field or a method needs a name.
        let needs_bytes = matches!(
            *name,
            "read_body"
                | "set_method"
                | "remove_header"
                | "set_header_value_name"
                | "add_header_value_name"
        );
        if !needs_bytes {
            calls.push((*name, call.replace("{}", &empty)));
        }
    }
    // Zeros at the end of memory are not a valid method, path or field.
    let zeros_are_refused = |name: &str| {
        name.starts_with("set_") || name.starts_with("add_") || name == "remove_header"
    };
    calls.retain(|(name, call)| call.contains(&empty) || !zeros_are_refused(name));
    let texts: Vec<String> = calls.iter().map(|(_, call)| call.clone()).collect();
    let host = start(&texts, "fresh");
    for (number, call) in texts.iter().enumerate() {
        let answer = host.get(&format!("/{number}"));
        assert_eq!(answer.status, 200, "{call}: {}", answer.text());
    }
    host.at_rest();
}

/// The log has the range, and the size of the memory.
#[test]
fn the_log_names_the_range() {
    let host = start(&["(call $set_uri #0x20000 #0x20000)".to_owned()], "fresh");
    assert_discreet("set_uri", &host.get("/0"), 500);
    host.wait_log_with(&["pointer 131072 with length 131072", "196608 bytes"]);
}

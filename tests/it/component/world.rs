//! What a component finds in its environment, and what it leaves behind.

use std::time::{SystemTime, UNIX_EPOCH};

use super::{assert_as_new, is_03, is_flat, start, text};
use crate::client::message;

/// The most additional memory while a guest leaves something behind with each request.
const RSS_GROWTH_MAX: u64 = 32 << 20;

#[test]
fn a_component_has_no_environment_and_no_network() {
    let host = start(&[]);
    assert_eq!(text(&host, "/probe/env"), "");
    if !is_03() || !is_flat() {
        let told = text(&host, "/probe/outbound");
        let words = ["HttpRequestDenied", "HTTP-request-denied"];
        assert!(words.iter().any(|word| told.contains(word)), "{told}");
    }
    assert_as_new(&host);
}

#[test]
fn a_component_has_clocks_and_chance() {
    let host = start(&[]);
    let (one, other) = (text(&host, "/probe/random"), text(&host, "/probe/random"));
    assert_eq!((one.len(), other.len()), (32, 32), "{one} {other}");
    assert_ne!(one, other);
    let told: u64 = text(&host, "/probe/clock").parse().expect("a number");
    let now = SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970").as_secs();
    assert!(now.abs_diff(told) < 60, "{told} at {now}");
    assert_as_new(&host);
}

/// The guest's output is in the log line by line, with its name and the request.
#[test]
fn what_a_component_prints_is_in_the_log() {
    let host = start(&[]);
    assert_eq!(text(&host, "/probe/print"), "printed");
    let lines = [("out one", "stdout"), ("err one", "stderr"), ("out two", "stdout")];
    let requests = lines.map(|(words, from)| {
        let line = host.wait_log_with(&[words]);
        assert_eq!(line.message(), words, "{}", line.text);
        assert_eq!(line.json["handler"], "probe", "{}", line.text);
        assert_eq!(line.json["from"], from, "{}", line.text);
        line.json["request"].as_str().expect("a request id").to_owned()
    });
    assert!(requests.iter().all(|request| *request == requests[0]), "{requests:?}");
    assert_as_new(&host);
}

#[test]
fn a_component_has_as_much_memory_as_it_may_have() {
    let host = start(&["--memory-max", "16MiB"]);
    assert_eq!(text(&host, "/probe/memory?4"), "kept");
    host.get("/probe/memory?64").assert_problem(500);
    assert_eq!(text(&host, "/probe/memory?4"), "kept");
    assert_as_new(&host);
}

/// Sends ten requests in turn. Returns what each says how many requests its instance has had.
fn counts(isolation: &str) -> Vec<u64> {
    let host = start(&["--workers", "1", "--isolation", isolation]);
    let count = |_| {
        // If this instance is kept, the next request finds it.
        host.at_rest();
        host.get("/probe/count").text().parse().expect("a number")
    };
    let counts = (0..10).map(count).collect();
    assert_as_new(&host);
    counts
}

#[test]
fn an_instance_serves_one_request_or_many() {
    assert_eq!(counts("fresh"), [1; 10]);
    assert_eq!(counts("reuse"), [1, 2, 3, 4, 5, 6, 7, 8, 9, 10]);
}

/// A kept instance that never frees anything does not grow without end.
#[test]
fn what_is_left_behind_is_bounded() {
    let host = start(&["--workers", "1", "--isolation", "reuse"]);
    let mut connection = host.connect();
    let requests = message("GET", "/probe/leak", &[], b"").repeat(20);
    let mut leak = |times: u32| {
        for _ in 0..times / 20 {
            connection.send(&requests);
            for _ in 0..20 {
                assert_eq!(connection.read().text(), "leaked");
            }
        }
        host.at_rest();
        host.rss_bytes()
    };
    let before = leak(5_000);
    let after = leak(95_000);
    assert!(after <= before + RSS_GROWTH_MAX, "{before} bytes, then {after}");
    assert_as_new(&host);
}

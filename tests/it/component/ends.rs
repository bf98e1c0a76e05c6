//! How a component's call fails: the answer to the client, and the count.

use std::time::{Duration, Instant};

use super::{assert_as_new, is_03, setup, start, text};
use crate::causes::cause;
use crate::host::Host;
use crate::hostile::{ISOLATIONS, assert_discreet};
use crate::patience::patience;

/// Behaviours that the host answers for, with the status and the name under which each is counted.
const ENDS: [(&str, u16, &str); 5] = [
    ("/probe/no-answer", 500, "invalid_response"),
    ("/probe/dropped", 500, "invalid_response"),
    ("/probe/trap-before", 500, "trap"),
    ("/probe/error", 500, "handler_error"),
    ("/probe/loop-detected", 508, "loop"),
];

/// Asserts a problem document that is counted under this name, and that the host is at rest
/// afterwards.
#[track_caller]
fn assert_ends(host: &Host, path: &str, status: u16, reject: &str) {
    let before = host.status().rejects(reject);
    assert_discreet(path, &host.get(path), status);
    assert_eq!(assert_as_new(host).rejects(reject), before + 1, "{path}");
}

#[test]
fn a_call_without_a_response_is_answered_for() {
    for isolation in ISOLATIONS {
        let host = start(&["--isolation", isolation, "--deadline", "500ms"]);
        for (path, mut status, mut reject) in ENDS {
            if is_03() && reject == "invalid_response" {
                // A call of 0.3 ends with an answer, or it does not end.
                (status, reject) = (504, "deadline");
            }
            for _ in 0..2 {
                assert_ends(&host, path, status, reject);
            }
        }
    }
}

/// The cause is in the log with the id that the client got, both for the first request, which waits
/// for its guest to be loaded, and for a request that finds an instance.
#[test]
fn the_cause_of_an_end_is_in_the_log() {
    let cases: [(&str, &[&str], u16, &str); 4] = [
        ("spin", &["--cpu-max", "100ms", "--deadline", "60s"], 504, "cpu_time"),
        ("silent", &["--deadline", "5s"], 504, "no response before the deadline"),
        ("trap-before", &[], 500, "unreachable"),
        ("error", &[], 500, "answered with an error"),
    ];
    for isolation in ISOLATIONS {
        for (behaviour, flags, status, why) in cases {
            let host = setup(flags).args(["--isolation", isolation, "--no-cache"]).start();
            // The first request waits for the compiler, the second one finds the guest loaded.
            for _ in 0..2 {
                let answer = host.get(&format!("/probe/{behaviour}"));
                let line = cause(&host, &answer, status);
                assert!(line.has(&["probe", why]), "{behaviour}, {why:?}: {line:?}");
            }
            assert_as_new(&host);
        }
    }
}

/// If requests share an instance, each has its own line.
#[test]
fn the_cause_of_a_common_end_is_in_the_log() {
    let flags = ["--isolation", "reuse", "--workers", "1", "--cpu-max", "200ms"];
    let host = start(&flags);
    std::thread::scope(|scope| {
        let sleeping: Vec<_> =
            (0..3).map(|_| scope.spawn(|| host.get("/probe/sleep?60000"))).collect();
        host.status_when("inside", patience(), |status| status.in_flight == 3);
        cause(&host, &host.get("/probe/spin"), 504);
        for sleeping in sleeping {
            cause(&host, &sleeping.join().expect("an answer"), 504);
        }
    });
    assert_as_new(&host);
}

#[test]
fn a_silent_component_meets_the_deadline() {
    for isolation in ISOLATIONS {
        let host = start(&["--isolation", isolation, "--deadline", "300ms"]);
        for _ in 0..2 {
            assert_ends(&host, "/probe/silent", 504, "deadline");
        }
        assert_ends(&host, "/probe/sleep?60000", 504, "deadline");
    }
}

#[test]
fn a_component_that_computes_too_long_is_stopped() {
    let host = start(&["--cpu-max", "100ms", "--deadline", "60s"]);
    for _ in 0..2 {
        assert_ends(&host, "/probe/spin", 504, "cpu_time");
    }
}

/// A guest that waits does not slow down others.
#[test]
fn components_wait_side_by_side() {
    let host = start(&["--workers", "1"]);
    let begun = Instant::now();
    std::thread::scope(|scope| {
        for _ in 0..20 {
            scope.spawn(|| assert_eq!(text(&host, "/probe/sleep?500"), "slept"));
        }
    });
    let took = begun.elapsed();
    assert!(took >= Duration::from_millis(500), "{took:?}");
    assert!(took < Duration::from_secs(5), "one after the other: {took:?}");
    assert_as_new(&host);
}

/// A response is complete when the guest says so, not when the guest ends.
#[test]
fn a_component_may_go_on_behind_its_response() {
    let host = start(&[]);
    let begun = Instant::now();
    assert_eq!(text(&host, "/probe/after?2000"), "at once");
    let took = begun.elapsed();
    assert!(took < Duration::from_millis(1500), "the guest was waited for: {took:?}");
    host.assert_serves("/probe/exact");
    host.wait_log_with(&["done afterwards"]);
    assert_as_new(&host);
}

#[test]
fn a_component_does_not_go_on_for_ever() {
    let host = start(&[]);
    assert_eq!(text(&host, "/probe/after?600000"), "at once");
    host.status_when("stopped", patience(), |status| status.instances_out == 0);
    assert!(!host.lines().iter().any(|line| line.has(&["done afterwards"])));
    assert_as_new(&host);
}

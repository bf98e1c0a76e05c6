//! If the host answers a request itself, the log has the cause with the id that the client got, on
//! every way that a request can take to its guest.
//!
//! `component/ends.rs` has the same for components.

use crate::client::Response;
use crate::host::{HELLO, Host, Line, until};
use crate::hostile::{ISOLATIONS, host};
use crate::patience::patience;

/// A guest, flags, the status, and the text in the log.
type Case = (&'static str, &'static [&'static str], u16, &'static str);

const ENDS: [Case; 4] = [
    ("loop", &["--cpu-max", "50ms"], 504, "stopped: cpu_time"),
    ("loop", &["--deadline", "300ms"], 504, "stopped: deadline"),
    ("sleep", &["--deadline", "300ms"], 504, "stopped: deadline"),
    ("unreachable", &[], 500, "unreachable"),
];

/// The log line with the cause of an answer of the host.
#[track_caller]
pub fn cause(host: &Host, answer: &Response, status: u16) -> Line {
    answer.assert_problem(status);
    let id = answer.header("x-request-id").expect("the answer has an id").to_owned();
    host.wait_log(|line| line.json["request"] == id.as_str())
}

#[track_caller]
fn assert_cause(host: &Host, answer: &Response, (name, _, status, why): Case) {
    let line = cause(host, answer, status);
    assert!(line.has(&[name, why]), "{name}, {why:?}: {line:?}");
}

/// The first request to a guest waits for the load, and has an instance made.
#[test]
fn of_a_guest_that_is_not_loaded_yet() {
    for isolation in ISOLATIONS {
        for case in ENDS {
            let (name, flags, ..) = case;
            let host = host([name], isolation).args(flags).arg("--no-cache").start();
            let answer = host.get(&format!("/{name}"));
            assert_cause(&host, &answer, case);
            host.at_rest();
        }
    }
}

#[test]
fn of_a_guest_that_is_ready() {
    for isolation in ISOLATIONS {
        for case in ENDS {
            let (name, flags, ..) = case;
            let host = host([name], isolation).args(flags).start();
            host.settled();
            for _ in 0..3 {
                let good = host.request("POST", &format!("/{name}"), &[], b"");
                assert_eq!(good.status, 200);
                assert_cause(&host, &host.get(&format!("/{name}")), case);
            }
            host.at_rest();
        }
    }
}

/// Requests that wait in a queue first: for a permit, or in the run queue once the handler's calls
/// are known to be long.
#[test]
fn of_a_request_that_has_waited() {
    for isolation in ISOLATIONS {
        for most in ["1", "4"] {
            let flags = ["--workers", "1", "--handler-in-flight-max", most, "--cpu-max", "50ms"];
            let host = host(["loop"], isolation).args(flags);
            // Long enough, however busy the machine is.
            let host = host.args(["--queue-timeout", "1h", "--deadline", "1h"]).start();
            host.settled();
            for _ in 0..2 {
                let mut all: Vec<_> = (0..8).map(|_| host.connect()).collect();
                for connection in &mut all {
                    connection.send("GET /loop HTTP/1.1\r\nhost: guest.test\r\n\r\n");
                }
                for connection in &mut all {
                    assert_cause(&host, &connection.read(), ENDS[0]);
                }
            }
            host.at_rest();
        }
    }
}

/// A new version that is published while a call runs does not change the name in that call's log
/// lines.
#[test]
fn of_a_version_that_has_been_replaced() {
    let host = host(["loop"], "fresh").args(["--deadline", "3s", "--workers", "1"]).start();
    host.settled();
    let mut looping = host.connect();
    looping.send("GET /loop HTTP/1.1\r\nhost: guest.test\r\n\r\n");
    host.status_when("looping", patience(), |status| status.in_flight == 1);
    std::fs::write(host.handlers().join("loop.wat"), HELLO).expect("the folder is there");
    until("the new version", patience(), || {
        (host.get("/loop").text() == "Hello, World!").then_some(())
    });
    assert_cause(&host, &looping.read(), ENDS[1]);
}

#[test]
fn of_a_guest_that_cannot_be_loaded() {
    let host = host(["start_traps"], "fresh").start();
    let line = cause(&host, &host.get("/start_traps"), 503);
    assert!(line.has(&["could not be loaded"]), "{line:?}");
    host.assert_serves("/good");
}

#[test]
fn of_a_request_for_which_there_is_no_place() {
    let flags = ["--workers", "1", "--queue-max", "0", "--handler-in-flight-max", "1"];
    let host = host(["loop"], "fresh").args(flags).start();
    host.settled();
    let mut looping = host.connect();
    looping.send("GET /loop HTTP/1.1\r\nhost: guest.test\r\n\r\n");
    host.status_when("looping", patience(), |status| status.in_flight == 1);
    let line = cause(&host, &host.get("/loop"), 503);
    assert!(line.has(&["every permit or instance is taken"]), "{line:?}");
    drop(looping);
    host.at_rest();
}

#[test]
fn of_an_upstream_that_is_not_there() {
    let host = Host::empty().args(["--upstream", "http://127.0.0.1:9"]).start();
    let line = cause(&host, &host.get("/anything"), 502);
    assert!(line.has(&["upstream 127.0.0.1:9"]), "{line:?}");
}

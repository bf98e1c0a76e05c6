//! A client that makes a guest fail never takes the guest from other clients. A guest with start-up
//! code that keeps failing before any request has reached it is paused, and then tried again.

use std::time::{SystemTime, UNIX_EPOCH};

use super::{ISOLATIONS, assert_discreet, host, text};
use crate::host::{HELLO, Host, Status, until};
use crate::patience::patience;

/// The number of failed starts in a row before a pause.
const FAILURES_MAX: u64 = 10;

fn paused_lines(host: &Host) -> usize {
    host.lines().iter().filter(|line| line.has(&["time and again", "moody"])).count()
}

/// A guest with start-up code that runs in each instance, and traps from this time on, in seconds
/// since 1970.
fn moody(bad_from: u64) -> String {
    let is_bad = format!("(i64.ge_u (i64.load (i32.const 0)) (i64.const {bad_from}000000000))");
    let start = format!("(if {is_bad} (then (unreachable)))");
    let call = "(drop (call $clock_time_get (i32.const 0) (i64.const 1) (i32.const 0))))";
    assert!(text("start_clock").contains(call));
    text("start_clock").replace(call, &format!("{} {start})", &call[..call.len() - 1]))
}

fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).expect("it is later than 1970").as_secs()
}

/// One client makes a guest trap all the time. The other client gets every answer.
#[test]
fn a_client_whose_requests_trap_takes_the_guest_from_nobody() {
    for isolation in ISOLATIONS {
        let host = host(["unreachable"], isolation).args(["--workers", "1"]).start();
        host.settled();
        let mut attacker = host.connect();
        let mut good = host.connect();
        for _ in 0..20 {
            for _ in 0..12 {
                attacker.get("/unreachable").assert_problem(500);
            }
            assert_eq!(good.request("POST", "/unreachable", &[], b"").status, 200);
        }
        for _ in 0..20 {
            assert_eq!(good.request("POST", "/unreachable", &[], b"").status, 200);
        }
        let status = host.at_rest();
        assert_eq!((status.rejects("trap"), status.rejects("paused")), (240, 0));
    }
}

#[test]
fn a_guest_that_cannot_start_is_paused_and_tried_again() {
    let bad_from = now() + 3;
    let flags = ["--workers", "1"];
    let host = host([], "fresh").file("moody.wat", moody(bad_from)).args(flags).start();
    host.settled();
    host.assert_serves("/moody");
    until("the bad time", patience(), || (now() > bad_from).then_some(()));
    // Instances that were made before may still be ready.
    until("the pause", patience(), || {
        let answer = host.get("/moody");
        assert!([200, 500, 503].contains(&answer.status), "{answer:?}");
        (answer.status == 503).then_some(())
    });
    let traps = host.status().rejects("trap");
    assert!((1..=FAILURES_MAX).contains(&traps), "{traps}");
    let refused = host.get("/moody");
    assert_discreet("/moody", &refused, 503);
    assert_eq!(refused.header("retry-after"), Some("10"));
    host.assert_serves("/good");
    // One start is tried at the end of each pause.
    let before = host.status().rejects("trap");
    host.status_when("tried twice", patience(), |status: &Status| {
        let answer = host.get("/moody");
        assert!([500, 503].contains(&answer.status), "{answer:?}");
        status.rejects("trap") >= before + 2
    });
    assert_eq!(paused_lines(&host), 1);
    // A new version is not paused.
    std::fs::write(host.handlers().join("moody.wat"), HELLO).expect("the folder is there");
    until("the new version", patience(), || (host.get("/moody").status == 200).then_some(()));
    for _ in 0..3 {
        host.assert_serves("/moody");
    }
    host.at_rest();
}

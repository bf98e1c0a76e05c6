//! A guest that traps time after time is not called for a while, and then tried again.

use super::{PATIENCE, assert_discreet, host};
use crate::host::{HELLO, Host, until};

/// How many traps in a row it takes.
const TRAPS_MAX: u64 = 10;

fn trap(host: &Host, times: u64) {
    for _ in 0..times {
        host.get("/unreachable").assert_problem(500);
    }
}

fn paused_lines(host: &Host) -> usize {
    host.lines().iter().filter(|line| line.has(&["time and again", "unreachable"])).count()
}

#[test]
fn a_guest_that_keeps_trapping_is_paused_and_tried_again() {
    for isolation in ["fresh", "reuse"] {
        let host = host(["unreachable"], isolation).args(["--workers", "1"]).start();
        host.settled();
        trap(&host, TRAPS_MAX);
        let refused = host.get("/unreachable");
        assert_discreet("/unreachable", &refused, 503);
        assert_eq!(refused.header("retry-after"), Some("10"));
        host.assert_serves("/good");
        host.wait_log_with(&["time and again"]);
        // Traps go on, one at the end of each pause.
        let tried = |status: &crate::host::Status| status.rejects("trap") == TRAPS_MAX + 2;
        host.status_when("tried twice", PATIENCE, |status| {
            let answer = host.get("/unreachable");
            assert!([500, 503].contains(&answer.status), "{answer:?}");
            tried(status)
        });
        // A good answer is the end of it.
        until("a good answer", PATIENCE, || {
            (host.request("POST", "/unreachable", &[], b"").status == 200).then_some(())
        });
        trap(&host, TRAPS_MAX - 1);
        assert_eq!(host.request("POST", "/unreachable", &[], b"").status, 200);
        // The log has said it once.
        host.wait_log_with(&["answers again"]);
        assert_eq!(paused_lines(&host), 1);
        host.at_rest();
    }
}

#[test]
fn a_good_answer_in_between_is_enough() {
    let host = host(["unreachable"], "fresh").args(["--workers", "1"]).start();
    for _ in 0..3 {
        trap(&host, TRAPS_MAX - 1);
        assert_eq!(host.request("POST", "/unreachable", &[], b"").status, 200);
    }
    assert_eq!(host.at_rest().rejects("paused"), 0);
}

#[test]
fn a_new_version_is_not_paused() {
    let host = host(["unreachable"], "fresh").args(["--workers", "1"]).start();
    trap(&host, TRAPS_MAX);
    host.get("/unreachable").assert_problem(503);
    let file = host.handlers().join("unreachable.wat");
    std::fs::write(&file, HELLO).expect("the folder is there");
    until("the new version", PATIENCE, || (host.get("/unreachable").status == 200).then_some(()));
    for _ in 0..3 {
        host.assert_serves("/unreachable");
    }
}

//! What the host counts by the reason: where calls have run, and what has become of instances.

use std::fs;

use crate::abi::probe::Probe;
use crate::host::{HELLO, Host, until};
use crate::hostile::PATIENCE;

/// One worker, of which every count is exact.
fn start(isolation: &str) -> Host {
    let host = Host::with("good.wat", HELLO).args(["--workers", "1", "--isolation", isolation]);
    let host = host.start();
    host.settled();
    host
}

#[test]
fn short_calls_begin_in_the_fast_lane() {
    for isolation in ["fresh", "reuse"] {
        let host = start(isolation);
        let before = host.status();
        for _ in 0..50 {
            host.assert_serves("/good");
        }
        let after = host.at_rest();
        assert_eq!(after.calls("fast") - before.calls("fast"), 50, "{after:?}");
        assert_eq!((after.calls("slow"), after.calls("queued")), (0, 0), "{after:?}");
    }
}

#[test]
fn calls_that_nobody_serves_are_not_counted() {
    let host = start("fresh");
    for path in ["/nobody", "/good/%zz"] {
        let _ = host.get(path);
    }
    assert_eq!(host.at_rest().calls("fast"), 0);
}

/// A fresh instance is one that was reset, or else one that was made.
#[test]
fn an_instance_is_reset_or_made_behind_each_request() {
    let host = start("fresh");
    for _ in 0..50 {
        host.assert_serves("/good");
    }
    // The last one is renewed behind its answer.
    let status = host.status_when("renewed", PATIENCE, |status| {
        status.instances("reset") + status.instances("made") >= 51
    });
    assert_eq!(status.instances("reset") + status.instances("made"), 51, "{status:?}");
    assert!(status.instances("reset") > 0, "{status:?}");
    assert_eq!(status.instances("reused"), 0, "{status:?}");
}

#[test]
fn a_kept_instance_is_reused() {
    let host = start("reuse");
    for _ in 0..50 {
        host.assert_serves("/good");
    }
    let status = host.at_rest();
    assert_eq!((status.instances("made"), status.instances("reset")), (1, 0), "{status:?}");
    assert_eq!(status.instances("reused"), 50, "{status:?}");
}

/// One that traps is gone, and another is made.
#[test]
fn behind_a_trap_one_is_made() {
    let host = Host::with("trap.wat", Probe::new("unreachable").wat());
    let host = host.args(["--workers", "1", "--isolation", "reuse"]).start();
    host.settled();
    for _ in 0..5 {
        host.get("/trap").assert_problem(500);
    }
    let status = host.at_rest();
    assert_eq!((status.instances("made"), status.instances("reused")), (5, 0), "{status:?}");
    assert_eq!(status.calls("fast"), 5, "{status:?}");
}

/// What is ready of a version that is served no more is dropped.
#[test]
fn what_is_ready_of_an_old_version_is_retired() {
    let host = start("reuse");
    host.assert_serves("/good");
    host.at_rest();
    fs::write(host.handlers().join("good.wat"), HELLO.replace("Hello", "Hullo")).expect("a file");
    until("the new version", PATIENCE, || {
        host.get("/good").text().starts_with("Hullo").then_some(())
    });
    host.status_when("retired", PATIENCE, |status| status.instances("retired") == 1);
}

//! The host's counts by reason: where calls have run, and how instances have ended.

use std::collections::BTreeMap;
use std::fs;

use crate::abi::probe::Probe;
use crate::client::message;
use crate::component_03;
use crate::patience::patience;

use crate::host::{HELLO, Host, Status, until};

/// One worker, so that every count is exact.
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

/// A fresh instance was either reset or made.
#[test]
fn an_instance_is_reset_or_made_behind_each_request() {
    let host = start("fresh");
    for _ in 0..50 {
        host.assert_serves("/good");
    }
    // The last one is renewed after its answer.
    let status = host.status_when("renewed", patience(), |status| {
        status.instances("reset") + status.instances("made") >= 51
    });
    assert_eq!(status.instances("reset") + status.instances("made"), 51, "{status:?}");
    assert!(status.instances("reset") > 0, "{status:?}");
    assert_eq!(status.instances("reused"), 0, "{status:?}");
}

#[test]
fn a_ready_instance_is_reused() {
    let host = start("reuse");
    for _ in 0..50 {
        host.assert_serves("/good");
    }
    let status = host.at_rest();
    assert_eq!((status.instances("made"), status.instances("reset")), (1, 0), "{status:?}");
    assert_eq!(status.instances("reused"), 50, "{status:?}");
}

/// An instance that traps is dropped, and another one is made.
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

/// The ready instances of a replaced version are dropped.
#[test]
fn what_is_ready_of_an_old_version_is_retired() {
    let host = start("reuse");
    host.assert_serves("/good");
    host.at_rest();
    fs::write(host.handlers().join("good.wat"), HELLO.replace("Hello", "Hullo")).expect("a file");
    // No request is in the old version when the new one comes.
    host.wait_log_with(&["good", "a new version is served"]);
    assert!(host.get("/good").text().starts_with("Hullo"));
    host.status_when("retired", patience(), |status| status.instances("retired") == 1);
}

/// For each handler there are counts of its requests, of those that the host answered, and of their
/// times. Requests without a handler are only in the sum.
#[test]
fn requests_are_counted_by_their_handler() {
    let trap = Probe::new("unreachable").wat();
    let host = Host::with("good.wat", HELLO).file("deep/[id].wat", HELLO).file("trap.wat", trap);
    let host = host.args(["--workers", "2"]).start();
    host.settled();
    let before = host.status();
    assert!(before.handler_requests.is_empty(), "{before:?}");
    for _ in 0..20 {
        host.assert_serves("/good");
        host.assert_serves("/deep/7");
    }
    for _ in 0..3 {
        host.get("/trap").assert_problem(500);
        host.get("/nobody").assert_problem(404);
    }
    let status = host.at_rest();
    let of = |counts: &BTreeMap<String, u64>| {
        ["good", "deep/[id]", "trap"].map(|name| counts.get(name).copied().unwrap_or(0))
    };
    assert_eq!(status.handler_requests.len(), 3, "{status:?}");
    assert_eq!(of(&status.handler_requests), [20, 20, 3]);
    assert_eq!(of(&status.handler_rejects), [0, 0, 3]);
    assert_eq!(status.answered - before.answered, 46, "{status:?}");
    let duration = &status.handler_duration["good"];
    assert!(duration.starts_with("{count:20 p50:"), "{duration}");
}

/// A handler's counts are dropped with it. A handler that comes in its place begins at zero.
#[test]
fn a_handler_that_comes_later_is_counted_anew() {
    let host = Host::with("good.wat", HELLO).file("old.wat", HELLO).start();
    host.settled();
    for _ in 0..7 {
        host.assert_serves("/old");
    }
    assert_eq!(host.at_rest().handler_requests["old"], 7);
    fs::rename(host.handlers().join("old.wat"), host.handlers().join("new.wat")).expect("a file");
    until("the new one", patience(), || (host.get("/new").status == 200).then_some(()));
    until("the end of the old one", patience(), || (host.get("/old").status == 404).then_some(()));
    let gone = |status: &Status| !status.handler_requests.contains_key("old");
    let status = host.status_when("gone", patience(), gone);
    assert_eq!(status.handler_requests["new"], 1, "{status:?}");
}

/// An instance for several requests ends when it has had all its requests, when it had none for a
/// while, or when a request in it was given up. It never ends without a reason.
#[test]
fn the_end_of_an_instance_for_several_requests_is_counted() {
    // In the slow lane of a busy machine it would take no further requests.
    let flags = ["--workers", "1", "--isolation", "reuse", "--slow-priority", "off"];
    let host = component_03::start(&flags);
    let ask = |times: u32| (0..times).for_each(|_| drop(host.get("/probe/count")));
    ask(1);
    host.status_when("idle", patience(), |status| status.instances("idle") == 1);
    ask(1);
    let mut given_up = host.connect();
    given_up.send(message("GET", "/probe/sleep?60000", &[], b""));
    host.status_when("inside", patience(), |status| status.instances_out == 1);
    drop(given_up);
    host.status_when("given up", patience(), |status| status.instances("given_up") == 1);
    let status = host.at_rest();
    assert_eq!(status.instances("spent"), 0, "{status:?}");
}

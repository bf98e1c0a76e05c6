//! Owners of handlers: shared resources are divided between the top folders, and the share of a
//! folder between its handlers. A hundred files are not a hundred shares.

use std::io::{Read as _, Write as _};
use std::sync::atomic::{AtomicBool, Ordering};

use crate::abi::probe::Probe;
use crate::client::{Connection, message};
use crate::host::{HELLO, Host, Setup, until};
use crate::middleware::upstream::{Upstream, plain};
use crate::patience::patience;
use crate::wat;

/// One worker. Its calls have no time limit and the same priority as other programs, so that they
/// get a share of a busy machine.
const UNBOUNDED: [&str; 8] =
    ["--workers", "1", "--deadline", "1h", "--cpu-max", "1h", "--slow-priority", "0"];

/// A folder with this many handlers that never end, and one handler of another owner.
fn setup(many: usize) -> Setup {
    let setup = Host::with("single/hello.wat", HELLO);
    (0..many).fold(setup, |setup, at| setup.file(&format!("many/{at}.wat"), wat::spins()))
}

/// A guest that counts to this number, and answers "done".
fn counts(rounds: u64) -> String {
    wat::guest(
        r#"(data (i32.const 0) "done")"#,
        &format!(
            "(local.set $size (i64.const {rounds}))
             (loop $more
               (local.set $size (i64.sub (local.get $size) (i64.const 1)))
               (br_if $more (i64.ne (local.get $size) (i64.const 0))))
             (call $write_body (i32.const 1) (i32.const 0) (i32.const 4))"
        ),
    )
}

fn send(host: &Host, path: &str) -> Connection {
    let mut connection = host.connect();
    connection.send(message("GET", path, &[], b""));
    connection
}

/// An owner with a hundred busy handlers, each with calls that never end, and an owner with a
/// single handler. Each request to the single handler is answered.
#[test]
fn a_hundred_busy_handlers_are_one_share() {
    let flags = ["--workers", "2", "--deadline", "1h", "--cpu-max", "1h", "--queue-timeout", "1h"];
    let host = setup(100).args(flags).start_settled();
    let busy: Vec<_> = (0..400).map(|at| send(&host, &format!("/many/{}", at % 100))).collect();
    host.status_when("busy", patience(), |status| status.in_flight == 400);
    for _ in 0..200 {
        assert_eq!(host.get("/single/hello").text(), "Hello, World!");
    }
    let status = host.status();
    assert_eq!((status.rejects("no_instance"), status.rejects("no_memory")), (0, 0));
    drop(busy);
    host.at_rest();
}

/// Of an owner's handlers that had no request yet, only few hold their worker for a quantum. The
/// host expects the others to be as long, until one turns out to be short.
#[test]
fn an_owners_new_handlers_are_expected_to_be_like_its_others() {
    let setup = (0..40).fold(Host::with("single/hello.wat", HELLO), |setup, at| {
        setup.file(&format!("many/{at}.wat"), counts(20_000_000))
    });
    let host = setup.file("many/quick.wat", HELLO).args(UNBOUNDED).start_settled();
    let before = host.status();
    let mut busy: Vec<_> = (0..40).map(|at| send(&host, &format!("/many/{at}"))).collect();
    for asked in &mut busy {
        assert_eq!(asked.read().text(), "done");
    }
    let begun = |how: &str| host.at_rest().calls(how) - before.calls(how);
    let (fast, moved, slow) = (begun("fast"), begun("moved"), begun("slow"));
    // Three, and those that had their turn before the third was known to be long.
    assert!((3..=6).contains(&fast), "{fast} of 40 began on their worker");
    assert_eq!((moved, slow), (fast, 40 - fast), "as long as each is");
    // A new handler of another owner is not affected. A short handler of the same owner is known
    // after one call.
    for (path, slow) in [("/single/hello", 0), ("/many/quick", 1)] {
        let before = host.status();
        for _ in 0..10 {
            assert_eq!(host.get(path).text(), "Hello, World!");
        }
        let after = host.at_rest();
        assert_eq!(after.calls("slow") - before.calls("slow"), slow, "{path}: {after:?}");
        assert_eq!(after.calls("fast") - before.calls("fast"), 10 - slow, "{path}: {after:?}");
    }
}

/// In the slow lane, the owner that has used the least CPU time is next. A long call of an owner
/// with a single handler ends before many calls of another owner have each had a turn.
#[test]
fn a_long_call_has_its_owners_share_of_the_slow_lane() {
    // It takes some 25 turns.
    let long = counts(50_000_000);
    let setup = setup(10).file("single/long.wat", &long).file("many/long.wat", &long);
    let host = setup.args(UNBOUNDED).start_settled();
    let busy: Vec<_> = (0..10).map(|at| send(&host, &format!("/many/{at}"))).collect();
    host.status_when("busy", patience(), |status| status.in_flight == 10);
    // It has the same owner as ten others, and shares turns with them.
    let sibling = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let mut asked = send(&host, "/many/long");
            assert_eq!(asked.read().text(), "done");
            sibling.store(true, Ordering::SeqCst);
        });
        host.status_when("the sibling, too", patience(), |status| status.in_flight == 11);
        for _ in 0..3 {
            assert_eq!(host.get("/single/long").text(), "done");
            assert!(!sibling.load(Ordering::SeqCst), "it has had no more than the other owner");
        }
        drop(busy);
    });
    host.at_rest();
}

/// A handler that takes all places that it may have leaves some to the other handlers of its owner.
#[test]
fn a_busy_handler_leaves_places_to_its_siblings() {
    let flags = ["--workers", "1", "--in-flight-max", "40", "--deadline", "1h", "--cpu-max", "1h"];
    let host = setup(1)
        .file("many/quick.wat", HELLO)
        .args(flags)
        .args(["--queue-timeout", "1h"])
        .start_settled();
    let busy: Vec<_> = (0..40).map(|_| send(&host, "/many/0")).collect();
    host.status_when("busy", patience(), |status| status.in_flight == 40);
    for path in ["/many/quick", "/single/hello"] {
        assert_eq!(host.get(path).text(), "Hello, World!", "{path}");
    }
    drop(busy);
    host.at_rest();
}

/// Answers of the upstream that are being sent keep their places. A handler that has all it may
/// have there leaves some to the others of its owner, and an owner leaves some to another owner.
#[test]
fn who_waits_for_the_upstream_leaves_places_to_others() {
    let upstream = Upstream::scripted(|seen, stream| {
        if seen.target.ends_with("/held") {
            stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\nhello")?;
            // Until the host closes it.
            return stream.read(&mut [0]).map(|_| false);
        }
        stream.write_all(&plain("200 OK", "", "here")).map(|()| true)
    });
    let passing = Probe::new("").next().wat();
    let names = (0..100).map(|at| format!("many/{at}.wat")).chain(["single/one.wat".into()]);
    for handlers in [1, 99] {
        let setup = names.clone().fold(Host::empty(), |setup, name| setup.file(&name, &passing));
        let flags = ["--workers", "1", "--queue-timeout", "1h", "--deadline", "1h"];
        let host = setup.args(flags).args(["--upstream", &upstream.url("")]).start_settled();
        let before = upstream.seen().len();
        let held: Vec<_> = (0..300)
            .map(|at| {
                let mut held = Connection::open_from([127, 0, 0, 2].into(), host.addr());
                let path = format!("/many/{}/held", at % handlers);
                held.send(message("GET", &path, &[], b""));
                held
            })
            .collect();
        // Some wait for a place, and none is refused.
        host.status_when("all", patience(), |status| status.requests >= 300);
        let busy = || (upstream.seen().len() - before >= 150).then_some(());
        until("busy", patience(), busy);
        for path in ["/many/99/x", "/single/one/x"] {
            assert_eq!(host.get(path).text(), "here", "{path}");
        }
        let most = upstream.seen().len() - before;
        assert!(most < 200, "{most} of 256 places");
        drop(held);
        host.at_rest();
    }
}

/// A call that alternates between computing for less than a quantum and waiting gets no more of the
/// slow lane than one that computes all the time. Beside five others, a call with three times the
/// work ends after them.
#[test]
fn who_computes_in_bursts_gains_nothing() {
    // 180 bursts of a million rounds, with a sleep of a microsecond after each.
    let bursts = r#"(module
      (import "http_handler" "write_body" (func $write_body (param i32 i32 i32)))
      (import "wasi_snapshot_preview1" "poll_oneoff"
        (func $poll_oneoff (param i32 i32 i32 i32) (result i32)))
      (memory (export "memory") 1)
      (data (i32.const 200) "done")
      (func (export "handle_request") (result i64) (local $left i64) (local $bursts i32)
        (i32.store (i32.const 16) (i32.const 1))
        (i64.store (i32.const 24) (i64.const 1000))
        (local.set $bursts (i32.const 180))
        (loop $again
          (local.set $left (i64.const 1000000))
          (loop $more
            (local.set $left (i64.sub (local.get $left) (i64.const 1)))
            (br_if $more (i64.ne (local.get $left) (i64.const 0))))
          (drop (call $poll_oneoff
            (i32.const 0) (i32.const 64) (i32.const 1) (i32.const 128)))
          (br_if $again
            (local.tee $bursts (i32.sub (local.get $bursts) (i32.const 1)))))
        (call $write_body (i32.const 1) (i32.const 200) (i32.const 4))
        (i64.const 0)))"#;
    let steady = counts(60_000_000);
    let setup = Host::with("steady.wat", steady).file("bursts.wat", bursts);
    let setup = (0..5).fold(setup, |setup, at| setup.file(&format!("loop{at}.wat"), wat::spins()));
    let host = setup.args(UNBOUNDED).start_settled();
    let busy: Vec<_> = (0..5).map(|at| send(&host, &format!("/loop{at}"))).collect();
    host.status_when("busy", patience(), |status| status.in_flight == 5);
    let has_ended = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            assert_eq!(send(&host, "/bursts").read().text(), "done");
            has_ended.store(true, Ordering::SeqCst);
        });
        host.status_when("the bursts, too", patience(), |status| status.in_flight == 6);
        assert_eq!(host.get("/steady").text(), "done");
        assert!(!has_ended.load(Ordering::SeqCst), "it had three times as much to do");
        drop(busy);
    });
    host.at_rest();
}

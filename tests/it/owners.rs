//! Owners of handlers: what is shared is divided between the folders at the top, and what one has
//! between its handlers. A hundred files are not a hundred shares.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use crate::client::{Connection, message};
use crate::host::{HELLO, Host, Setup};
use crate::wat;

/// How long a state is waited for.
const PATIENCE: Duration = Duration::from_secs(60);

/// A folder of so many handlers that never end, and one handler of another owner.
fn setup(many: usize) -> Setup {
    let setup = Host::with("single/hello.wat", HELLO);
    (0..many).fold(setup, |setup, at| setup.file(&format!("many/{at}.wat"), wat::spins()))
}

fn send(host: &Host, path: &str) -> Connection {
    let mut connection = host.connect();
    connection.send(message("GET", path, &[], b""));
    connection
}

/// An owner with a hundred busy handlers, each with calls that never end, beside one with a single
/// handler, which is asked once after the other: each time it is answered.
#[test]
fn a_hundred_busy_handlers_are_one_share() {
    let flags = ["--workers", "2", "--deadline", "1h", "--cpu-max", "1h", "--queue-timeout", "1h"];
    let host = setup(100).args(flags).start_settled();
    let busy: Vec<_> = (0..400).map(|at| send(&host, &format!("/many/{}", at % 100))).collect();
    host.status_when("busy", PATIENCE, |status| status.in_flight == 400);
    for _ in 0..200 {
        assert_eq!(host.get("/single/hello").text(), "Hello, World!");
    }
    let status = host.status();
    assert_eq!((status.rejects("no_instance"), status.rejects("no_memory")), (0, 0));
    drop(busy);
    host.at_rest();
}

/// In the slow lane the owner that has used the least CPU time is next: a long call of one with a
/// single handler ends before many of another have each had a turn.
#[test]
fn a_long_call_has_its_owners_share_of_the_slow_lane() {
    // It counts for some 50 turns.
    let long = wat::guest(
        r#"(data (i32.const 0) "done")"#,
        "(local.set $size (i64.const 100000000))
         (loop $more
           (local.set $size (i64.sub (local.get $size) (i64.const 1)))
           (br_if $more (i64.ne (local.get $size) (i64.const 0))))
         (call $write_body (i32.const 1) (i32.const 0) (i32.const 4))",
    );
    let flags = ["--workers", "1", "--deadline", "1h", "--cpu-max", "1h", "--queue-timeout", "1h"];
    let setup = setup(40).file("single/long.wat", &long).file("many/long.wat", &long);
    let host = setup.args(flags).start_settled();
    let busy: Vec<_> = (0..40).map(|at| send(&host, &format!("/many/{at}"))).collect();
    host.status_when("busy", PATIENCE, |status| status.in_flight == 40);
    // Of the same owner, which has one turn in 41.
    let sibling = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let mut asked = send(&host, "/many/long");
            assert_eq!(asked.read().text(), "done");
            sibling.store(true, Ordering::SeqCst);
        });
        host.status_when("the sibling, too", PATIENCE, |status| status.in_flight == 41);
        for _ in 0..3 {
            assert_eq!(host.get("/single/long").text(), "done");
            assert!(!sibling.load(Ordering::SeqCst), "it has had no more than the other owner");
        }
        drop(busy);
    });
    host.at_rest();
}

/// A handler that takes all that its owner may have leaves places to the others of that owner.
#[test]
fn a_busy_handler_leaves_places_to_its_siblings() {
    let flags = ["--workers", "1", "--in-flight-max", "40", "--deadline", "1h", "--cpu-max", "1h"];
    let host = setup(1)
        .file("many/quick.wat", HELLO)
        .args(flags)
        .args(["--queue-timeout", "1h"])
        .start_settled();
    let busy: Vec<_> = (0..40).map(|_| send(&host, "/many/0")).collect();
    host.status_when("busy", PATIENCE, |status| status.in_flight == 40);
    for path in ["/many/quick", "/single/hello"] {
        assert_eq!(host.get(path).text(), "Hello, World!", "{path}");
    }
    drop(busy);
    host.at_rest();
}

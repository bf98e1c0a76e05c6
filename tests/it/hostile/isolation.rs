//! The state that a request leaves in its instance: under `fresh` the next request never sees it,
//! and under `reuse` it does unless the guest broke.

use super::ISOLATIONS;
use crate::abi::probe::Probe;
use crate::host::{HELLO, Host};
use crate::patience::patience;

/// Counts requests in memory, in a global and in a table, and answers with the counts: `1 1 0` is
/// the first request of an instance. A DELETE traps after that.
const COUNTING: &str = "
    (i32.store #512 (i32.add (i32.load #512) #1))
    (global.set $count (i32.add (global.get $count) #1))
    (call $int (i32.load #512))
    (call $int (global.get $count))
    (call $int (i32.eqz (ref.is_null (table.get $slots #0))))
    (table.set $slots #0 (ref.func $int))
    (if (i32.eq (call $get_method #0 #0) #6) (then (unreachable)))";

const COUNTERS: &str = "
    (global $count (mut i32) (i32.const 0))
    (table $slots 1 funcref)
    (elem declare func $int)";

/// The same guest with an image so large that it is mapped instead of copied.
const LARGE: &str = "(data (i32.const 0x10000) \"{zeros}\")";

fn counting() -> Probe {
    Probe::new(COUNTING).fields(COUNTERS)
}

fn large() -> Probe {
    let image = LARGE.replace("{zeros}", &"z".repeat(0x1_8000));
    Probe::new(COUNTING).fields(&format!("{COUNTERS} {image}"))
}

/// Start-up code that cannot be snapshotted, so that it runs in each instance.
fn started_each() -> Probe {
    counting().start("(drop (call $random_get #65536 #8))")
}

fn start(isolation: &str) -> Host {
    let guests = [
        ("counting.wat", counting()),
        ("large.wat", large()),
        ("started-each.wat", started_each()),
    ];
    let setup = Host::with("good.wat", HELLO).args(["--workers", "1", "--isolation", isolation]);
    let with =
        |setup: crate::host::Setup, (file, probe): (&str, Probe)| setup.file(file, probe.wat());
    guests.into_iter().fold(setup, with).start()
}

const PATHS: [&str; 3] = ["/counting", "/large", "/started-each"];

#[test]
fn under_fresh_no_request_sees_another() {
    let host = start("fresh");
    for path in PATHS {
        let mut connection = host.connect();
        for _ in 0..10 {
            assert_eq!(connection.get(path).text(), "1\n1\n0\n", "{path}");
        }
        assert_eq!(host.get(path).text(), "1\n1\n0\n", "{path}");
        // An instance that broke leaves nothing, either.
        host.request("DELETE", path, &[], b"").assert_problem(500);
        assert_eq!(host.get(path).text(), "1\n1\n0\n", "{path}");
        host.at_rest();
    }
}

#[test]
fn under_reuse_a_request_sees_the_last_one() {
    let host = start("reuse");
    for path in PATHS {
        assert_eq!(host.get(path).text(), "1\n1\n0\n", "{path}");
        for count in 2..10 {
            let expected = format!("{count}\n{count}\n1\n");
            assert_eq!(host.get(path).text(), expected, "{path}");
        }
        host.at_rest();
    }
}

#[test]
fn under_reuse_an_instance_that_broke_is_not_used_again() {
    let host = start("reuse");
    for path in PATHS {
        assert_eq!(host.get(path).text(), "1\n1\n0\n", "{path}");
        assert_eq!(host.get(path).text(), "2\n2\n1\n", "{path}");
        host.request("DELETE", path, &[], b"").assert_problem(500);
        assert_eq!(host.get(path).text(), "1\n1\n0\n", "{path}");
        host.at_rest();
    }
}

/// Requests that are in flight at the same time have an instance each.
#[test]
fn under_reuse_requests_at_once_do_not_share() {
    let waiting = Probe::new(&format!("(drop (call $read_body #0 #65536 #8)) {COUNTING}"));
    let host = Host::with("waiting.wat", waiting.fields(COUNTERS).wat())
        .args(["--workers", "1", "--isolation", "reuse"])
        .start();
    let mut connections: Vec<_> = (0..4).map(|_| host.connect()).collect();
    for connection in &mut connections {
        connection.send("POST /waiting HTTP/1.1\r\nhost: guest.test\r\ncontent-length: 1\r\n\r\n");
    }
    host.status_when("all four inside", patience(), |status| status.instances_out == 4);
    for connection in &mut connections {
        connection.send("x");
        assert_eq!(connection.read().text(), "1\n1\n0\n");
    }
    let next = host.request("POST", "/waiting", &[], b"x");
    assert_eq!(next.text(), "2\n2\n1\n");
    host.at_rest();
}

/// Memory that a request grew and filled is empty when the next request grows into it.
#[test]
fn grown_memory_comes_empty() {
    // Grows by 16 pages, counts the bytes in them that are not zero, and fills them.
    let growing = Probe::new(
        "(local $at i32) (local $found i32)
         (call $int (memory.grow #16))
         (local.set $at #0x30000)
         (loop $more
           (if (i64.ne (i64.load (local.get $at)) (i64.const 0))
             (then (local.set $found (i32.add (local.get $found) #1))))
           (local.set $at (i32.add (local.get $at) #8))
           (br_if $more (i32.lt_u (local.get $at) #0x130000)))
         (call $int (local.get $found))
         (memory.fill #0x30000 #0x73 #0x100000)",
    );
    let host = Host::with("growing.wat", growing.wat()).args(["--workers", "1"]).start();
    for _ in 0..20 {
        assert_eq!(host.get("/growing").text(), "3\n0\n");
    }
    host.at_rest();
}

/// The next guest in a slot does not see what the last one left there.
#[test]
fn a_guest_finds_nothing_of_another_guest() {
    let changed = Probe::new(
        "(drop (memory.grow #16))
         (memory.fill #65536 #0x73 #0x120000)",
    );
    let looking = |name: usize| {
        Probe::new(&format!(
            "(local $at i32) (local $found i32)
             (drop (memory.grow #16))
             (local.set $at #65536)
             (loop $more
               (if (i64.ne (i64.load (local.get $at)) (i64.const 0))
                 (then (local.set $found (i32.add (local.get $found) #1))))
               (local.set $at (i32.add (local.get $at) #8))
               (br_if $more (i32.lt_u (local.get $at) #0x130000)))
             (call $int (local.get $found))
             (call $say '{name}')"
        ))
    };
    for isolation in ISOLATIONS {
        let mut setup = Host::with("leaving.wat", changed.wat()).args([
            "--workers",
            "1",
            "--isolation",
            isolation,
        ]);
        // More guests than a worker keeps ready instances, so that slots change hands.
        for name in 0..80 {
            setup = setup.file(&format!("looking-{name}.wat"), looking(name).wat());
        }
        let host = setup.start();
        for name in 0..80 {
            host.assert_serves("/leaving");
            let answer = host.get(&format!("/looking-{name}"));
            assert_eq!(answer.text(), format!("0\n{name}"), "{isolation}");
        }
        host.at_rest();
    }
}

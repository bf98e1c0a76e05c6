//! The two lanes: a call that outlasts its quantum goes on in threads of a low priority, which
//! share their time fairly between guests.
//!
//! Nothing here depends on wall-clock time. Shares are shares of CPU time.

use std::fs;
use std::time::Duration;

use crate::client::Connection;
use crate::host::{HELLO, Host, Setup, until};
use crate::hostile::text;
use crate::patience::patience;

/// Limits that leave long calls enough time on a busy machine.
const NOT_LAST: [&str; 2] = ["--slow-priority", "0"];

/// A guest that computes for some ten milliseconds, does `then`, and answers with the first
/// `$length` bytes of its memory.
fn burning(imports: &str, then: &str) -> String {
    burning_for(20_000_000, imports, then)
}

fn burning_for(rounds: u32, imports: &str, then: &str) -> String {
    format!(
        r#"(module
  (import "http_handler" "write_body" (func $write_body (param i32 i32 i32)))
  {imports}
  (memory (export "memory") 2)
  (data (i32.const 0) "burnt")
  (global $length (mut i32) (i32.const 5))
  (func $burn (local $left i32)
    (local.set $left (i32.const {rounds}))
    (loop $again
      (i32.store (i32.const 4096) (i32.add (i32.load (i32.const 4096)) (local.get $left)))
      (br_if $again
        (local.tee $left (i32.sub (local.get $left) (i32.const 1))))))
  (func (export "handle_request") (result i64)
    (call $burn)
    {then}
    (call $write_body (i32.const 1) (i32.const 0) (global.get $length))
    (i64.const 0)))"#
    )
}

fn host(name: &str, guest: &str) -> Setup {
    let flags = ["--workers", "1"];
    Host::with("good.wat", HELLO).file(&format!("{name}.wat"), guest).args(flags)
}

/// The threads of a host: the name, the nice level, and the CPU time in nanoseconds of each.
fn threads(host: &Host) -> Vec<(String, i32, u64)> {
    let folder = format!("/proc/{}/task", host.pid().as_raw_nonzero());
    let tasks = fs::read_dir(folder).expect("a running host").filter_map(Result::ok);
    let read = |path: std::path::PathBuf| fs::read_to_string(path).unwrap_or_default();
    let thread = |task: fs::DirEntry| {
        let stat = read(task.path().join("stat"));
        // The fields after the name, which may have blanks: the 19th of all, proc_pid_stat(5).
        let (_, fields) = stat.rsplit_once(") ")?;
        let nice = fields.split(' ').nth(16)?.parse().ok()?;
        let ran = read(task.path().join("schedstat"));
        let name = read(task.path().join("comm")).trim().to_owned();
        Some((name, nice, ran.split(' ').next()?.parse().ok()?))
    };
    tasks.filter_map(thread).collect()
}

/// The CPU time of the host's threads whose names begin like this.
fn cpu(host: &Host, name: &str) -> Duration {
    let ran = threads(host).into_iter().filter(|it| it.0.starts_with(name)).map(|it| it.2);
    Duration::from_nanos(ran.sum())
}

fn nice(host: &Host, name: &str) -> Vec<i32> {
    threads(host).into_iter().filter(|it| it.0.starts_with(name)).map(|it| it.1).collect()
}

fn send(host: &Host, path: &str) -> Connection {
    let mut connection = host.connect();
    connection.send(format!("GET {path} HTTP/1.1\r\nhost: guest.test\r\n\r\n"));
    connection
}

#[test]
fn what_outlasts_its_quantum_goes_on_at_a_low_priority() {
    for isolation in ["fresh", "reuse"] {
        // So long that the first call does not end before a ticker notices it which had to wait
        // for a core itself.
        let burn = burning_for(200_000_000, "", "");
        let host = host("burn", &burn).args(["--isolation", isolation]).start();
        host.settled();
        let mine = nice(&host, "worker-0")[0];
        let nicer = || (nice(&host, "slow-") == [(mine + 13).min(19)]).then_some(());
        until("a slow thread that is nicer", patience(), nicer);
        // Short calls begin in the fast lane. Other programs would have to take the core away six
        // times in a row for the handler to count as long.
        let before = host.status();
        for _ in 0..10 {
            assert_eq!(host.get("/good").text(), "Hello, World!");
        }
        let status = host.at_rest();
        assert_eq!(status.calls("fast") - before.calls("fast"), 10, "{status:?}");
        let before = (cpu(&host, "slow-"), cpu(&host, "worker-0"), status.calls("moved"));
        for _ in 0..10 {
            assert_eq!(host.get("/burn").text(), "burnt");
        }
        let slow = cpu(&host, "slow-") - before.0;
        let fast = cpu(&host, "worker-0") - before.1;
        assert!(slow > fast, "{slow:?} in the slow lane, {fast:?} in the fast one");
        // The first call has moved. The others have begun in the slow lane, because their guest was
        // known to be long.
        let status = host.at_rest();
        let moved = status.calls("moved") - before.2;
        assert_eq!((moved, status.calls("slow")), (1, 9), "{status:?}");
    }
}

/// A guest that computes long in one instruction is noticed: its next calls begin in the slow lane,
/// and give their memory back there.
#[test]
fn what_cannot_yield_goes_to_the_slow_lane_next_time() {
    let fill = r#"
    (drop (memory.grow (i32.const 1024)))
    (memory.fill (i32.const 65536) (i32.const 1) (i32.const 0x4000000))"#;
    let host = host("fill", &burning_for(1, "", fill)).start();
    host.settled();
    for _ in 0..8 {
        assert_eq!(host.get("/fill").text(), "burnt");
    }
    let before = (cpu(&host, "slow-"), cpu(&host, "worker-0"));
    for _ in 0..8 {
        assert_eq!(host.get("/fill").text(), "burnt");
    }
    let slow = cpu(&host, "slow-") - before.0;
    let fast = cpu(&host, "worker-0") - before.1;
    assert!(slow > fast * 4, "{slow:?} in the slow lane, {fast:?} in the fast one");
    host.at_rest();
}

/// What was learnt of one version does not apply to the next one.
#[test]
fn a_new_version_begins_in_the_fast_lane() {
    let host = host("burn", &burning("", "")).start();
    for _ in 0..8 {
        assert_eq!(host.get("/burn").text(), "burnt");
    }
    fs::write(host.handlers().join("burn.wat"), HELLO).expect("the folder is there");
    until("the new version", patience(), || {
        (host.get("/burn").text() == "Hello, World!").then_some(())
    });
    host.at_rest();
    let before = cpu(&host, "slow-");
    for _ in 0..10 {
        assert_eq!(host.get("/burn").text(), "Hello, World!");
    }
    assert_eq!(cpu(&host, "slow-"), before);
}

#[test]
fn the_priority_can_be_chosen() {
    let host = host("burn", &burning("", "")).args(["--slow-priority", "3"]).start();
    assert_eq!(host.get("/burn").text(), "burnt");
    let mine = nice(&host, "worker-0")[0];
    assert_eq!(nice(&host, "slow-"), [(mine + 3).min(19)]);
}

#[test]
fn a_twin_that_computes_long_has_a_low_priority_too() {
    let host = Host::demo().args(["--workers", "1"]).start_settled();
    assert_eq!(host.get("/native/fib/30").text(), "832040\n");
    let mine = nice(&host, "worker-0")[0];
    let others = nice(&host, "tokio-");
    assert!(!others.is_empty(), "{:?}", threads(&host));
    assert!(others.iter().all(|nice| *nice == (mine + 13).min(19)), "{:?}", threads(&host));
}

/// Many calls of one guest do not hold up a call of another one: both guests get the same share.
#[test]
fn guests_share_the_slow_lane_and_not_calls() {
    let host = host("burn", &burning_for(300_000_000, "", ""))
        .file("loop.wat", text("loop"))
        .args(["--deadline", "1h", "--cpu-max", "1h"])
        .args(NOT_LAST)
        .start();
    host.settled();
    let all = || cpu(&host, "slow-") + cpu(&host, "worker-");
    // More than once, since a guest's first calls begin in the fast lane.
    let spent = |times: u32| {
        let before = all();
        for _ in 0..times {
            assert_eq!(host.get("/burn").text(), "burnt");
        }
        (all() - before) / times
    };
    let alone = spent(4);
    let looping: Vec<_> = (0..20).map(|_| send(&host, "/loop")).collect();
    host.status_when("looping", patience(), |status| status.in_flight == 20);
    let beside = spent(2);
    // The other guest gets a half. If the share were per call, it would get 20 of 21 parts.
    assert!(beside < alone * 6, "{beside:?} of CPU time, and {alone:?} alone");
    assert_eq!(host.status().in_flight, 20);
    drop(looping);
    host.at_rest();
}

/// Of many long calls a few run, and the others wait in the run queue. None is refused as long as
/// the queue moves, and waiting calls hold no instances.
#[test]
fn long_calls_wait_in_a_line() {
    let host = host("burn", &burning_for(100_000_000, "", "")).args(NOT_LAST).start();
    host.settled();
    // Enough calls for them to be known as long.
    for _ in 0..8 {
        assert_eq!(host.get("/burn").text(), "burnt");
    }
    let before = host.at_rest();
    let mut burning: Vec<_> = (0..8).map(|_| send(&host, "/burn")).collect();
    let status = host.status_when("in line", patience(), |status| status.calls("queued") > 0);
    assert!(status.instances_out <= 4, "all calls run at once: {status:?}");
    host.assert_serves("/good");
    for connection in &mut burning {
        assert_eq!(connection.read().text(), "burnt");
    }
    let status = host.at_rest();
    assert_eq!(status.calls("slow") - before.calls("slow"), 8, "{status:?}");
    assert_eq!(status.rejects("no_instance"), 0, "{status:?}");
}

/// A burst that fits into the queue is answered, however long that takes.
#[test]
fn a_line_takes_a_burst() {
    let host = host("burn", &burning("", "")).args(NOT_LAST).start();
    host.settled();
    for _ in 0..4 {
        assert_eq!(host.get("/burn").text(), "burnt");
    }
    let mut burning: Vec<_> = (0..50).map(|_| send(&host, "/burn")).collect();
    for connection in &mut burning {
        assert_eq!(connection.read().text(), "burnt");
    }
    assert_eq!(host.at_rest().rejects("no_instance"), 0);
}

/// Calls beyond the length of the queue are refused, and told to come back.
#[test]
fn a_line_that_is_full_refuses() {
    let host = host("burn", &burning("", "")).args(["--queue-max", "4"]).start();
    host.settled();
    // Enough calls for them to be known as long.
    for _ in 0..8 {
        assert_eq!(host.get("/burn").text(), "burnt");
    }
    let mut burning: Vec<_> = (0..40).map(|_| send(&host, "/burn")).collect();
    let answers: Vec<_> = burning.iter_mut().map(Connection::read).collect();
    let (good, refused): (Vec<_>, Vec<_>) = answers.iter().partition(|it| it.status == 200);
    assert!(!good.is_empty() && !refused.is_empty(), "{} and {}", good.len(), refused.len());
    for answer in refused {
        answer.assert_problem(503);
        assert_eq!(answer.header("retry-after"), Some("1"));
    }
    assert_eq!(host.get("/burn").text(), "burnt");
    let status = host.at_rest();
    assert_eq!(status.rejects("no_instance") + good.len() as u64, 40, "{status:?}");
}

#[test]
fn without_lanes_all_calls_stay_with_their_worker() {
    // Its start-up code takes as long, in each instance.
    let starting = burning("", "").replacen("(func (export", "(start $burn) (func (export", 1);
    let host = host("burn", &burning("", ""))
        .file("starting.wat", starting)
        .args(["--slow-priority", "off"])
        .start();
    for _ in 0..8 {
        assert_eq!(host.get("/burn").text(), "burnt");
        assert_eq!(host.get("/starting").text(), "burnt");
    }
    let names: Vec<String> = threads(&host).into_iter().map(|it| it.0).collect();
    assert!(!names.iter().any(|name| name.starts_with("slow-")), "{names:?}");
    host.at_rest();
}

/// Calls whose clients have disconnected give their instances back, however many there are.
#[test]
fn calls_whose_clients_have_gone_hold_no_instances() {
    let flags = ["--deadline", "1h", "--cpu-max", "1h"];
    let host = host("loop", &text("loop")).args(flags).start();
    host.settled();
    // More calls than one worker has instances for.
    for _ in 0..32 {
        let looping: Vec<_> = (0..50).map(|_| send(&host, "/loop")).collect();
        host.status_when("looping", patience(), |status| status.in_flight == 50);
        drop(looping);
        host.at_rest();
    }
    assert_eq!(host.status().rejects("no_instance"), 0);
    // They no longer compute, either.
    until("end of the slow lane", patience(), || {
        let before = cpu(&host, "slow-");
        for _ in 0..10 {
            host.assert_serves("/good");
        }
        (cpu(&host, "slow-") == before).then_some(())
    });
}

const READ_BODY: &str =
    r#"(import "http_handler" "read_body" (func $read_body (param i32 i32 i32) (result i64)))"#;

/// Reads the body to its end, and answers with it.
const READ_ALL: &str = r#"
    (global.set $length (i32.const 0))
    (loop $more (call $read))"#;

#[test]
fn a_long_call_can_wait_for_its_client() {
    let read = r#"
  (func $read (local $got i64)
    (loop $more
      (local.set $got
        (call $read_body (i32.const 0) (global.get $length) (i32.const 1024)))
      (global.set $length
        (i32.add (global.get $length) (i32.wrap_i64 (local.get $got))))
      (br_if $more (i64.eqz (i64.shr_u (local.get $got) (i64.const 32))))))"#;
    let guest = burning(READ_BODY, READ_ALL);
    let guest = guest.replace("  (func (export", &format!("{read}\n  (func (export"));
    let host = host("reader", &guest).start();
    host.settled();
    for _ in 0..8 {
        let before = cpu(&host, "slow-");
        let mut connection = host.connect();
        connection.send("POST /reader HTTP/1.1\r\nhost: a\r\ncontent-length: 10\r\n\r\nfirst");
        // It waits for the rest of the body in the slow lane, and does not use CPU time for it.
        until("a long call", patience(), || (cpu(&host, "slow-") > before).then_some(()));
        connection.send("other");
        assert_eq!(connection.read().text(), "firstother");
    }
    host.at_rest();
}

#[test]
fn a_long_call_can_sleep() {
    let imports = r#"
  (import "wasi_snapshot_preview1" "poll_oneoff"
    (func $poll_oneoff (param i32 i32 i32 i32) (result i32)))"#;
    // One subscription: the monotonic clock, in 5 ms.
    let sleep = r#"
    (i32.store (i32.const 8208) (i32.const 1))
    (i64.store (i32.const 8216) (i64.const 5000000))
    (if (call $poll_oneoff (i32.const 8192) (i32.const 8320) (i32.const 1) (i32.const 8448))
      (then unreachable))"#;
    let host = host("sleeper", &burning(imports, sleep)).start();
    for _ in 0..8 {
        assert_eq!(host.get("/sleeper").text(), "burnt");
    }
    host.at_rest();
}

/// Time counts, not the number of calls: if one call of four holds its worker for long, the guest's
/// next calls begin in the slow lane.
#[test]
fn a_few_calls_that_take_long_are_enough() {
    let fill = r#"
    (if (i32.eq (call $get_method (i32.const 64) (i32.const 16)) (i32.const 4)) (then
      (drop (memory.grow (i32.const 1024)))
      (memory.fill (i32.const 65536) (i32.const 1) (i32.const 0x4000000))))"#;
    let imports =
        r#"(import "http_handler" "get_method" (func $get_method (param i32 i32) (result i32)))"#;
    let host = host("fill", &burning_for(1, imports, fill)).start();
    host.settled();
    let four = || {
        for method in ["GET", "GET", "GET", "POST"] {
            assert_eq!(host.request(method, "/fill", &[], b"").text(), "burnt");
        }
    };
    (0..4).for_each(|_| four());
    let before = (cpu(&host, "slow-"), cpu(&host, "worker-0"));
    (0..8).for_each(|_| four());
    let slow = cpu(&host, "slow-") - before.0;
    let fast = cpu(&host, "worker-0") - before.1;
    assert!(slow > fast * 2, "{slow:?} in the slow lane, {fast:?} in the fast one");
    host.at_rest();
}

/// If the instances of a guest take long to make, they are made in the slow lane as well, even
/// though its calls are short.
#[test]
fn instances_that_take_long_to_make_are_made_there() {
    // The offsets are computed, so that the data cannot be mapped.
    let segments: String = (0..1000)
        .map(|at| 8192 * at + 4095)
        .map(|at| format!("(data (i32.add (i32.const {at}) (i32.const 0)) \"xx\")"))
        .collect();
    let memory = r#"(memory (export "memory") 2)"#;
    let guest = burning_for(1, "", "").replace(memory, &memory.replace('2', "128"));
    let guest = guest.replacen("(global", &format!("{segments} (global"), 1);
    assert_made_in_the_slow_lane(&guest);
}

/// A guest with start-up code of this many rounds. It runs in each instance, since it reads the
/// clock.
fn starting(rounds: u32) -> String {
    let clock = r#"(import "wasi_snapshot_preview1" "clock_time_get"
        (func $clock (param i32 i64 i32) (result i32)))"#;
    let start = format!(
        "(func $start (local $left i32)
        (drop (call $clock (i32.const 1) (i64.const 1) (i32.const 64)))
        (local.set $left (i32.const {rounds}))
        (loop $again
          (br_if $again (local.tee $left (i32.sub (local.get $left) (i32.const 1))))))
      (start $start)
      (global"
    );
    burning_for(1, clock, "").replacen("(global", &start, 1)
}

/// The same if start-up code makes it long.
#[test]
fn instances_that_take_long_to_start_are_made_there() {
    assert_made_in_the_slow_lane(&starting(8_000_000));
}

#[track_caller]
fn assert_made_in_the_slow_lane(guest: &str) {
    let host = host("slow", guest).start();
    host.settled();
    let ask = |times| (0..times).for_each(|_| assert_eq!(host.get("/slow").text(), "burnt"));
    ask(8);
    host.at_rest();
    let before = (cpu(&host, "slow-"), cpu(&host, "worker-0"));
    ask(20);
    host.at_rest();
    let slow = cpu(&host, "slow-") - before.0;
    let fast = cpu(&host, "worker-0") - before.1;
    assert!(slow > fast * 2, "{slow:?} in the slow lane, {fast:?} in the fast one");
}

/// Calls that end just below the quantum stay in the fast lane and take turns: between 40 waiting
/// calls of one guest and one call of another, the other one is next.
#[test]
fn calls_below_a_quantum_take_turns() {
    let rounds = 300_000;
    let host = host("near", &burning_for(rounds, "", ""))
        .file("other.wat", burning_for(rounds, "", ""))
        .start();
    host.settled();
    let mut near: Vec<_> = (0..40).map(|_| host.connect()).collect();
    let send_all = |connections: &mut Vec<Connection>| {
        for connection in connections.iter_mut() {
            connection.send("GET /near HTTP/1.1\r\nhost: guest.test\r\n\r\n".repeat(50));
        }
    };
    send_all(&mut near);
    // 2,000 calls of the one guest are in flight, which take a second or more.
    let before = host.status_when("near", patience(), |status| status.requests > 100);
    for _ in 0..5 {
        assert_eq!(host.get("/other").text(), "burnt");
        host.assert_serves("/good");
    }
    let after = host.status();
    let passed = after.requests - before.requests;
    assert!(passed < 1_500, "{passed} calls went before ten of others");
    for connection in &mut near {
        for _ in 0..50 {
            assert_eq!(connection.read().text(), "burnt");
        }
    }
    host.at_rest();
}

/// Start-up code that ends just below the quantum takes turns, too: between two instances of one
/// guest others run, and the host does not make more instances ahead than it can use.
#[test]
fn start_up_code_below_a_quantum_takes_turns() {
    const CALLERS: u64 = 40;
    const AHEAD: u64 = 16;
    let host = host("start", &starting(3_000_000)).start();
    host.settled();
    let mut near: Vec<_> = (0..CALLERS).map(|_| host.connect()).collect();
    for connection in &mut near {
        connection.send("GET /start HTTP/1.1\r\nhost: guest.test\r\n\r\n".repeat(50));
    }
    // 2,000 calls, each with an instance of its own.
    let before = host.status_when("start", patience(), |status| status.requests > 100);
    for _ in 0..CALLERS {
        host.assert_serves("/good");
    }
    let after = host.status();
    let passed = after.requests - before.requests;
    assert!(passed < 1_000, "{passed} calls went before forty of others");
    assert!(after.instances_out <= CALLERS + AHEAD, "{after:?}");
    for connection in &mut near {
        for _ in 0..50 {
            assert_eq!(connection.read().text(), "burnt");
        }
    }
    let status = host.at_rest();
    assert!(status.rejects.is_empty(), "{status:?}");
}

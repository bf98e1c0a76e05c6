//! The memory of all guests together, `--memory-total`: a guest that asks for more than there is
//! waits or is refused with a 503, small guests go on, and all memory is given back.

mod ceiling;
mod fields;
mod loads;
mod stacks;

use crate::client::{Connection, message};
use crate::host::{HELLO, Host, Status};
use crate::hostile::{self, ISOLATIONS};
use crate::patience::soon;

const MIB: u64 = 1 << 20;

/// A guest with `first` pages at the start. It grows by `more`, keeps `answered` pages of zeros as
/// its answer, and then waits for the request's body.
fn hoard(first: u32, more: u32, answered: u32) -> String {
    format!(
        r#"
(module
  (import "http_handler" "read_body" (func $read_body (param i32 i32 i32) (result i64)))
  (import "http_handler" "write_body" (func $write_body (param i32 i32 i32)))
  (memory (export "memory") {first})
  (func (export "handle_request") (result i64)
    (local $left i32)
    (if (i32.eq (memory.grow (i32.const {more})) (i32.const -1)) (then unreachable))
    (local.set $left (i32.const {answered}))
    (block $done
      (loop $next
        (br_if $done (i32.eqz (local.get $left)))
        (call $write_body (i32.const 1) (i32.const 0) (i32.const 65536))
        (local.set $left (i32.sub (local.get $left) (i32.const 1)))
        (br $next)))
    (loop $read
      (br_if $read (i64.eqz (i64.shr_u
        (call $read_body (i32.const 0) (i32.const 0) (i32.const 4096)) (i64.const 32)))))
    (i64.const 0)))"#
    )
}

fn host(guests: &[(&str, String)], total: &str) -> crate::host::Setup {
    let setup = Host::with("good.wat", HELLO).args(["--memory-total", total]);
    let with = |setup: crate::host::Setup, (name, text): &(&str, String)| {
        setup.file(&format!("{name}.wat"), text)
    };
    guests.iter().fold(setup, with)
}

/// Waits until no more memory than this is in use.
#[track_caller]
fn given_back(host: &Host, bytes: u64) -> Status {
    host.at_rest();
    host.status_when("its memory back", soon(), |status| status.memory_used <= bytes)
}

/// The number of refusals for want of memory. Asserts that there are no others.
#[track_caller]
fn shortages(status: &Status) -> u64 {
    let all: u64 = status.rejects.values().sum();
    assert_eq!(status.rejects("no_memory"), all, "{status:?}");
    all
}

#[test]
fn instances_are_refused_beyond_what_there_is() {
    const ASKED: usize = 24;
    for (first, more) in [(40, 0), (1, 39)] {
        let host = host(&[("hoard", hoard(first, more, 0))], "24MiB").start();
        host.settled();
        let head = "POST /hoard HTTP/1.1\r\nhost: guest.test\r\ncontent-length: 4\r\n\r\n";
        let mut waiting: Vec<Connection> = (0..ASKED).map(|_| host.connect()).collect();
        for connection in &mut waiting {
            connection.send(head);
        }
        let full = host.status_when("full", soon(), |status| {
            let refused = status.rejects("no_memory");
            status.in_flight == status.instances_out && status.in_flight + refused == ASKED as u64
        });
        assert!(full.memory_used <= full.memory_total, "{full:?}");
        // Eight of 2.5 MiB leave the last eighth to other guests.
        assert!((6..=8).contains(&full.in_flight), "{full:?}");
        host.assert_serves("/good");
        let refused = full.rejects("no_memory");
        let mut answers = [0; 2];
        for connection in &mut waiting {
            // The connection of a refused request may have been closed after its answer.
            let sent = connection.try_send("body");
            match connection.next("POST") {
                Ok(Some(answer)) if answer.status == 200 => answers[0] += 1,
                Ok(Some(answer)) => {
                    hostile::assert_discreet("/hoard", &answer, 503);
                    assert_eq!(answer.header("retry-after"), Some("1"), "{answer:?}");
                    answers[1] += 1;
                }
                Ok(None) | Err(_) if sent.is_err() => answers[1] += 1,
                other => panic!("{other:?}"),
            }
        }
        assert_eq!(answers[1], refused, "{answers:?}");
        // The memory is given back after the answers, by threads that may have to wait for a core.
        given_back(&host, 12 * MIB);
        let answer = host.request("POST", "/hoard", &[], b"body");
        assert_eq!(answer.status, 200, "{first} {more}: {}", answer.text());
        host.wait_log_with(&["memory is short", "--memory-total"]);
        shortages(&given_back(&host, 12 * MIB));
    }
}

/// Many clients at once, with guests that take all they get, page by page.
#[test]
fn greedy_guests_break_nobody() {
    for isolation in ISOLATIONS {
        let host = hostile::host(["memory_grow"], isolation)
            .args(["--memory-total", "40MiB", "--memory-max", "8MiB"])
            .start();
        host.settled();
        std::thread::scope(|scope| {
            for _ in 0..16 {
                scope.spawn(|| {
                    let mut connection = host.connect();
                    for _ in 0..20 {
                        let answer = connection.get("/memory_grow");
                        assert!(matches!(answer.status, 200 | 503), "{answer:?}");
                    }
                });
            }
            let mut connection = host.connect();
            for _ in 0..100 {
                assert_eq!(connection.get("/good").status, 200, "{isolation}");
            }
        });
        // After the last answers, large instances are still being dropped.
        given_back(&host, 30 * MIB);
        assert_eq!(host.get("/memory_grow").status, 200, "{isolation}");
        host.assert_serves("/good");
        shortages(&given_back(&host, 30 * MIB));
    }
}

/// Answers are held for clients that do not read them, and count until they are sent.
#[test]
fn answers_that_nobody_reads_count() {
    const BODY: usize = 16 << 20;
    let host = host(&[("large", hoard(1, 0, (BODY >> 16) as u32))], "64MiB")
        .args(["--response-max", "16MiB"])
        .start();
    host.settled();
    let ask = || {
        let mut connection = host.connect();
        connection.send(message("GET", "/large", &[], b""));
        connection
    };
    let mut unread: Vec<Connection> = Vec::new();
    for asked in 1..=12 {
        unread.push(ask());
        host.status_when("answered", soon(), |status| {
            status.requests == asked && status.in_flight == 0
        });
    }
    let status = host.at_rest();
    let refused = shortages(&status);
    assert_eq!(12 - refused, 3, "{status:?}");
    assert!(status.memory_used >= 3 * BODY as u64, "{status:?}");
    assert_eq!(host.get("/large").status, 503);
    host.assert_serves("/good");
    let answers = unread.iter_mut().map(Connection::read);
    let whole = answers.filter(|answer| match answer.status {
        200 => {
            assert_eq!(answer.body.len(), BODY);
            true
        }
        status => {
            assert_eq!(status, 503, "{answer:?}");
            false
        }
    });
    assert_eq!(whole.count() as u64, 12 - refused);
    given_back(&host, 4 * MIB);
    assert_eq!(host.get("/large").body.len(), BODY);
    // A client that disconnects without reading gives the memory back, too.
    drop(ask());
    given_back(&host, 4 * MIB);
}

/// Ready instances of one worker do not keep another worker from serving.
#[test]
fn ready_instances_are_evicted() {
    let mut setup = host(&[("large", hoard(40, 0, 0))], "8MiB");
    for number in 0..40 {
        setup = setup.file(&format!("small-{number}.wat"), hoard(4, 0, 0));
    }
    let host = setup.start();
    host.settled();
    for _ in 0..3 {
        let mut connections: Vec<Connection> = (0..8).map(|_| host.connect()).collect();
        for number in 0..40 {
            let answer = connections[number % 8].get(&format!("/small-{number}"));
            assert_eq!(answer.status, 200, "{answer:?}");
        }
        for connection in &mut connections {
            let answer = connection.get("/large");
            assert_eq!(answer.status, 200, "{answer:?}");
        }
    }
    assert_eq!(shortages(&host.at_rest()), 0);
}

/// The same request with more and more memory. Until there is enough, it is refused.
#[test]
fn too_little_is_a_refusal_of_the_request() {
    for guest in [hoard(10, 16, 12), hoard(20, 0, 10), hoard(1, 4, 20)] {
        let mut statuses = Vec::new();
        for total in (1..).map(|step| format!("{}KiB", 1024 + 256 * (step - 1))) {
            let host = host(&[("hoard", guest.clone())], &total).start();
            host.settled();
            let status = host.get("/hoard").status;
            host.assert_serves("/good");
            assert!(matches!(status, 200 | 503), "{status} with {total}");
            let rest = host.at_rest();
            assert_eq!(shortages(&rest), u64::from(status == 503), "{rest:?}");
            statuses.push(status);
            if status == 200 {
                break;
            }
            assert!(statuses.len() < 30, "{statuses:?}");
        }
        assert!(statuses.len() > 1, "it had enough at once");
    }
}

/// A guest that takes all it can get leaves some memory to others, which may still grow.
#[test]
fn what_one_guest_leaves_is_for_others_to_grow() {
    let guests =
        [("hoard", hoard(1, 39, 0)), ("grows", hoard(1, 1, 0)), ("large", hoard(40, 0, 0))];
    let host = host(&guests, "64MiB").start();
    host.settled();
    let head = "POST /hoard HTTP/1.1\r\nhost: guest.test\r\ncontent-length: 4\r\n\r\n";
    let mut waiting: Vec<Connection> = (0..48).map(|_| host.connect()).collect();
    for connection in &mut waiting {
        connection.send(head);
    }
    host.status_when("full", soon(), |status| {
        let refused = status.rejects("no_memory");
        refused > 0 && status.in_flight == status.instances_out && status.in_flight + refused == 48
    });
    for _ in 0..20 {
        for path in ["/grows", "/large", "/good"] {
            let answer = host.get(path);
            assert_eq!(answer.status, 200, "{path}: {}", answer.text());
        }
    }
    drop(waiting);
    given_back(&host, 16 * MIB);
}

/// If a table is refused to grow, nothing is charged.
#[test]
fn growth_that_fails_costs_nothing() {
    let guest = r#"
(module
  (memory (export "memory") 1)
  (table $small 1 10 funcref)
  (table $large 1 funcref)
  (func (export "handle_request") (result i64)
    (local $left i32)
    (local.set $left (i32.const 2000))
    (loop $next
      (if (i32.ne (table.grow $small (ref.null func) (i32.const 19990)) (i32.const -1))
        (then unreachable))
      (if (i32.ne (table.grow $large (ref.null func) (i32.const 20000)) (i32.const -1))
        (then unreachable))
      (if (i32.ne (memory.grow (i32.const 60000)) (i32.const -1)) (then unreachable))
      (br_if $next (local.tee $left (i32.sub (local.get $left) (i32.const 1)))))
    (i64.const 0)))"#;
    for isolation in ISOLATIONS {
        let host = host(&[("grows", guest.to_owned())], "16MiB").args(["--isolation", isolation]);
        let host = host.start();
        host.settled();
        for _ in 0..5 {
            let answer = host.get("/grows");
            assert_eq!(answer.status, 200, "{}", answer.text());
        }
        assert_eq!(shortages(&given_back(&host, 8 * MIB)), 0);
    }
}

/// Start-up code that grows the memory in each instance is refused like any other code.
#[test]
fn start_up_code_is_refused_as_well() {
    let guest = r#"
(module
  (import "wasi_snapshot_preview1" "random_get" (func $random (param i32 i32) (result i32)))
  (memory (export "memory") 1)
  (func (export "_initialize")
    (drop (call $random (i32.const 0) (i32.const 8)))
    (if (i32.eq (memory.grow (i32.const 100)) (i32.const -1)) (then unreachable)))
  (func (export "handle_request") (result i64) (i64.const 0)))"#;
    for (total, status) in [("4MiB", 503), ("16MiB", 200)] {
        let host = host(&[("starts", guest.to_owned())], total).start();
        host.settled();
        for _ in 0..3 {
            assert_eq!(host.get("/starts").status, status, "{total}");
            host.assert_serves("/good");
        }
        host.at_rest();
    }
}

/// A request's body that is kept to be passed on counts.
#[test]
fn buffered_request_bodies_count() {
    let guest = r#"
(module
  (import "http_handler" "enable_features" (func $enable (param i32) (result i32)))
  (import "http_handler" "read_body" (func $read_body (param i32 i32 i32) (result i64)))
  (memory (export "memory") 1)
  (func (export "handle_request") (result i64)
    (drop (call $enable (i32.const 1)))
    (loop $read
      (br_if $read (i64.eqz (i64.shr_u
        (call $read_body (i32.const 0) (i32.const 0) (i32.const 65536)) (i64.const 32)))))
    (i64.const 0)))"#;
    let host = host(&[("keeps", guest.to_owned())], "4MiB").start();
    host.settled();
    let post = |mib: usize| {
        let mut connection = host.connect();
        // The answer may come before all of the body is sent, and the connection may end after it.
        let _ = connection.try_send(message("POST", "/keeps", &[], &vec![0; mib << 20]));
        connection.next("POST").ok().flatten().map(|answer| answer.status)
    };
    assert_eq!(post(1), Some(200));
    assert!(matches!(post(6), Some(503) | None));
    host.assert_serves("/good");
    assert_eq!(post(1), Some(200));
    assert_eq!(shortages(&given_back(&host, 2 * MIB)), 1);
}

/// Without the flag there is a limit, too: less than the machine has.
#[test]
fn the_ceiling_is_that_of_the_machine() {
    let host = Host::with("good.wat", HELLO).start();
    host.assert_serves("/good");
    host.wait_log_with(&["memory for all handlers together"]);
    let total = host.at_rest().memory_total;
    let machine = std::fs::read_to_string("/proc/meminfo").expect("Linux says what there is");
    let machine = machine.split_whitespace().nth(1).and_then(|kib| kib.parse::<u64>().ok());
    let machine = machine.expect("MemTotal comes first") * 1024;
    assert!((MIB..=machine / 4 * 3).contains(&total), "{total} of {machine}");
}

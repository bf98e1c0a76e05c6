//! Memory that guests of the http-wasm ABI make the host use beside bodies: header fields and
//! targets. The memory that they take is counted, not their length.

use std::io::{Read as _, Write as _};
use std::net::TcpListener;

use super::{MIB, given_back, hoard, host, shortages};
use crate::client::{Connection, message};
use crate::host::{Host, Status};
use crate::patience::soon;

/// Adds as many fields as allowed to the request, the response and its trailers, and waits for the
/// request's body.
const FIELDS: &str = include_str!("../../../benches/ceiling/fields.wat");
const COUNT: u64 = 5_300;
/// The least memory of a field.
const FIELD_BYTES: u64 = 72;
/// The charge of an instance with one page of memory.
const INSTANCE_BYTES: u64 = 704 << 10;
const HEAD: &str = "host: guest.test\r\ncontent-length: 4\r\n\r\n";

/// Requests a path from this many clients, which hold their bodies back. After each request, waits
/// until `is_settled` holds for the number of requests so far. All at once could leave each other
/// too little memory, so that none would have enough.
#[track_caller]
fn ask(
    host: &Host,
    path: &str,
    clients: u64,
    is_settled: impl Fn(&Status, u64) -> bool,
) -> (Vec<Connection>, Status) {
    let mut last = None;
    let waiting = (1..=clients).map(|asked| {
        let mut connection = host.connect();
        connection.send(format!("POST {path} HTTP/1.1\r\n{HEAD}"));
        last = Some(host.status_when("settled", soon(), |status| is_settled(status, asked)));
        connection
    });
    let waiting: Vec<Connection> = waiting.collect();
    (waiting, last.expect("there are some"))
}

/// A guest with functions to set fields. `body` is the code of its handler.
fn guest(body: &str) -> String {
    format!(
        r#"
(module
  (import "http_handler" "enable_features" (func $enable (param i32) (result i32)))
  (import "http_handler" "add_header_value" (func $add (param i32 i32 i32 i32 i32)))
  (import "http_handler" "set_header_value" (func $set (param i32 i32 i32 i32 i32)))
  (import "http_handler" "remove_header" (func $remove (param i32 i32 i32)))
  (import "http_handler" "write_body" (func $write_body (param i32 i32 i32)))
  (memory (export "memory") 1)
  (data (i32.const 0) "a")
  (func $fill (param $kind i32) (param $left i32)
    (loop $next
      (call $add (local.get $kind) (i32.const 0) (i32.const 1) (i32.const 0) (i32.const 1))
      (br_if $next (local.tee $left (i32.sub (local.get $left) (i32.const 1))))))
  (func (export "handle_request") (result i64) (local $left i32)
    {body}))"#
    )
}

/// Answers with many fields, as many trailers, and this many pages of zeros.
fn answers(pages: u32) -> String {
    guest(&format!(
        "(drop (call $enable (i32.const 4)))
        (call $fill (i32.const 1) (i32.const {COUNT}))
        (call $fill (i32.const 3) (i32.const {COUNT}))
        (local.set $left (i32.const {pages}))
        (loop $next
          (call $write_body (i32.const 1) (i32.const 0) (i32.const 65536))
          (br_if $next (local.tee $left (i32.sub (local.get $left) (i32.const 1)))))
        (i64.const 0)"
    ))
}

#[test]
fn fields_that_guests_set_count() {
    const CLIENTS: u64 = 12;
    let host = host(&[("fields", FIELDS.to_owned())], "32MiB").start();
    host.settled();
    let (mut waiting, full) = ask(&host, "/fields", CLIENTS, |status, asked| {
        let each = INSTANCE_BYTES + 3 * COUNT * FIELD_BYTES;
        let is_charged = status.memory_used >= status.in_flight * each;
        let is_answered = status.in_flight + status.rejects("no_memory") == asked;
        // No request waits for memory here.
        is_answered && status.in_flight == status.instances_out && is_charged
    });
    assert!(full.in_flight > 0 && full.in_flight < CLIENTS, "{full:?}");
    assert!(full.memory_used <= full.memory_total, "{full:?}");
    host.assert_serves("/good");
    let mut served = 0;
    for connection in &mut waiting {
        // The connection of a refused request may have been closed after its answer.
        let sent = connection.try_send("body");
        match connection.next("POST") {
            Ok(Some(answer)) if answer.status == 200 => {
                assert_eq!(answer.all("a").len() as u64, COUNT);
                served += 1;
            }
            Ok(Some(answer)) => answer.assert_problem(503),
            Ok(None) | Err(_) if sent.is_err() => {}
            other => panic!("{other:?}"),
        }
    }
    // Its connections are still open.
    let rest = given_back(&host, 4 * MIB);
    assert_eq!(served + shortages(&rest), CLIENTS, "{rest:?}");
    assert!(served > 0, "{rest:?}");
}

/// The heads and trailers in hyper count as long as they are not sent.
#[test]
fn fields_of_answers_that_nobody_reads_count() {
    const PAGES: u32 = 128;
    let host = host(&[("answers", answers(PAGES))], "64MiB").start();
    host.settled();
    let ask = |asked: u64| {
        let mut connection = host.connect();
        connection.send(message("GET", "/answers", &["te: trailers"], b""));
        let status = host.status_when("answered", soon(), |status| {
            status.requests == asked && status.in_flight == 0
        });
        (connection, status)
    };
    let unread: Vec<_> = (1..=3).map(ask).collect();
    let used = unread.last().map_or(0, |(_, status)| status.memory_used);
    let each = u64::from(PAGES) * 65_536 + 2 * COUNT * FIELD_BYTES;
    assert!(used >= 3 * each, "{used}");
    for (mut connection, _) in unread {
        let answer = connection.read();
        assert_eq!((answer.status, answer.all("a").len() as u64), (200, COUNT));
        // The next request frees it.
        assert_eq!(connection.get("/good").status, 200);
    }
    assert_eq!(shortages(&given_back(&host, 4 * MIB)), 0);
}

/// Memory of a guest's answers counts as the guest's own. So others can still use the last part of
/// the memory, however long the guest's clients hold its answers.
#[test]
fn fields_of_answers_leave_others_their_part() {
    const CLIENTS: usize = 60;
    let guests = [("answers", answers(1)), ("grows", hoard(1, 48, 0))];
    let host = host(&guests, "64MiB").args(["--workers", "1", "--head-timeout", "5m"]).start();
    host.settled();
    let held: Vec<Connection> = (0..CLIENTS)
        .map(|_| {
            let mut connection = host.connect();
            connection.send(message("GET", "/answers", &["te: trailers"], b""));
            let status = connection.read().status;
            assert!(status == 200 || status == 503, "{status}");
            // With the first byte of a head, the host keeps what it has for the connection.
            connection.send("G");
            connection
        })
        .collect();
    let used = host.status().memory_used;
    assert!(used > 48 * MIB, "{used}: there is plenty");
    let answer = host.request("POST", "/grows", &[], b"body");
    assert_eq!(answer.status, 200, "{used}: {}", answer.text());
    drop(held);
    given_back(&host, 4 * MIB);
}

/// A field that is set again and again counts once, and removed fields make room for others.
#[test]
fn fields_that_are_replaced_do_not_add_up() {
    let sets = "(local.set $left (i32.const 20000))
      (loop $next
        (call $set (i32.const 1) (i32.const 0) (i32.const 1) (i32.const 0) (i32.const 1))
        (br_if $next (local.tee $left (i32.sub (local.get $left) (i32.const 1)))))
      (local.set $left (i32.const 200))
      (loop $next
        (call $fill (i32.const 0) (i32.const 100))
        (call $remove (i32.const 0) (i32.const 0) (i32.const 1))
        (call $fill (i32.const 1) (i32.const 100))
        (call $remove (i32.const 1) (i32.const 0) (i32.const 1))
        (br_if $next (local.tee $left (i32.sub (local.get $left) (i32.const 1)))))
      (i64.const 0)";
    let host = host(&[("sets", guest(sets))], "4MiB").start();
    host.settled();
    for _ in 0..3 {
        let answer = host.get("/sets");
        assert_eq!((answer.status, answer.all("a").len()), (200, 0), "{}", answer.text());
    }
    assert_eq!(shortages(&given_back(&host, 2 * MIB)), 0);
}

/// A request that was passed on is held, with its copies, until it is answered.
#[test]
fn fields_that_are_passed_on_count() {
    const ANSWER: &[u8] = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok";
    let upstream = TcpListener::bind("127.0.0.1:0").expect("a port");
    let url = format!("http://{}", upstream.local_addr().expect("it is bound"));
    let next = format!(
        "(call $fill (i32.const 0) (i32.const {COUNT}))
        (call $fill (i32.const 1) (i32.const {COUNT}))
        (i64.const 1)"
    );
    let host = host(&[("next", guest(&next))], "64MiB").args(["--upstream", &url]).start();
    let before = host.settled();
    let mut connection = host.connect();
    connection.send(message("GET", "/next", &[], b""));
    let (mut passed_on, _) = upstream.accept().expect("the request is passed on");
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        let mut piece = [0; 4096];
        let read = passed_on.read(&mut piece).expect("it comes");
        assert!(read > 0, "it ended early");
        head.extend_from_slice(&piece[..read]);
    }
    assert!(head.windows(6).filter(|line| line == b"\r\na: a").count() as u64 >= COUNT);
    let used = host.status().memory_used - before.memory_used;
    assert!(used >= 3 * COUNT * FIELD_BYTES, "{used}");
    passed_on.write_all(ANSWER).expect("it is read");
    let answer = connection.read();
    assert_eq!((answer.status, answer.all("a").len() as u64), (200, COUNT));
    assert_eq!(shortages(&given_back(&host, before.memory_used + MIB)), 0);
}

/// A target that a guest sets counts with the copies that are made of it.
#[test]
fn targets_that_guests_set_count() {
    const CLIENTS: u64 = 60;
    const BYTES: u64 = 30_000;
    let guest = hoard(1, 0, 0)
        .replace(
            "(memory ",
            r#"(import "http_handler" "set_uri" (func $set_uri (param i32 i32))) (memory "#,
        )
        .replace(
            "(loop $read",
            "(memory.fill (i32.const 0) (i32.const 47) (i32.const 30000))
            (memory.fill (i32.const 1) (i32.const 97) (i32.const 29999))
            (call $set_uri (i32.const 0) (i32.const 30000))
            (loop $read",
        );
    let host = host(&[("waits", guest)], "96MiB").start();
    host.settled();
    let (mut waiting, _) = ask(&host, "/waits", CLIENTS, |status, asked| {
        // A MiB of slack, because memory is charged in steps that have some room left.
        let least = (asked * (INSTANCE_BYTES + 3 * BYTES)).saturating_sub(MIB);
        status.in_flight == asked && status.memory_used >= least
    });
    for connection in &mut waiting {
        connection.send("body");
        let answer = connection.read_to("POST");
        assert_eq!(answer.status, 200, "{}", answer.text());
    }
    let rest = host.status_when("its memory back", soon(), |status| {
        status.memory_used <= status.instances_ready * INSTANCE_BYTES + 2 * MIB
    });
    assert_eq!(shortages(&rest), 0);
}

//! Admission: a limit on requests in flight, a short queue for more, and a clear answer to the
//! rest.

use crate::client::{Connection, message};
use crate::host::{HELLO, Host, Setup, until};
use crate::patience::patience;

/// A guest that sleeps for this many milliseconds, and answers "slept".
fn sleeping_guest(sleep_ms: u64) -> String {
    format!(
        r#"(module
  (import "http_handler" "write_body" (func $write_body (param i32 i32 i32)))
  (import "wasi_snapshot_preview1" "poll_oneoff"
    (func $poll_oneoff (param i32 i32 i32 i32) (result i32)))
  (memory (export "memory") 1)
  (data (i32.const 0) "slept")
  (func (export "handle_request") (result i64)
    (i32.store (i32.const 1040) (i32.const 1))
    (i64.store (i32.const 1048) (i64.const {}))
    (if (call $poll_oneoff (i32.const 1024) (i32.const 2048) (i32.const 1) (i32.const 3072))
      (then unreachable))
    (call $write_body (i32.const 1) (i32.const 0) (i32.const 5))
    (i64.const 0)))"#,
        sleep_ms * 1_000_000
    )
}

/// One worker, with guests that sleep for 20 ms and guests that sleep for longer than any test.
fn host() -> Setup {
    Host::with("nap.wat", sleeping_guest(20))
        .file("other.wat", sleeping_guest(20))
        .file("coma.wat", sleeping_guest(3_600_000))
        .file("good.wat", HELLO)
        .args(["--workers", "1", "--deadline", "1h"])
}

fn send(host: &Host, path: &str) -> Connection {
    let mut connection = host.connect();
    connection.send(format!("GET {path} HTTP/1.1\r\nhost: guest.test\r\n\r\n"));
    connection
}

#[test]
fn requests_wait_for_a_place_and_hold_nothing() {
    let host = host().args(["--in-flight-max", "2"]).start();
    host.settled();
    let mut waiting: Vec<_> = (0..20).map(|_| send(&host, "/nap")).collect();
    host.status_when("in flight", patience(), |status| status.in_flight > 2);
    let status = host.status();
    assert!(status.instances_out <= 3, "{status:?}");
    for connection in &mut waiting {
        assert_eq!(connection.read().text(), "slept");
    }
    assert_eq!(host.at_rest().rejects("no_instance"), 0);
}

/// Twins and guests wait in the same queue.
#[test]
fn a_full_worker_has_twins_wait_too() {
    let host = Host::demo().args(["--workers", "1", "--in-flight-max", "1"]).start_settled();
    let mut waiting: Vec<_> = (0..20)
        .map(|at| send(&host, if at % 2 == 0 { "/native/fib/30" } else { "/hello" }))
        .collect();
    for connection in &mut waiting {
        assert_eq!(connection.read().status, 200);
    }
    assert_eq!(host.at_rest().rejects("no_instance"), 0);
}

/// The host holds a refusal back for a moment, and reads the request's body meanwhile. If the body
/// arrives in that time, the connection can be kept. On a busy machine it may arrive later.
#[test]
fn a_body_that_comes_before_the_refusal_keeps_the_connection() {
    let flags = ["--handler-in-flight-max", "coma=1", "--queue-max", "0"];
    let host = host().args(flags).start();
    host.settled();
    let _held = send(&host, "/coma");
    host.status_when("held", patience(), |status| status.instances_out == 1);
    until("a connection that is kept", patience(), || {
        let mut connection = host.connect();
        let head = message("POST", "/coma", &["content-length: 4"], b"");
        connection.send(head);
        host.status_when("inside", patience(), |status| status.in_flight == 2);
        connection.send("body");
        let refusal = connection.read();
        refusal.assert_problem(503);
        if refusal.closes() {
            return None;
        }
        assert_eq!(connection.get("/good").status, 200);
        Some(())
    });
}

#[test]
fn past_the_queue_requests_are_refused() {
    for queue in [0, 1, 5] {
        let host = host()
            .args(["--in-flight-max", "1", "--handler-in-flight-max", "1"])
            .args(["--queue-max", &queue.to_string()])
            .start();
        host.settled();
        let held = send(&host, "/coma");
        host.status_when("held", patience(), |status| status.instances_out == 1);
        let waiting: Vec<_> = (0..queue)
            .map(|at| {
                let waiting = send(&host, "/coma");
                let here = |status: &crate::host::Status| status.in_flight == at + 2;
                host.status_when("waiting", patience(), here);
                waiting
            })
            .collect();
        let refused = host.get("/coma");
        refused.assert_problem(503);
        assert_eq!(refused.header("retry-after"), Some("1"));
        drop((held, waiting));
        host.at_rest();
        assert_eq!(host.get("/nap").text(), "slept");
    }
}

#[test]
fn who_waits_for_too_long_is_refused() {
    let host = host().args(["--in-flight-max", "1", "--queue-timeout", "50ms"]).start();
    host.settled();
    let held = send(&host, "/coma");
    host.status_when("held", patience(), |status| status.instances_out == 1);
    host.get("/good").assert_problem(503);
    drop(held);
    host.at_rest();
    host.assert_serves("/good");
}

/// A full handler only takes the places that it may have, not those of others.
#[test]
fn a_full_guest_leaves_room_for_others() {
    let host = host().args(["--handler-in-flight-max", "1"]).start();
    host.settled();
    let comas: Vec<_> = (0..10).map(|_| send(&host, "/coma")).collect();
    host.status_when("in flight", patience(), |status| status.in_flight == 10);
    for _ in 0..5 {
        assert_eq!(host.get("/nap").text(), "slept");
        host.assert_serves("/good");
    }
    let status = host.status();
    assert!((status.in_flight, status.instances_out) == (10, 1), "{status:?}");
    drop(comas);
    host.at_rest();
}

/// The queue is first come, first served: no later request overtakes an earlier one.
#[test]
fn nobody_is_overtaken() {
    let host = host().args(["--in-flight-max", "1"]).start();
    host.settled();
    let mut waiting = Vec::new();
    for at in 0..6 {
        waiting.push(send(&host, if at % 2 == 0 { "/nap" } else { "/other" }));
        host.status_when("begun", patience(), |status| status.requests == at + 1);
    }
    // The last request is answered after all others.
    assert_eq!(waiting.pop().map(|mut last| last.read().text()).as_deref(), Some("slept"));
    assert_eq!(host.status().in_flight, 0);
    for connection in &mut waiting {
        assert_eq!(connection.read().text(), "slept");
    }
    host.at_rest();
}

/// A client that disconnects leaves the queue, and the requests behind it move up.
#[test]
fn who_goes_away_leaves_the_queue() {
    let host = host().args(["--in-flight-max", "1"]).start();
    host.settled();
    let held = send(&host, "/coma");
    host.status_when("held", patience(), |status| status.instances_out == 1);
    let gone: Vec<_> = (0..5).map(|_| send(&host, "/coma")).collect();
    host.status_when("waiting", patience(), |status| status.in_flight == 6);
    let mut last = send(&host, "/good");
    host.status_when("waiting", patience(), |status| status.in_flight == 7);
    drop(gone);
    host.status_when("gone", patience(), |status| status.in_flight == 2);
    drop(held);
    assert_eq!(last.read().text(), "Hello, World!");
    host.at_rest();
}

/// Several handlers that sleep and a client with hundreds of connections leave places to others:
/// they cannot use the last eighth of a worker's 240 places.
#[test]
fn guests_that_hold_places_leave_some_to_others() {
    let host = host().file("coma2.wat", sleeping_guest(3_600_000)).start();
    host.settled();
    let comas: Vec<_> =
        (0..600).map(|at| send(&host, if at % 2 == 0 { "/coma" } else { "/coma2" })).collect();
    host.status_when("full", patience(), |status| status.instances_out > 180);
    for _ in 0..20 {
        host.assert_serves("/good");
        assert_eq!(host.get("/nap").text(), "slept");
    }
    let status = host.status();
    assert!(status.instances_out < 230, "{status:?}");
    drop(comas);
    host.at_rest();
}

/// If two clients request the same handler, the client with fewer requests in flight is next, no
/// matter how many requests the other one has in the queue.
#[test]
fn a_client_that_asks_for_much_waits_behind_others() {
    let flags = ["--handler-in-flight-max", "1"];
    let host = host().file("doze.wat", sleeping_guest(100)).args(flags).start();
    host.settled();
    let greedy = [127, 0, 0, 2].into();
    let mut many: Vec<_> = (0..40).map(|_| Connection::open_from(greedy, host.addr())).collect();
    for connection in &mut many {
        connection.send("GET /doze HTTP/1.1\r\nhost: guest.test\r\n\r\n");
    }
    host.status_when("waiting", patience(), |status| status.in_flight > 30);
    assert_eq!(host.get("/doze").text(), "slept");
    // In the order of arrival, none of the many would be left.
    let status = host.status();
    assert!(status.in_flight > 10, "{status:?}");
    drop(many);
    host.at_rest();
}

/// If one client fills a handler's queue, its newest request is refused to make room for another
/// client's.
#[test]
fn a_full_queue_has_room_for_another_client() {
    let flags = ["--handler-in-flight-max", "1", "--queue-max", "8"];
    let host = host().file("doze.wat", sleeping_guest(300)).args(flags).start();
    host.settled();
    let greedy = [127, 0, 0, 2].into();
    let mut many: Vec<_> = (0..9).map(|_| Connection::open_from(greedy, host.addr())).collect();
    for connection in &mut many {
        connection.send("GET /doze HTTP/1.1\r\nhost: guest.test\r\n\r\n");
    }
    host.status_when("waiting", patience(), |status| status.in_flight == 9);
    assert_eq!(host.get("/doze").text(), "slept");
    assert!(host.status().rejects("no_instance") > 0);
    drop(many);
    host.at_rest();
}

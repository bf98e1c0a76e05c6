//! Requests in flight, one more with each step: in a handler, in all handlers, in the run queue of
//! long calls and on their way to the upstream. Each one over the limit is refused, and the others
//! end one by one, each in another way.

use std::net::TcpListener;

use super::assert_whole;
use crate::abi::probe::Probe;
use crate::client::{Connection, message};
use crate::host::{HELLO, Host, Status};
use crate::hostile::text;
use crate::patience::soon;
use crate::wat;

/// More than any limit of one worker.
const MANY: usize = 2_000;

/// A request that stays in flight until its body arrives.
#[track_caller]
fn occupy(host: &Host, guest: &str) -> Connection {
    let mut connection = host.connect();
    connection.send(message("POST", &format!("/{guest}"), &["content-length: 4"], b""));
    connection
}

#[track_caller]
fn wait_in_flight(host: &Host, count: usize) -> Status {
    host.status_when("so many in flight", soon(), |status| {
        status.in_flight == count as u64 && status.instances_out == count as u64
    })
}

/// Fills a handler's places one by one, until one more request is refused. `others` are in flight
/// already.
#[track_caller]
fn fill(host: &Host, guest: &str, others: usize) -> Vec<Connection> {
    let mut held = Vec::new();
    let refused = |status: &Status| status.rejects("no_instance");
    while held.len() < MANY {
        let before = refused(&host.status());
        let mut connection = occupy(host, guest);
        let wanted = (others + held.len() + 1) as u64;
        // A refusal is in flight for a while, without an instance.
        let placed = |status: &Status| status.in_flight.min(status.instances_out) == wanted;
        let status = host.status_when("in place or refused", soon(), |status| {
            placed(status) || refused(status) > before
        });
        host.assert_no_panic();
        if !placed(&status) {
            connection.read_to("POST").assert_problem(503);
            return held;
        }
        held.push(connection);
    }
    panic!("no bound was met");
}

/// Ends one of the requests, in one of the ways in which a request can end.
#[track_caller]
fn leave(mut connection: Connection, manner: usize) {
    match manner % 4 {
        0 => {
            connection.send("body");
            assert_eq!(connection.read_to("POST").status, 200);
        }
        1 => drop(connection),
        2 => {
            connection.send("bo");
            connection.finish();
            connection.read_to("POST").assert_problem(400);
        }
        _ => {
            connection.send("body and more\r\n\r\n");
            assert_eq!(connection.read_to("POST").status, 200);
        }
    }
}

#[test]
fn places_of_guests_one_by_one() {
    let host = Host::with("good.wat", HELLO)
        .file("one.wat", wat::reads())
        .file("two.wat", wat::reads())
        .args(["--workers", "1", "--deadline", "10m"])
        .start();
    host.settled();
    let mut ones = fill(&host, "one", 0);
    host.assert_serves("/good");
    let places = ones.len();
    let mut twos = fill(&host, "two", places);
    // Not even a short call has a place now. There is one as soon as the first request ends.
    host.get("/good").assert_problem(503);
    let all = places + twos.len();
    for turn in 0..2 {
        leave(twos.pop().expect("there are many"), turn);
        wait_in_flight(&host, all - 1 - turn);
        host.assert_serves("/good");
    }
    for (turn, connection) in ones.drain(..).chain(twos.drain(..)).enumerate() {
        leave(connection, turn);
        wait_in_flight(&host, all - 3 - turn);
        host.assert_serves("/good");
    }
    assert_whole(&host);
    // A permit that was not given back would be one place less.
    let again = fill(&host, "one", 0);
    assert_eq!(again.len(), places);
    drop(again);
    assert_whole(&host);
}

/// The number of calls that can wait depends on the time that they take. So each may be answered or
/// refused, but none may be lost.
#[test]
fn long_calls_from_one_to_more_than_the_line_holds() {
    let long = Probe::new(super::COMPUTE).wat().replace("20000000", "5000000");
    let host = Host::with("good.wat", HELLO)
        .file("long.wat", long)
        .file("loop.wat", text("loop"))
        .args(["--workers", "1", "--deadline", "10m", "--cpu-max", "10m"])
        .start();
    host.settled();
    let mut refused = 0;
    for count in (0..9).map(|step| 1 << step) {
        let ask = |_| {
            let mut connection = host.connect();
            connection.send(message("GET", "/long", &[], b""));
            connection
        };
        let mut calls: Vec<Connection> = (0..count).map(ask).collect();
        for connection in &mut calls {
            let answer = connection.read();
            if answer.status != 200 {
                answer.assert_problem(503);
                refused += 1;
            }
        }
        drop(calls);
        let status = assert_whole(&host);
        assert_eq!(status.rejects("no_instance"), refused, "{status:?}");
    }
    assert!(refused > 0, "256 calls at once found a place");
    // Calls that never end, up to and past the limit of the same queue. All of their clients
    // disconnect.
    for count in (0..9).map(|step| 1 << step) {
        let mut calls = Vec::new();
        for _ in 0..count {
            let mut connection = host.connect();
            connection.send(message("GET", "/loop", &[], b""));
            calls.push(connection);
        }
        host.status_when("looping", soon(), |status| status.in_flight > 0);
        drop(calls);
        assert_whole(&host);
    }
}

/// The queue is as short as it was when it was full, so that no request in it is evicted by one
/// more.
const QUEUE_MAX: usize = 4;
/// The number of requests that one client may have to the upstream on one worker, in flight and
/// queued.
const UPSTREAM_MAX: usize = 192 + QUEUE_MAX;

#[test]
fn places_before_the_upstream_one_by_one() {
    // It never accepts, and its backlog is longer than the number of requests.
    let silent = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None);
    let silent: TcpListener = silent.and_then(listen).expect("a free port");
    let addr = silent.local_addr().expect("an address");
    let host = Host::with("good.wat", HELLO)
        .args(["--workers", "1", "--deadline", "10m", "--queue-timeout", "10m"])
        .args(["--queue-max", &QUEUE_MAX.to_string(), "--upstream", &format!("http://{addr}")])
        .start();
    let ask = || {
        let mut connection = host.connect();
        connection.send(message("GET", "/elsewhere", &[], b""));
        connection
    };
    let in_flight = |count: usize| {
        host.status_when("so many in flight", soon(), |it| it.in_flight == count as u64);
    };
    let mut waiting = Vec::new();
    while waiting.len() < UPSTREAM_MAX {
        waiting.push(ask());
        in_flight(waiting.len());
        host.assert_no_panic();
    }
    for step in 0..16 {
        ask().read().assert_problem(503);
        host.assert_serves("/good");
        // One request ends, alternately one in flight and one in the queue, and another one comes.
        let gone = if step % 2 == 0 { step } else { waiting.len() - 1 - step };
        drop(waiting.swap_remove(gone));
        in_flight(waiting.len());
        waiting.push(ask());
        in_flight(waiting.len());
    }
    // Once the upstream is gone, each request gets an answer.
    drop(silent);
    for connection in &mut waiting {
        connection.read().assert_problem(502);
    }
    drop(waiting);
    let status = assert_whole(&host);
    assert_eq!(status.rejects("upstream_busy"), 16, "{status:?}");
}

fn listen(socket: socket2::Socket) -> std::io::Result<TcpListener> {
    socket.bind(&std::net::SocketAddr::from(([127, 0, 0, 1], 0)).into())?;
    socket.listen(2 * UPSTREAM_MAX as i32)?;
    Ok(socket.into())
}

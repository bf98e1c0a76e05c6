//! Requests that are handed over to another worker, because the worker of their connection has no
//! free place.

use std::io::Write as _;
use std::net::Shutdown;
use std::sync::{Arc, Mutex, mpsc};

use rustix::process::Signal;

use crate::abi::probe::Probe;
use crate::client::Connection;
use crate::host::{HELLO, Host, until};
use crate::middleware::upstream::{Seen, Upstream, plain};
use crate::patience::patience;

/// Connections that belong to one worker. The id of a problem document begins with the worker's
/// number.
pub fn of_one_worker<const N: usize>(host: &Host) -> [Connection; N] {
    let mut all: Vec<Vec<Connection>> = Vec::new();
    loop {
        let mut connection = host.connect();
        let problem = connection.get("/%zz");
        problem.assert_problem(400);
        let id = problem.header("x-request-id").expect("an id");
        let worker: usize = id[..2].parse().expect("a number");
        all.resize_with(all.len().max(worker + 1), Vec::new);
        all[worker].push(connection);
        if let Some(found) = all.iter_mut().find(|it| it.len() == N) {
            let found = std::mem::take(found);
            return found.try_into().unwrap_or_else(|_| panic!("{N} connections"));
        }
    }
}

const TWO: [&str; 6] = ["--workers", "2", "--queue-max", "0", "--deadline", "1h"];

fn get(path: &str) -> String {
    format!("GET {path} HTTP/1.1\r\nhost: guest.test\r\n\r\n")
}

/// An upstream that answers held requests when it is told to.
fn upstream() -> (Upstream, mpsc::Sender<()>) {
    let (go, told) = mpsc::channel::<()>();
    let told = Arc::new(Mutex::new(told));
    let upstream = Upstream::scripted(move |seen, stream| {
        let head = b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n5\r\nhello\r\n";
        match seen.target.rsplit('/').next() {
            Some("held") => {
                // This fails once the test is over.
                let _ = told.lock().expect("no panic").recv();
                stream.write_all(&plain("200 OK", "", "held")).map(|()| true)
            }
            Some("broken") => {
                stream.write_all(head)?;
                stream.shutdown(Shutdown::Both).map(|()| false)
            }
            Some("streamed") => {
                stream.write_all(head)?;
                stream.write_all(b"6\r\n world\r\n0\r\n\r\n").map(|()| true)
            }
            _ => {
                let body = String::from_utf8_lossy(&seen.body).into_owned();
                stream.write_all(&plain("200 OK", "", &body)).map(|()| true)
            }
        }
    });
    (upstream, go)
}

/// A host with two workers, and a guest that passes requests on and has one place on each worker.
fn start(upstream: &Upstream) -> Host {
    let guest = Probe::new("").next();
    let host = Host::with("guest.wat", guest.wat()).args(TWO).file("good.wat", HELLO);
    let host = host.args(["--handler-in-flight-max", "guest=2", "--upstream", &upstream.url("")]);
    let host = host.start();
    host.settled();
    host
}

/// Waits until the upstream holds this many requests.
fn wait_held(upstream: &Upstream, count: usize) {
    let held = |seen: &Vec<Seen>| seen.iter().filter(|it| it.target.ends_with("/held")).count();
    until("held", patience(), || (held(&upstream.seen()) == count).then_some(()));
}

/// Both places are for any request, whichever worker has its connection.
#[test]
fn a_place_on_another_worker_is_one() {
    let (upstream, go) = upstream();
    let host = start(&upstream);
    let [mut held, mut one, mut other] = of_one_worker(&host);
    held.send(get("/guest/held"));
    wait_held(&upstream, 1);
    // Head, body and answer arrive unchanged.
    let answer = one.request("PUT", "/guest/echo", &["content-length: 4"], b"body");
    assert_eq!((answer.status, answer.text().as_str()), (200, "body"));
    let chunked = ["transfer-encoding: chunked"];
    let answer = one.request("PUT", "/guest/echo", &chunked, b"4\r\nbody\r\n0\r\n\r\n");
    assert_eq!((answer.status, answer.text().as_str()), (200, "body"));
    assert_eq!(one.get("/guest/streamed").text(), "hello world");
    assert_eq!(host.status().calls("handed"), 3);
    // An answer that breaks off breaks off for the client, too.
    one.send(get("/guest/broken"));
    assert!(one.next("GET").is_err());
    // With both places taken, a request is refused.
    other.send(get("/guest/held"));
    wait_held(&upstream, 2);
    let [mut here, mut there] = [host.connect(), host.connect()];
    for connection in [&mut here, &mut there] {
        connection.get("/guest/echo").assert_problem(503);
    }
    // Its client disconnects, and the place is free again. A worker that had no place is not asked
    // for a moment.
    drop(other);
    host.status_when("gone", patience(), |status| status.in_flight == 1);
    until("a place", patience(), || (host.get("/guest/echo").status == 200).then_some(()));
    for _ in 0..2 {
        go.send(()).expect("it waits");
    }
    assert_eq!(held.read().text(), "held");
    host.at_rest();
}

/// In a drain, a worker without connections of its own ends after the requests that it serves for
/// others.
#[test]
fn a_stop_waits_for_what_was_handed_over() {
    let (upstream, go) = upstream();
    let host = start(&upstream);
    let [mut held, mut one] = of_one_worker(&host);
    held.send(get("/guest/held"));
    wait_held(&upstream, 1);
    one.send(get("/guest/held"));
    wait_held(&upstream, 2);
    go.send(()).expect("it waits");
    assert_eq!(held.read().text(), "held");
    host.signal(Signal::TERM);
    until("nobody listens", patience(), || Connection::try_open(host.addr()).err());
    go.send(()).expect("it waits");
    assert_eq!(one.read().text(), "held");
    assert!(host.wait_exit().success());
}

//! The drain: requests in flight are answered, no request is lost, and the host ends in time.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use rustix::process::Signal;

use crate::client::{Connection, message};
use crate::host::{HELLO, Host, until};
use crate::patience::patience;
use crate::wat;

/// By the contract, a connection that was active within this time may send one more request.
const ACTIVE: Duration = Duration::from_millis(500);

fn host() -> Host {
    Host::with("hello.wat", HELLO)
        .file("reader.wat", wat::reads())
        .file("spin.wat", wat::spins())
        .args(["--deadline", "2s"])
        .arg("--native")
        .start()
}

/// Waits until connections are refused.
fn wait_refused(host: &Host) {
    until("refusal of connections", patience(), || {
        Connection::try_open(host.addr()).is_err().then_some(())
    });
}

#[test]
fn a_host_at_rest_ends_at_once() {
    for signal in [Signal::TERM, Signal::INT] {
        let host = host();
        host.assert_serves("/hello");
        let began = Instant::now();
        host.signal(signal);
        assert_eq!(host.wait_exit().code(), Some(0), "{signal:?}");
        assert!(began.elapsed() < Duration::from_secs(5), "{:?}", began.elapsed());
        assert!(Connection::try_open(host.addr()).is_err());
    }
}

#[test]
fn what_is_in_flight_is_answered() {
    for path in ["/reader", "/native/echo"] {
        let host = Host::with("reader.wat", wat::reads()).arg("--native").start();
        let mut connection = host.connect();
        connection.send(message("POST", path, &["content-length: 4"], b""));
        host.status_when("busy", patience(), |status| status.in_flight == 1);
        host.signal(Signal::TERM);
        wait_refused(&host);
        connection.assert_silent();
        connection.send("body");
        let answer = connection.read();
        assert_eq!(answer.status, 200, "{answer:?}");
        assert!(answer.closes(), "{answer:?}");
        assert_eq!(connection.read_to_close(), b"");
        assert_eq!(host.wait_exit().code(), Some(0));
    }
}

#[test]
fn idle_connections_are_closed_while_others_are_answered() {
    let host = host();
    let mut unused = host.connect();
    let mut used = host.connect();
    assert_eq!(used.get("/hello").status, 200);
    let mut busy = host.connect();
    busy.send(message("POST", "/reader", &["content-length: 4"], b""));
    host.status_when("busy", patience(), |status| status.in_flight == 1 && status.connections == 3);
    // The test needs a connection that has been idle for long.
    std::thread::sleep(2 * ACTIVE);
    host.signal(Signal::TERM);
    for connection in [&mut unused, &mut used] {
        let end = connection.next("GET");
        assert!(matches!(end, Ok(None)), "{end:?}");
    }
    busy.assert_silent();
    busy.send("body");
    let answer = busy.read();
    assert_eq!((answer.status, answer.closes()), (200, true), "{answer:?}");
    assert_eq!(host.wait_exit().code(), Some(0));
}

#[test]
fn a_pipeline_is_answered_to_its_end() {
    let host = host();
    let mut connection = host.connect();
    let mut all = message("POST", "/reader", &["content-length: 4"], b"");
    connection.send(&all);
    host.status_when("busy", patience(), |status| status.in_flight == 1);
    host.signal(Signal::TERM);
    wait_refused(&host);
    all = b"body".to_vec();
    all.extend(message("GET", "/hello", &[], b""));
    connection.send(all);
    let first = connection.read();
    assert_eq!(first.status, 200);
    // The first answer may announce that it is the last.
    if !first.closes() {
        let second = connection.read();
        assert_eq!((second.status, second.closes()), (200, true), "{second:?}");
    }
    connection.read_to_close();
    assert_eq!(host.wait_exit().code(), Some(0));
}

#[test]
fn connections_in_the_queue_are_served() {
    let host = Host::with("hello.wat", HELLO).args(["--workers", "1"]).start();
    let mut connections: Vec<Connection> = (0..100)
        .map(|_| {
            let mut connection = host.connect();
            connection.send(message("GET", "/hello", &[], b""));
            connection
        })
        .collect();
    host.signal(Signal::TERM);
    for (at, connection) in connections.iter_mut().enumerate() {
        let answer = connection.next("GET");
        let status = answer.as_ref().ok().and_then(|it| it.as_ref().map(|it| it.status));
        assert_eq!(status, Some(200), "connection {at}: {answer:?}");
    }
    assert_eq!(host.wait_exit().code(), Some(0));
}

/// The results of one client of [`no_request_is_lost_under_load`].
#[derive(Default)]
struct Seen {
    answered: AtomicUsize,
    lost: AtomicUsize,
}

/// Sends one request after another on one connection, until the host closes it.
fn client(addr: std::net::SocketAddr, paths: &[&str], seen: &Seen) {
    let mut connection = Connection::open(addr);
    let mut last = Instant::now();
    for path in paths.iter().cycle() {
        let was_still = last.elapsed();
        let sent = connection.try_send(message("GET", path, &[], b""));
        let answer = sent.and_then(|()| connection.next("GET"));
        last = Instant::now();
        match answer {
            Ok(Some(answer)) => {
                assert_eq!(answer.status, 200, "{path}: {answer:?}");
                seen.answered.fetch_add(1, Ordering::Relaxed);
                if answer.closes() {
                    assert_eq!(connection.read_to_close(), b"");
                    return;
                }
            }
            // If the machine is too busy to run this thread, the connection looks idle to the host.
            // That is not the host's fault.
            Ok(None) | Err(_) if was_still > ACTIVE / 2 => return,
            Ok(None) | Err(_) => {
                seen.lost.fetch_add(1, Ordering::Relaxed);
                return;
            }
        }
    }
}

#[test]
fn no_request_is_lost_under_load() {
    for (signal, isolation) in [(Signal::TERM, "fresh"), (Signal::INT, "reuse")] {
        let host = Host::demo().args(["--isolation", isolation]).start_settled();
        let seen = Seen::default();
        let paths = ["/hello", "/native/hello", "/fib/15", "/json", "/native/fib/15"];
        std::thread::scope(|scope| {
            for _ in 0..8 {
                scope.spawn(|| client(host.addr(), &paths, &seen));
            }
            until("load", patience(), || {
                (seen.answered.load(Ordering::Relaxed) >= 500).then_some(())
            });
            host.signal(signal);
        });
        assert_eq!(seen.lost.load(Ordering::Relaxed), 0);
        assert_eq!(host.wait_exit().code(), Some(0));
        let told = host.lines();
        assert!(!told.iter().any(|line| line.has(&["cut off"])), "{told:?}");
    }
}

#[test]
fn a_client_that_stalls_does_not_hold_up_the_end() {
    let host = host();
    let mut in_head = host.connect();
    in_head.send("GET /hello HT");
    let mut in_body = host.connect();
    in_body.send(message("POST", "/reader", &["content-length: 4"], b"bo"));
    let mut looping = host.connect();
    looping.send(message("GET", "/spin", &[], b""));
    host.status_when("busy", patience(), |status| status.in_flight == 2);
    host.signal(Signal::TERM);
    let began = Instant::now();
    for (connection, status) in [(&mut in_body, 408), (&mut looping, 504)] {
        let answer = connection.read();
        answer.assert_problem(status);
        assert!(answer.closes(), "{answer:?}");
    }
    let ended = host.wait_exit();
    assert_eq!(ended.code(), Some(0));
    assert!(began.elapsed() < Duration::from_secs(10), "{:?}", began.elapsed());
}

/// The pause of a body is counted from the stop on.
#[test]
fn a_body_that_paused_before_the_stop_is_waited_for() {
    let host = host();
    let mut connection = host.connect();
    connection.send(message("POST", "/reader", &["content-length: 4"], b"bo"));
    // Longer than it may pause after the stop, plus the time until the host checks.
    std::thread::sleep(Duration::from_millis(3500));
    host.signal(Signal::TERM);
    std::thread::sleep(Duration::from_millis(1500));
    connection.send("dy");
    assert_eq!(connection.read().status, 200);
    assert_eq!(host.wait_exit().code(), Some(0));
}

#[test]
fn a_second_signal_does_no_harm() {
    let host = host();
    let mut connection = host.connect();
    connection.send(message("POST", "/reader", &["content-length: 4"], b""));
    host.status_when("busy", patience(), |status| status.in_flight == 1);
    host.signal(Signal::TERM);
    wait_refused(&host);
    host.signal(Signal::TERM);
    host.signal(Signal::USR1);
    connection.send("body");
    assert_eq!(connection.read().status, 200);
    assert_eq!(host.wait_exit().code(), Some(0));
}

//! What is bounded in number: ready instances, requests in a guest, requests on their way to the
//! upstream. One over the bound is refused at once, nobody else notices, and all counts come back.

use std::io::{BufRead, BufReader, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::mpsc::{Receiver, channel};
use std::time::Duration;

use rustix::process::{Resource, getrlimit, setrlimit};

use crate::client::{Connection, message};
use crate::host::{HELLO, Host};
use crate::wat;

/// Ready instances that one worker keeps, of all guests together.
const READY_MAX: u64 = 1024;
/// Requests that one worker has on their way to the upstream, in flight and queued.
const UPSTREAM_MAX: usize = 256 + 256;
/// How long many connections may take to be in place.
const PLACED: Duration = Duration::from_secs(20);

/// Makes room for some thousand sockets in this process.
fn raise_descriptor_limit() {
    let mut limit = getrlimit(Resource::Nofile);
    limit.current = limit.maximum;
    setrlimit(Resource::Nofile, limit).expect("the soft limit may be raised to the hard one");
}

#[test]
fn ready_instances_are_a_budget_of_all_guests() {
    let mut setup = Host::with("good.wat", HELLO).args(["--workers", "1"]);
    let names: Vec<String> = (0..READY_MAX + 16).map(|number| format!("guest-{number}")).collect();
    for name in &names {
        setup = setup.file(&format!("{name}.wat"), wat::says(name));
    }
    let host = setup.start();
    // Twice, so that guests are asked whose instances had to go.
    for name in names.iter().chain(&names) {
        assert_eq!(host.get(&format!("/{name}")).text(), *name);
    }
    let rest = host.at_rest();
    assert_eq!(rest.instances_ready, READY_MAX, "{rest:?}");
}

#[test]
fn one_guest_cannot_take_every_place() {
    raise_descriptor_limit();
    let host = Host::with("good.wat", HELLO)
        .file("reads.wat", wat::reads())
        .args(["--workers", "1", "--deadline", "60s"])
        .start();
    host.settled();
    // Each waits for a body that does not come, and holds an instance.
    let head = "POST /reads HTTP/1.1\r\nhost: guest.test\r\ncontent-length: 5\r\n\r\n";
    let mut waiting: Vec<Connection> = Vec::new();
    let refused = loop {
        let mut connection = host.connect();
        connection.send(head);
        waiting.push(connection);
        assert!(waiting.len() < 4_000, "no bound was met");
        if waiting.len().is_multiple_of(50) {
            let placed = |status: &crate::host::Status| {
                // A refusal is held back for a while, without an instance.
                let settled = status.in_flight == status.instances_out;
                settled && status.in_flight + status.rejects("no_instance") == waiting.len() as u64
            };
            let status = host.status_when("all are in place or refused", PLACED, placed);
            if status.rejects("no_instance") > 0 {
                break status.rejects("no_instance");
            }
        }
    };
    host.assert_serves("/good");
    let (mut answered, mut rejected) = (0, 0);
    for mut connection in waiting {
        // A refused one has its answer already, and may have been closed behind it.
        if connection.try_send("hello").is_err() {
            rejected += 1;
            continue;
        }
        match connection.next("POST") {
            Ok(Some(answer)) if answer.status == 200 => answered += 1,
            Ok(Some(answer)) => {
                answer.assert_problem(503);
                assert!(answer.header("retry-after").is_some(), "{answer:?}");
                rejected += 1;
            }
            Ok(None) | Err(_) => rejected += 1,
        }
    }
    assert_eq!(rejected, refused, "{answered} were answered");
    host.at_rest();
    host.assert_serves("/good");
}

#[test]
fn requests_to_the_upstream_queue_up_to_a_bound() {
    raise_descriptor_limit();
    let (upstream, release) = silent_upstream();
    let host = Host::with("good.wat", HELLO)
        .args(["--workers", "1", "--deadline", "60s"])
        .args(["--upstream", &format!("http://{upstream}")])
        .start();
    let ask = || {
        let mut connection = host.connect();
        connection.send(message("GET", "/elsewhere", &[], b""));
        connection
    };
    let mut waiting: Vec<Connection> = (0..UPSTREAM_MAX).map(|_| ask()).collect();
    host.status_when("all are in place", PLACED, |status| status.in_flight == UPSTREAM_MAX as u64);
    for _ in 0..4 {
        let answer = ask().read();
        answer.assert_problem(503);
        assert_eq!(answer.header("retry-after"), Some("1"), "{answer:?}");
    }
    host.assert_serves("/good");
    drop(release);
    for connection in &mut waiting {
        assert_eq!(connection.read().text(), "ok");
    }
    assert_eq!(host.at_rest().rejects("upstream_busy"), 4);
}

/// An upstream that answers nothing until the sender is dropped, and everything from then on.
fn silent_upstream() -> (SocketAddr, std::sync::mpsc::Sender<()>) {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let addr = listener.local_addr().expect("an address");
    let (sender, released): (_, Receiver<()>) = channel();
    std::thread::spawn(move || {
        let (gates, streams): (Vec<_>, Vec<_>) = (0..UPSTREAM_MAX / 2)
            .map_while(|_| listener.accept().ok())
            .map(|(stream, _)| {
                let (gate, open): (_, Receiver<()>) = channel();
                (gate, std::thread::spawn(move || answer(stream, &open)))
            })
            .unzip();
        // Ends when the sender is dropped.
        let _ = released.recv();
        drop(gates);
        for stream in streams {
            let _ = stream.join();
        }
    });
    (addr, sender)
}

fn answer(stream: TcpStream, open: &Receiver<()>) {
    let _ = open.recv();
    let Ok(mut writer) = stream.try_clone() else { return };
    for line in BufReader::new(stream).lines() {
        match line {
            Ok(line) if line.is_empty() => {
                let _ = writer.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok");
            }
            Ok(_) => {}
            Err(_) => return,
        }
    }
}

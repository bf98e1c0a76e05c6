//! The clients of a soak test: good ones, which are always answered, and hostile ones.
//!
//! Pauses in this file are the pace of a client. No state is waited for by a pause.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::{self, sleep};
use std::time::{Duration, Instant};

use super::Tally;
use crate::client::{Connection, message};
use crate::host::Host;
use crate::{hostile, wat};

/// The routes whose requests are never lost.
pub const GOOD: [&str; 4] = ["/good", "/echo", "/swapped", "/start_random"];

/// The number of clients that go from one hostile guest to the next.
const TORMENTORS: usize = 6;

/// The hostile guests of the soak test itself.
const OWN: [&str; 3] = ["leaking", "bursting", "large"];

/// The ways in which a hostile guest is requested.
const TORMENTS: u64 = 4;

/// The pause between two requests of a good client.
const PACE: Duration = Duration::from_millis(1);

/// One round of a client. It counts the answers.
type Round = fn(&Host, u64) -> u64;

/// What each client does over and over.
const ROUNDS: &[(&str, Round)] = &[
    ("good, kept alive", keep_alive),
    ("good, each on a connection of its own", connect),
    ("good, with a body", echo),
    ("good, of changing versions", ask_swapped),
    ("good, started for each", ask_started),
    ("versions", swap),
    ("slow clients", drip),
    ("clients that do not read", ignore),
    ("pipelines that are left", leave_pipeline),
    ("noise", make_noise),
];

/// Runs all clients until `end`, and until each hostile guest was requested in each way.
pub fn load(host: &Host, end: Instant, tally: &Tally) {
    let names: Vec<String> = hostile::names().into_iter().collect();
    let asked = AtomicU64::new(0);
    let each_torment = (names.len() + OWN.len()) as u64 * TORMENTS;
    let failed = AtomicBool::new(false);
    let is_over = || {
        let is_done = Instant::now() >= end && asked.load(Ordering::Relaxed) >= each_torment;
        is_done || failed.load(Ordering::Relaxed)
    };
    let run = |name: &'static str, round: &dyn Fn(u64) -> u64| {
        let _failure = Failure(&failed);
        let (mut rounds, mut answered) = (0, 0);
        while rounds == 0 || !is_over() {
            answered += round(rounds);
            rounds += 1;
        }
        *tally.lock().expect("no client has panicked").entry(name).or_default() += answered;
    };
    let run = &run;
    thread::scope(|scope| {
        for (name, round) in ROUNDS {
            scope.spawn(move || run(name, &|number| round(host, number)));
        }
        for _ in 0..TORMENTORS {
            let torment = |_| torment(host, &names, asked.fetch_add(1, Ordering::Relaxed));
            scope.spawn(move || run("hostile", &torment));
        }
    });
}

/// Tells the other clients if one of them panics, which ends the soak test.
struct Failure<'a>(&'a AtomicBool);

impl Drop for Failure<'_> {
    fn drop(&mut self) {
        if thread::panicking() {
            self.0.store(true, Ordering::Relaxed);
        }
    }
}

#[track_caller]
fn assert_hello(connection: &mut Connection) {
    let answer = connection.get("/good");
    assert_eq!((answer.status, answer.text().as_str()), (200, "Hello, World!"), "{answer:?}");
}

fn keep_alive(host: &Host, _: u64) -> u64 {
    const REQUESTS: u64 = 50;
    let mut connection = host.connect();
    for _ in 0..REQUESTS {
        assert_hello(&mut connection);
        sleep(PACE);
    }
    REQUESTS
}

fn connect(host: &Host, _: u64) -> u64 {
    assert_hello(&mut host.connect());
    sleep(PACE);
    1
}

fn echo(host: &Host, number: u64) -> u64 {
    let body = vec![b'a' + (number % 26) as u8; (number * 997 % 50_000) as usize];
    let answer = host.request("POST", "/echo", &[], &body);
    assert_eq!(answer.status, 200, "{answer:?}");
    assert!(answer.body == body, "{} bytes came back of {}", answer.body.len(), body.len());
    sleep(PACE);
    1
}

fn ask_swapped(host: &Host, _: u64) -> u64 {
    let answer = host.get("/swapped");
    assert_eq!(answer.status, 200, "{answer:?}");
    assert!(answer.text().starts_with("version "), "{answer:?}");
    sleep(PACE);
    1
}

fn ask_started(host: &Host, _: u64) -> u64 {
    let answer = host.get("/start_random");
    assert_eq!((answer.status, answer.body.len()), (200, 16), "{answer:?}");
    sleep(PACE);
    1
}

/// Replaces a guest by another version. Every third version does not load.
fn swap(host: &Host, number: u64) -> u64 {
    let text = match number % 3 {
        2 => "(module)".to_owned(),
        _ => wat::says(&format!("version {}", number % 100)),
    };
    let beside = host.handlers().join(".next");
    std::fs::write(&beside, text).expect("the folder is there");
    std::fs::rename(beside, host.handlers().join("swapped.wat")).expect("the folder is there");
    sleep(PACE * 200);
    1
}

/// Requests one hostile guest, in one of the ways.
fn torment(host: &Host, names: &[String], number: u64) -> u64 {
    let guests = names.len() + OWN.len();
    let at = number as usize % guests;
    let name = names.get(at).map_or_else(|| OWN[at - names.len()], String::as_str);
    let path = format!("/{name}");
    let manner = number / guests as u64 % TORMENTS;
    // Each from an address of its own.
    let client = [127, 0, 1, 1 + (number % TORMENTORS as u64) as u8];
    let mut connection = Connection::open_from(client.into(), host.addr());
    match manner {
        // The client disconnects at once.
        1 => {
            connection.send(message("GET", &path, &[], b""));
            return 0;
        }
        // A body that does not come, and a client that disconnects once its call has begun.
        2 => {
            connection.send(message("POST", &path, &["content-length: 9"], b"four"));
            sleep(PACE * 5);
            return 0;
        }
        // Not every call that sleeps is waited for.
        _ if name == "sleep" && !number.is_multiple_of(5) => {
            connection.send(message("GET", &path, &[], b""));
            sleep(PACE * 20);
            return 0;
        }
        3 => connection.send(message("POST", &path, &[], b"")),
        _ => connection.send(message("GET", &path, &[], b"")),
    }
    let answer = connection.read();
    assert!(matches!(answer.status, 200 | 500 | 503 | 504), "{name}: {answer:?}");
    1
}

/// Bodies that come byte by byte. Half of the clients disconnect in the middle.
fn drip(host: &Host, number: u64) -> u64 {
    const BODY: &[u8] = b"drop by drop";
    let post = message("POST", "/echo", &[&format!("content-length: {}", BODY.len())], b"");
    let mut connections: Vec<Connection> = (0..16).map(|_| host.connect()).collect();
    for byte in post.chunks(16).chain(BODY.chunks(1)).take(12 + number as usize % 6) {
        for connection in &mut connections {
            // A body that comes too slowly was answered, and its connection closed.
            let _ = connection.try_send(byte);
        }
        sleep(PACE * 4);
    }
    connections.truncate(8);
    let mut answered = 0;
    for connection in &mut connections {
        connection.finish();
        if let Ok(Some(answer)) = connection.next("POST") {
            assert!(matches!(answer.status, 200 | 400 | 408 | 504), "{answer:?}");
            assert!(answer.status != 200 || answer.body == BODY, "{answer:?}");
            answered += 1;
        }
    }
    answered
}

/// Large answers. The clients read a little or nothing of them, and disconnect.
fn ignore(host: &Host, number: u64) -> u64 {
    let ask = |_| {
        let mut stream = TcpStream::connect(host.addr()).expect("a connection");
        stream.write_all(&message("GET", "/large", &[], b"")).expect("a request");
        stream
    };
    let mut streams: Vec<TcpStream> = (0..4).map(ask).collect();
    sleep(PACE * 50);
    for stream in &mut streams {
        // It does not wait for the end: it may be an answer that there was no time for a large one.
        stream.set_read_timeout(Some(PACE * 50)).expect("a socket");
        let _ = stream.read_exact(&mut vec![0; (number * 313 % 100_000) as usize]);
    }
    0
}

fn leave_pipeline(host: &Host, number: u64) -> u64 {
    let mut connection = host.connect();
    connection.send(message("GET", "/good", &[], b"").repeat(50));
    let read = number % 40;
    for _ in 0..read {
        assert_eq!(connection.read().text(), "Hello, World!");
    }
    sleep(PACE * 10);
    read
}

/// Requests that are not valid, or too large.
fn make_noise(host: &Host, number: u64) -> u64 {
    let large = format!("GET /good HTTP/1.1\r\nhost: a\r\nx: {}\r\n\r\n", "x".repeat(40_000));
    let many = format!("GET /good HTTP/1.1\r\nhost: a\r\n{}\r\n", "x: x\r\n".repeat(200));
    let broken = "POST /echo HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\nnone\r\n";
    let long = "POST /echo HTTP/1.1\r\nhost: a\r\ncontent-length: 999999999\r\n\r\n";
    let noise = [large.as_str(), many.as_str(), broken, long, "\0\u{1}\u{2}\r\n\r\n", ""];
    let mut connection = host.connect();
    // It may be refused before all of it was sent.
    if connection.try_send(noise[number as usize % noise.len()]).is_ok() {
        connection.finish();
        connection.read_to_close();
    }
    sleep(PACE * 10);
    0
}

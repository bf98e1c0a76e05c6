//! Large request bodies: in pieces at any pace, many at once, on hosts that have run for longer
//! than their timeouts; and bodies that are not read.

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpListener};
use std::thread::sleep;
use std::time::{Duration, Instant};

use crate::client::{Connection, Response, message};
use crate::host::{HELLO, Host, until};
use crate::patience::soon;
use crate::random::Xorshift;
use crate::wat;

/// The number of uploads to one form of handler. With the four forms of components, a thousand in
/// all.
const COUNT: usize = 143;
/// The smallest size of an upload, and the range above it.
const BYTES_MIN: usize = 1 << 20;
const BYTES_MORE: usize = 3 << 20;
/// The smallest number of pauses of an upload, and the range above it.
const PAUSES: [usize; 2] = [2, 4];
/// The longest pause.
const PAUSE_MAX_MS: usize = 900;
/// Longer than the pauses, and shorter than the age of the host.
pub const STALL: [&str; 2] = ["--stall-timeout", "1s"];
const AGE: Duration = Duration::from_millis(3200);
/// The most time until a deadline of a second has ended a call. Its limit on CPU time would do so
/// after a minute.
const UNTIL_DEADLINE: Duration = Duration::from_secs(20);
/// The most time until a host without timeouts of a test has ended. The client's body would time
/// out after half a minute.
const UNTIL_END: Duration = Duration::from_secs(10);

/// A body of this many bytes.
fn body(bytes: usize) -> &'static [u8] {
    static BODY: [u8; BYTES_MIN + BYTES_MORE] = [b'x'; BYTES_MIN + BYTES_MORE];
    &BODY[..bytes]
}

/// Sends many bodies to a handler that is older than its timeouts, half of them with `Expect`.
/// Every one has to be answered as it should.
#[track_caller]
pub fn assert_none_lost(
    host: &Host,
    path: &str,
    is_good: impl Fn(&Response, usize) -> bool + Sync,
) {
    // The age is what the test is about.
    sleep(AGE);
    let (addr, is_good) = (host.addr(), &is_good);
    let lost: Vec<String> = std::thread::scope(|scope| {
        let spawn = |number| scope.spawn(move || upload(addr, path, number, is_good).err());
        let all: Vec<_> = (0..COUNT).map(spawn).collect();
        all.into_iter().filter_map(|thread| thread.join().expect("no panic")).collect()
    });
    assert!(lost.is_empty(), "{} of {COUNT} to {path}: {lost:?}", lost.len());
    host.at_rest();
}

/// Sends one body in pieces, and reads the answer.
fn upload(
    addr: SocketAddr,
    path: &str,
    number: usize,
    is_good: impl Fn(&Response, usize) -> bool,
) -> Result<(), String> {
    let mut random = Xorshift(number as u64 * 7919 + 1);
    let bytes = BYTES_MIN + random.below(BYTES_MORE);
    let pauses = PAUSES[0] + random.below(PAUSES[1]);
    let length = format!("content-length: {bytes}");
    let expect: &[&str] = if number.is_multiple_of(2) { &["expect: 100-continue"] } else { &[] };
    let headers = [&[length.as_str()][..], expect].concat();
    let failed = |what: &str, error: &dyn std::fmt::Debug| format!("{number}, {what}: {error:?}");
    let mut connection = Connection::try_open(addr).map_err(|error| failed("open", &error))?;
    connection
        .try_send(message("POST", path, &headers, b""))
        .map_err(|error| failed("head", &error))?;
    if !expect.is_empty() {
        connection.read_interim();
    }
    for (at, piece) in body(bytes).chunks(bytes.div_ceil(pauses)).enumerate() {
        sleep(Duration::from_millis(random.below(PAUSE_MAX_MS) as u64));
        let sent = connection.try_send(piece);
        sent.map_err(|error| failed(&format!("piece {at} of {pauses}"), &error))?;
    }
    match connection.next("POST") {
        Ok(Some(answer)) if is_good(&answer, bytes) => Ok(()),
        other => {
            Err(failed("answer", &other.map(|answer| answer.map(|it| (it.status, it.text())))))
        }
    }
}

fn host() -> Host {
    let host = Host::with("hello.wat", HELLO)
        .file("reads.wat", wat::reads())
        .args(["--native"])
        .args(STALL)
        .start();
    host.settled();
    host
}

fn is_read(answer: &Response, _bytes: usize) -> bool {
    answer.status == 200 && answer.text() == "read"
}

#[test]
fn none_of_many_to_a_core_guest_is_lost() {
    assert_none_lost(&host(), "/reads", is_read);
}

#[test]
fn none_of_many_to_a_twin_is_lost() {
    let is_echo = |answer: &Response, bytes: usize| answer.body.ends_with(body(bytes));
    assert_none_lost(&host(), "/native/echo", is_echo);
}

#[test]
fn none_of_many_to_the_upstream_is_lost() {
    let above = host();
    let url = format!("http://{}", above.addr());
    let host = Host::with("good.wat", HELLO).args(["--upstream", &url]).args(STALL).start();
    assert_none_lost(&host, "/reads", is_read);
}

/// The deadline is for the handler. It stands still while the host waits for the client.
#[test]
fn an_upload_may_take_longer_than_the_deadline() {
    let reads = |name: &str| Host::with(&format!("{name}.wat"), wat::reads());
    let above = reads("passes").file("other.wat", wat::reads()).args(["--deadline", "1s"]).start();
    let url = format!("http://{}", above.addr());
    let host = reads("reads")
        .file("passes.wat", passes())
        .args(["--deadline", "1s", "--native", "--upstream", &url])
        .start();
    std::thread::scope(|scope| {
        for path in ["/reads", "/passes", "/native/echo", "/native/stream/upper", "/other"] {
            let host = &host;
            scope.spawn(move || {
                let answer = slowly(host, path);
                assert_eq!(answer.status, 200, "{path}: {}", answer.text());
            });
        }
    });
    host.at_rest();
}

/// Passes on a request without reading its body.
fn passes() -> String {
    wat::guest("", "").replace("(i64.const 0)))", "(i64.const 1)))")
}

/// Sends a body that takes 2.5 seconds.
#[track_caller]
pub fn slowly(host: &Host, path: &str) -> Response {
    let mut connection = host.connect();
    connection.send(message("POST", path, &["content-length: 500"], b""));
    for _ in 0..5 {
        sleep(Duration::from_millis(500));
        connection.send([b'x'; 100]);
    }
    connection.read_to("POST")
}

/// A guest that has all it asked for has no more time than before.
#[test]
fn the_deadline_goes_on_behind_an_upload() {
    let spins =
        wat::reads().replace("(call $write_body", "(loop $ever (br $ever)) (call $write_body");
    let host = Host::with("good.wat", HELLO)
        .file("spins.wat", spins)
        .args(["--deadline", "1s", "--cpu-max", "60s"])
        .start();
    let begun = Instant::now();
    slowly(&host, "/spins").assert_problem(504);
    assert!(begun.elapsed() < UNTIL_DEADLINE, "{:?}", begun.elapsed());
    assert_eq!(host.at_rest().rejects("deadline"), 1);
}

/// Sends all of this before it reads anything, as many clients do. Returns the answer.
#[track_caller]
fn send_and_read(host: &Host, bytes: &[u8]) -> Response {
    let mut connection = host.connect();
    for piece in bytes.chunks(64 << 10) {
        connection.send(piece);
    }
    let answer = connection.read_to("POST");
    assert_eq!(connection.read_to_close(), b"");
    answer
}

/// The client is told that the connection ends, and can send all that it has before it reads the
/// answer.
#[test]
fn the_answer_to_a_body_that_nobody_reads_arrives() {
    let host = Host::with("hello.wat", HELLO)
        .file("reads.wat", wat::reads())
        .args(["--native", "--body-max", "1MiB"])
        .start();
    host.settled();
    let post = |path: &str| message("POST", path, &[], body(BYTES_MIN + BYTES_MORE));
    let cases = [
        (post("/hello"), 413),
        (post("/nothing"), 413),
        (post("/reads"), 413),
        (post("/.."), 400),
        (message("POST", "/", &["host: a", "host: b"], body(4 << 20)), 400),
        ([&b"no HTTP at all\r\n\r\n"[..], body(4 << 20)].concat(), 400),
        ([&b"GET / HTTP/1.1\r\nx-long: "[..], body(4 << 20)].concat(), 431),
        (message("POST", "/hello", &[], body(1 << 20)), 200),
        (message("POST", "/native/hello", &[], body(1 << 20)), 200),
        (message("POST", "/nothing", &[], body(1 << 20)), 404),
    ];
    for (bytes, status) in cases {
        for _ in 0..10 {
            let answer = send_and_read(&host, &bytes);
            assert_eq!(answer.status, status, "{answer:?}");
            assert!(answer.closes(), "{answer:?}");
        }
    }
    host.at_rest();
}

/// The same if a connection is refused.
#[test]
fn the_answer_to_a_connection_too_many_arrives() {
    let flags = ["--workers", "1", "--client-connections-max", "1"];
    let host = Host::with("hello.wat", HELLO).args(flags).start();
    let mut held = host.connect();
    assert_eq!(held.get("/hello").status, 200);
    for _ in 0..20 {
        let answer = send_and_read(&host, &message("POST", "/hello", &[], body(100_000)));
        assert_eq!(answer.status, 503, "{answer:?}");
    }
}

/// Such a client does not delay the host's end, either.
#[test]
fn a_client_that_goes_on_sending_does_not_hold_up_the_end() {
    let host = Host::with("hello.wat", HELLO).start();
    let mut connection = host.connect();
    connection.send(message("POST", "/hello", &["content-length: 1000000"], b"part"));
    assert!(connection.read_to("POST").closes());
    host.signal(rustix::process::Signal::TERM);
    let begun = Instant::now();
    assert_eq!(host.wait_exit().code(), Some(0));
    assert!(begun.elapsed() < UNTIL_END, "{:?}", begun.elapsed());
}

/// If an upstream has answered and reads no more of an upload, the host closes both connections:
/// the client's, whether or not the client is still there, and the one to the upstream.
#[test]
fn an_answer_ends_an_upload_that_goes_nowhere() {
    let upstream = TcpListener::bind(("127.0.0.1", 0)).expect("a port");
    let addr = upstream.local_addr().expect("it is bound");
    std::thread::spawn(move || {
        let mut held = Vec::new();
        for mut stream in upstream.incoming().flatten() {
            let mut head = [0; 16];
            // The rest of it is never read.
            let _ = stream.read(&mut head);
            let _ = stream.write_all(b"HTTP/1.1 413 Too Large\r\ncontent-length: 3\r\n\r\nbig");
            held.push(stream);
        }
    });
    let url = format!("http://{addr}");
    let host = Host::with("hello.wat", HELLO);
    let host = host.args(["--upstream", &url, "--stall-timeout", "1s"]).start();
    let before = host.at_rest();
    let upload = || {
        let mut connection = host.connect();
        let head = message("POST", "/upload", &["content-length: 64000000"], b"");
        connection.send(head);
        // More than the kernel takes in both directions.
        let _ = connection.try_send(vec![b'x'; 1 << 20]);
        connection
    };
    let mut stays = upload();
    drop(upload());
    assert_eq!(stays.read_to("POST").status, 413);
    host.status_when("without connections", soon(), |status| status.connections == 0);
    // The kernel gives up undelivered data after four times as long.
    host.status_when("without descriptors", soon(), |status| {
        status.descriptors_used <= before.descriptors_used
    });
}

/// A short body that arrives with its request does not cost the connection.
#[test]
fn a_body_that_is_here_is_dropped_and_the_connection_reused() {
    let host = host();
    for path in ["/hello", "/native/hello", "/nothing"] {
        let mut connection = host.connect();
        for framing in [&[][..], &["transfer-encoding: chunked"]] {
            let body: &[u8] = if framing.is_empty() { b"body" } else { b"4\r\nbody\r\n0\r\n\r\n" };
            let answer = connection.request("POST", path, framing, body);
            assert!(!answer.closes(), "{path} {framing:?}: {answer:?}");
        }
        assert_eq!(connection.get("/hello").text(), "Hello, World!");
    }
    host.at_rest();
}

/// A client that closes its sending half has not disconnected.
#[test]
fn a_client_that_ends_its_side_gets_its_answer() {
    let sleeps = crate::hostile::text("sleep").replace("3600000000000", "50000000");
    let host = Host::with("hello.wat", HELLO)
        .file("sleep.wat", sleeps)
        .file("reads.wat", wat::reads())
        .args(["--native"])
        .start();
    host.settled();
    for _ in 0..20 {
        for (method, path, body) in [
            ("GET", "/hello", &b""[..]),
            ("GET", "/sleep", b""),
            ("POST", "/reads", b"body"),
            ("POST", "/native/fib/27", b"body"),
        ] {
            for version in ["1.1", "1.0"] {
                let request = message(method, path, &[], body);
                let request = String::from_utf8_lossy(&request)
                    .replace("HTTP/1.1", &format!("HTTP/{version}"));
                let mut connection = host.connect();
                connection.send(request);
                connection.finish();
                let answer = connection.read_to(method);
                assert_eq!(answer.status, 200, "{path}: {answer:?}");
                assert!(version == "1.1" || answer.interim.is_empty(), "{answer:?}");
                assert_eq!(connection.read_to_close(), b"");
            }
        }
    }
    host.at_rest();
}

/// The host cannot probe an HTTP/1.0 client by an interim answer, so such a client counts as
/// disconnected after a while.
#[test]
fn a_call_of_an_old_client_that_has_gone_ends() {
    let host = Host::with("loop.wat", wat::spins())
        .args(["--deadline", "10m", "--cpu-max", "10m"])
        .start();
    host.settled();
    let mut connection = host.connect();
    connection.send("GET /loop HTTP/1.0\r\nhost: a\r\n\r\n");
    host.status_when("inside", soon(), |status| status.instances_out == 1);
    drop(connection);
    until("end of the call", soon(), || {
        let status = host.status();
        (status.in_flight == 0 && status.instances_out == 0).then_some(())
    });
}

/// A client that waits for `100 Continue` gets it from any reader of the body, even if the answer
/// begins before.
#[test]
fn continue_goes_ahead_of_an_answer_that_begins_first() {
    let host = Host::demo().start_settled();
    for path in ["/stream/upper", "/native/stream/upper"] {
        for close in [&[][..], &["connection: close"]] {
            let mut connection = host.connect();
            let expect = ["expect: 100-continue", "content-length: 8"];
            let head = message("POST", path, &[&expect[..], close].concat(), b"");
            connection.send(head);
            assert_eq!(connection.read_interim(), 100, "{path}");
            connection.send("a");
            sleep(Duration::from_millis(50));
            connection.send(" body..");
            let answer = connection.read_to("POST");
            assert_eq!((answer.status, answer.text().as_str()), (200, "A BODY.."), "{answer:?}");
            assert_eq!(answer.interim, [0; 0], "{path}: told twice");
        }
    }
    host.at_rest();
}

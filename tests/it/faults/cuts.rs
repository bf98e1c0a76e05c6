//! Exchanges that are cut off after 0, 1, 2 bytes and so on: clients that disconnect, close their
//! sending half or pause within the request, clients that disconnect within the answer, and
//! upstreams that break off their answer.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::sync::atomic::{AtomicUsize, Ordering};

use super::{assert_nothing_left, assert_whole};
use crate::abi::probe::Probe;
use crate::client::message;
use crate::host::{HELLO, Host};
use crate::middleware::upstream::Upstream;
use crate::patience::soon;
use crate::wat;

const BODY: &str = "hello, world";

/// The same request in both framings.
fn requests() -> [Vec<u8>; 2] {
    let coding = ["transfer-encoding: chunked"];
    [
        message("POST", "/echo", &[], BODY.as_bytes()),
        message("POST", "/echo", &coding, b"5\r\nhello\r\n7;a=b\r\n, world\r\n0\r\nx-a: b\r\n\r\n"),
    ]
}

fn host() -> Host {
    Host::with("good.wat", HELLO).file("echo.wat", wat::echoes()).start()
}

#[test]
fn requests_whose_client_goes_away() {
    let host = host();
    for request in requests() {
        for cut in 0..=request.len() {
            host.connect().send(&request[..cut]);
            assert_whole(&host);
        }
    }
}

/// A client that closes its sending half after a request gets its answer. If it does so within the
/// request, the request has ended.
#[test]
fn requests_that_end() {
    let host = host();
    for request in requests() {
        for cut in 0..=request.len() {
            let mut connection = host.connect();
            connection.send(&request[..cut]);
            connection.finish();
            match connection.next("POST").expect("a close or an answer") {
                Some(answer) if cut == request.len() => assert_eq!(answer.text(), BODY),
                Some(answer) => assert_eq!(answer.status, 400, "after {cut} bytes: {answer:?}"),
                None => assert!(cut < request.len(), "no answer to a whole request"),
            }
            drop(connection);
            assert_whole(&host);
        }
    }
}

#[test]
fn requests_in_two_parts() {
    let host = host();
    for request in requests() {
        for cut in 0..=request.len() {
            let mut connection = host.connect();
            connection.send(&request[..cut]);
            // By the time the host has written its status, it has most likely read the first part.
            assert!(host.status().in_flight < 2);
            connection.send(&request[cut..]);
            assert_eq!(connection.read_to("POST").text(), BODY, "after {cut} bytes");
            drop(connection);
            assert_whole(&host);
        }
    }
}

/// The size of a large answer: more than the sockets between host and client hold.
const LARGE: usize = 8 << 20;

/// Sends this, reads this many bytes of the answer, and disconnects. Returns what it has read.
#[track_caller]
fn read_and_leave(host: &Host, path: &str, bytes: usize) -> Vec<u8> {
    let mut stream = TcpStream::connect(host.addr()).expect("a connection");
    stream.set_read_timeout(Some(soon())).expect("a socket");
    stream.write_all(&message("GET", path, &[], b"")).expect("a request");
    let mut read = vec![0; bytes];
    stream.read_exact(&mut read).expect("an answer");
    read
}

#[test]
fn answers_whose_reader_goes_away() {
    let large = Probe::new(
        "(local $left i32)
         (local.set $left #128)
         (loop $more
           (call $write_body #1 #65536 #65536)
           (br_if $more (local.tee $left (i32.sub (local.get $left) #1))))",
    );
    let host = Host::with("good.wat", HELLO).file("large.wat", large.wat()).start();
    // All small answers have this length: a head with a date, and the same body.
    let small = host.get("/good");
    let lines: usize = small.headers.iter().map(|(name, value)| name.len() + value.len() + 4).sum();
    let whole = "HTTP/1.1 200 OK\r\n\r\n".len() + lines + small.body.len();
    for bytes in 0..=whole {
        let read = read_and_leave(&host, "/good", bytes);
        assert!(bytes < whole || read.ends_with(&small.body), "{:?}", String::from_utf8(read));
        assert_whole(&host);
    }
    let doubling = std::iter::successors(Some(1), |bytes| Some(bytes * 2));
    for bytes in std::iter::once(0).chain(doubling.take_while(|bytes| *bytes <= LARGE)) {
        read_and_leave(&host, "/large", bytes);
        assert_whole(&host);
    }
}

/// The client sees a 502 or an answer that is visibly cut off, and never one that looks whole.
#[test]
fn answers_of_an_upstream_that_end() {
    let bodies = [
        format!("content-length: {}\r\n\r\n{BODY}", BODY.len()),
        "transfer-encoding: chunked\r\n\r\n5\r\nhello\r\n7\r\n, world\r\n0\r\n\r\n".to_owned(),
    ];
    for body in bodies {
        let answer = format!("HTTP/1.1 200 OK\r\n{body}");
        let (whole, asked) = (answer.len(), AtomicUsize::new(0));
        let upstream = Upstream::scripted(move |_, stream| {
            let cut = asked.fetch_add(1, Ordering::SeqCst).min(answer.len());
            stream.write_all(&answer.as_bytes()[..cut]).map(|()| false)
        });
        let host = Host::with("good.wat", HELLO).args(["--upstream", &upstream.url("")]).start();
        for cut in 0..=whole {
            let mut connection = host.connect();
            // A GET would be sent again if the upstream closes without an answer, so this is
            // another method.
            connection.send(message("POST", "/", &[], b"x"));
            match connection.next("POST") {
                Ok(Some(answer)) if cut == whole => assert_eq!(answer.text(), BODY),
                Ok(Some(answer)) => answer.assert_problem(502),
                Ok(None) | Err(_) => assert!(cut < whole, "the whole answer was cut"),
            }
            drop(connection);
            assert_whole(&host);
        }
        assert_eq!(upstream.seen().len(), whole + 1);
        assert_nothing_left(&host);
    }
}

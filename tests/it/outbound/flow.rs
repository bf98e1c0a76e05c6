//! How outbound requests are sent: on which connections, how many at a time, for how long, and over
//! how many hops.

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};

use socket2::{Domain, Socket, Type};

use super::{allowing, assert_code, fetch, fetch_with, good};
use crate::client::message;
use crate::component::assert_as_new;
use crate::component::raw_connection::{LAST, RawConnection, chunks};
use crate::host::until;
use crate::middleware::upstream::{Upstream, plain};
use crate::patience::patience;

/// The probe may send to every port of this machine.
const LOCAL: [&str; 1] = ["probe=http://127.0.0.1:*"];

#[test]
fn a_connection_serves_many_requests() {
    let server = good();
    let host = allowing(&LOCAL, &["--workers", "1"]);
    for _ in 0..20 {
        assert_eq!(fetch(&host, &server.url("/")), "200 ok");
    }
    assert_eq!(server.connections().0, 1);
    assert_as_new(&host);
}

/// A server that answers before it has read the whole request closes the connection. A request
/// without a body ends with its head, so it is not sent as one with a chunked body of no chunks.
#[test]
fn a_request_without_a_body_ends_with_its_head() {
    let server = good();
    let host = allowing(&LOCAL, &["--workers", "1"]);
    for method in ["GET", "DELETE", "POST"].into_iter().cycle().take(60) {
        let field = format!("x-method: {method}");
        assert_eq!(fetch_with(&host, "fetch", &server.url("/"), &[&field]), "200 ok");
    }
    for seen in server.seen() {
        assert!(seen.all("transfer-encoding").is_empty(), "{seen:?}");
        // If a body has a meaning for the method, its absence is announced (RFC 9110, 8.6).
        let lengths = if seen.method == "POST" { &["0"][..] } else { &[] };
        assert_eq!(seen.all("content-length"), lengths, "{seen:?}");
    }
    assert_eq!((server.seen().len(), server.connections().0), (60, 1));
    assert_as_new(&host);
}

/// As for the upstream: interim answers without end are an error.
#[test]
fn interim_answers_without_end_are_an_error() {
    let host = allowing(&LOCAL, &["--workers", "1", "--deadline", "1h"]);
    let server = Upstream::scripted(|_, stream| {
        loop {
            stream.write_all(&b"HTTP/1.1 103 Early Hints\r\n\r\n".repeat(1000))?;
        }
    });
    for _ in 0..3 {
        assert_code(&fetch(&host, &server.url("/")), "HttpProtocolError");
    }
    until("its connections are closed", patience(), || (server.connections().1 == 3).then_some(()));
    // They count even if the answer arrives together with them.
    let many = b"HTTP/1.1 103 Early Hints\r\n\r\n".repeat(65);
    let server = Upstream::saying_once([many, plain("200 OK", "", "ok")].concat());
    assert_code(&fetch(&host, &server.url("/")), "HttpProtocolError");
    assert_as_new(&host);
}

/// If a server does not read a body, its connection ends once the sender is gone.
#[test]
fn a_body_that_nobody_takes_is_not_buffered() {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let address = listener.local_addr().expect("an address");
    let host = allowing(&LOCAL, &["--deadline", "1s"]);
    assert_as_new(&host);
    let before = host.descriptors().len();
    let url = format!("x-url: http://{address}/");
    let answer = host.request("GET", "/probe/fetch-flood", &[&url, "x-method: POST"], b"");
    answer.assert_problem(504);
    let deadline = Instant::now() + patience();
    while host.descriptors().len() > before {
        assert!(Instant::now() < deadline, "{:?}, not {before}", host.descriptors());
        std::thread::sleep(Duration::from_millis(5));
    }
    assert_as_new(&host);
    // The same with an answer, and with as much time as needed.
    let host = allowing(&LOCAL, &["--deadline", "60s", "--outbound-timeout", "500ms"]);
    let told = fetch_with(&host, "fetch-flood", &format!("http://{address}/"), &["x-method: POST"]);
    assert_eq!(told, "not taken");
    assert_as_new(&host);
}

/// The body of a request may be written before the request is sent.
#[test]
fn a_body_may_be_written_before_its_request_is_sent() {
    if super::is_03() {
        return;
    }
    let server = good();
    let host = allowing(&LOCAL, &["--workers", "1"]);
    for (number, kib) in [0, 1, 4, 5, 300, 700].into_iter().enumerate() {
        let url = format!("x-url: {}", server.url("/"));
        let path = format!("/probe/fetch-written?{kib}");
        let answer = host.request("GET", &path, &[&url, "x-method: POST"], b"");
        assert_eq!((answer.status, answer.text().as_str()), (200, "200 ok"), "{kib} KiB");
        assert_eq!(server.seen()[number].body.len(), kib << 10);
    }
    assert_as_new(&host);
}

/// If a guest's calls go on in the slow lane, another thread sends the request.
#[test]
fn a_guest_may_compute_before_it_sends() {
    let server = good();
    let host = allowing(&LOCAL, &["--workers", "1"]);
    for _ in 0..10 {
        assert_eq!(fetch_with(&host, "fetch-late", &server.url("/"), &[]), "200 ok");
    }
    assert_eq!(server.connections().0, 1);
    assert_as_new(&host);
}

/// A request does not fail because the server has closed a pooled connection, whether or not the
/// host has noticed.
#[test]
fn a_connection_that_was_closed_is_replaced() {
    let server = Upstream::saying_once(plain("200 OK", "", "ok"));
    let host = allowing(&LOCAL, &["--workers", "1"]);
    for number in 1..=20 {
        assert_eq!(fetch(&host, &server.url("/")), "200 ok");
        assert_eq!(server.seen().len(), number);
    }
    // The second request on a connection is read, and not answered.
    let seen = Arc::new(AtomicUsize::new(0));
    let counted = seen.clone();
    let server = Upstream::scripted(move |_, stream| {
        if counted.fetch_add(1, Ordering::SeqCst) == 1 {
            return Ok(false);
        }
        stream.write_all(&plain("200 OK", "", "ok"))?;
        Ok(true)
    });
    assert_eq!(fetch(&host, &server.url("/")), "200 ok");
    assert_eq!(fetch(&host, &server.url("/")), "200 ok");
    assert_eq!(seen.load(Ordering::SeqCst), 3);
    // A request that may have had an effect is not sent twice.
    let seen = Arc::new(AtomicUsize::new(0));
    let counted = seen.clone();
    let server = Upstream::scripted(move |_, stream| {
        if counted.fetch_add(1, Ordering::SeqCst) == 1 {
            return Ok(false);
        }
        stream.write_all(&plain("200 OK", "", "ok"))?;
        Ok(true)
    });
    assert_eq!(fetch(&host, &server.url("/")), "200 ok");
    let told = fetch_with(&host, "fetch", &server.url("/"), &["x-method: POST"]);
    assert_code(&told, "ConnectionTerminated");
    assert_eq!(seen.load(Ordering::SeqCst), 2);
    assert_as_new(&host);
}

#[test]
fn so_many_requests_are_in_flight_and_as_many_wait() {
    let (now, most) = (AtomicUsize::new(0), Arc::new(AtomicUsize::new(0)));
    let counted = most.clone();
    let server = Upstream::scripted(move |_, stream| {
        let others = now.fetch_add(1, Ordering::SeqCst);
        counted.fetch_max(others + 1, Ordering::SeqCst);
        // The server is slow, so that the next requests have to wait.
        std::thread::sleep(Duration::from_millis(100));
        now.fetch_sub(1, Ordering::SeqCst);
        stream.write_all(&plain("200 OK", "", "ok"))?;
        Ok(true)
    });
    let host = allowing(&LOCAL, &["--workers", "1", "--outbound-max", "3"]);
    let told = fetch_with(&host, "fetch-many", &server.url("/"), &["x-times: 10"]);
    assert!(told.contains("6 x 200 ok"), "{told}");
    assert!(told.contains("4 x ") && told.contains("ConnectionLimitReached"), "{told}");
    assert_eq!((most.load(Ordering::SeqCst), server.connections().0), (3, 3));
    // A request that waits for longer than its connect timeout fails.
    let fields = ["x-times: 6", "x-connect: 50"];
    let told = fetch_with(&host, "fetch-many", &server.url("/"), &fields);
    assert!(told.contains("3 x 200 ok"), "{told}");
    assert!(told.contains("3 x ") && told.contains("ConnectionLimitReached"), "{told}");
    assert_as_new(&host);
}

/// A server that accepts connections and sends nothing, or no more than this.
fn mute(says: &'static [u8]) -> Upstream {
    Upstream::scripted(move |_, stream| {
        stream.write_all(says)?;
        // Until the host closes the connection.
        let _ = stream.read(&mut [0]);
        Ok(false)
    })
}

/// A port that accepts no more connections, because its backlog is full.
fn full() -> (SocketAddr, Vec<TcpStream>, Socket) {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None).expect("a socket");
    socket.bind(&SocketAddr::from(([127, 0, 0, 1], 0)).into()).expect("a port");
    socket.listen(0).expect("a listener");
    let address = socket.local_addr().expect("an address").as_socket().expect("of IPv4");
    let mut waiting = Vec::new();
    while let Ok(one) = TcpStream::connect_timeout(&address, Duration::from_millis(500)) {
        waiting.push(one);
        assert!(waiting.len() < 100, "it has no end");
    }
    (address, waiting, socket)
}

#[test]
fn every_wait_has_an_end() {
    /// The waits end before it.
    const DEADLINE: Duration = Duration::from_secs(60);
    let host = allowing(&LOCAL, &["--deadline", "60s"]);
    let (address, _waiting, _listener) = full();
    let begun = Instant::now();
    let told = fetch_with(&host, "fetch", &format!("http://{address}/"), &["x-connect: 300"]);
    assert_code(&told, "ConnectionTimeout");
    let server = mute(b"");
    let told = fetch_with(&host, "fetch", &server.url("/"), &["x-first-byte: 300"]);
    assert_code(&told, "ConnectionReadTimeout");
    let part = mute(b"HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\npart");
    let told = fetch_with(&host, "fetch", &part.url("/"), &["x-between-bytes: 300"]);
    assert_code(&told, "ConnectionReadTimeout");
    assert!(begun.elapsed() < DEADLINE, "{:?}", begun.elapsed());
    assert_as_new(&host);
    // No guest waits for longer than the host's limit.
    let host = allowing(&LOCAL, &["--deadline", "60s", "--outbound-timeout", "200ms"]);
    for fields in [&["x-first-byte: 3600000"][..], &[]] {
        let begun = Instant::now();
        let told = fetch_with(&host, "fetch", &server.url("/"), fields);
        assert_code(&told, "ConnectionReadTimeout");
        assert!(begun.elapsed() < DEADLINE, "{:?}", begun.elapsed());
    }
    assert_as_new(&host);
}

/// A server with one connection that sends back what it receives: chunks for chunks. At the end of
/// the connection it reports what it got.
pub fn raw() -> (SocketAddr, Receiver<Vec<u8>>) {
    const HEAD: &[u8] = b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n";
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let address = listener.local_addr().expect("an address");
    let (all, whole) = channel();
    std::thread::spawn(move || {
        let (mut stream, _) = listener.accept().expect("a connection");
        let (mut came, mut given, mut piece) = (Vec::new(), None, [0; 4096]);
        while let Ok(count @ 1..) = stream.read(&mut piece) {
            came.extend_from_slice(&piece[..count]);
            if given.is_none() {
                given = came.windows(4).position(|it| it == b"\r\n\r\n").map(|at| at + 4);
                if given.is_some() {
                    let _ = stream.write_all(HEAD);
                }
            }
            if let Some(at) = &mut given {
                let _ = stream.write_all(&came[*at..]);
                *at = came.len();
            }
        }
        let _ = all.send(came);
    });
    (address, whole)
}

/// Both directions at once, and nothing is held back.
#[test]
fn bodies_stream_in_both_directions() {
    let (address, whole) = raw();
    let host = allowing(&LOCAL, &[]);
    let url = format!("x-url: http://{address}/");
    let fields = [url.as_str(), "x-method: POST", "transfer-encoding: chunked"];
    let mut raw = RawConnection::open(&host, message("POST", "/probe/relay", &fields, b""));
    for number in 0..20 {
        let piece = format!("piece {number};");
        raw.send(chunks(piece.as_bytes(), piece.len()));
        let came = raw.wait_for(&piece);
        assert!(!came.ends_with(LAST), "{came}");
    }
    raw.send(LAST);
    raw.wait_for("\r\n0\r\n\r\n");
    drop(raw);
    assert_as_new(&host);
    drop(host);
    let came = whole.recv_timeout(patience()).expect("the connection ends with the host");
    assert!(came.ends_with(LAST.as_bytes()), "{}", String::from_utf8_lossy(&came));
}

/// If a guest does not finish a message, it never looks finished to the server.
#[test]
fn a_body_that_is_not_finished_is_cut_off() {
    let host = allowing(&LOCAL, &[]);
    let ends =
        [("fetch-trap", 500, ""), ("fetch-drop", 200, "Incomplete"), ("fetch-leave", 200, "")];
    for (behaviour, status, told) in ends {
        let (address, whole) = raw();
        let url = format!("x-url: http://{address}/");
        let path = format!("/probe/{behaviour}");
        let answer = host.request("GET", &path, &[&url, "x-method: POST"], b"");
        assert_eq!(answer.status, status, "{behaviour}: {}", answer.text());
        assert!(answer.text().contains(told), "{behaviour}: {}", answer.text());
        let came = whole.recv_timeout(patience()).expect("the host closes the connection");
        let came = String::from_utf8_lossy(&came).into_owned();
        assert!(came.contains("part") && !came.ends_with(LAST), "{behaviour}: {came}");
        assert_as_new(&host);
    }
}

/// If a client disconnects, the server that its guest has asked notices.
#[test]
fn a_client_that_goes_takes_its_requests_along() {
    let server = mute(b"");
    let host = allowing(&LOCAL, &["--deadline", "1h"]);
    let url = format!("x-url: {}", server.url("/"));
    let mut raw = RawConnection::open(&host, message("GET", "/probe/fetch-hold", &[&url], b""));
    raw.wait_for("begun");
    let until = |count: (usize, usize)| {
        let deadline = Instant::now() + patience();
        while server.connections() != count {
            assert!(Instant::now() < deadline, "{:?} connections", server.connections());
            std::thread::sleep(Duration::from_millis(5));
        }
    };
    until((1, 0));
    drop(raw);
    until((1, 1));
    assert_as_new(&host);
    // The same for a guest that has not answered yet, and is stopped at its deadline.
    let host = allowing(&LOCAL, &["--deadline", "300ms"]);
    host.request("GET", "/probe/fetch", &[&url], b"").assert_problem(504);
    until((2, 2));
    assert_as_new(&host);
}

/// A body with a length is sent to its end, and the guest gets no error. If the server keeps the
/// connection, the next request uses it.
#[test]
fn a_body_with_its_length_is_sent() {
    let server = good();
    let host = allowing(&LOCAL, &["--workers", "1"]);
    for _ in 0..3 {
        let fields = ["x-method: POST", "x-content-length: 9"];
        let told = fetch_with(&host, "fetch-upload", &server.url("/"), &fields);
        assert_eq!(told, "200 ok");
        let seen = server.seen().pop().expect("a request");
        assert_eq!(seen.all("content-length"), ["9"]);
        assert_eq!(seen.all("transfer-encoding"), [""; 0]);
        assert_eq!(seen.body, b"some body");
    }
    assert_eq!(server.connections().0, 1);
    assert_as_new(&host);
}

/// Trailers that a guest has announced reach the server, even if it has set a length as well.
#[test]
fn trailers_of_a_request_are_sent() {
    let server = good();
    let host = allowing(&LOCAL, &["--workers", "1"]);
    for length in [&[][..], &["x-content-length: 9"]] {
        for method in ["x-method: POST", "x-method: GET"] {
            let fields = [&[method, "x-trailer: x-checksum"], length].concat();
            let told = fetch_with(&host, "fetch-upload", &server.url("/"), &fields);
            assert_eq!(told, "200 ok");
            let seen = server.seen().pop().expect("a request");
            assert_eq!(seen.all("trailer"), ["x-checksum"]);
            assert_eq!(seen.all("content-length"), [""; 0]);
            assert_eq!(seen.body, b"some body");
            assert_eq!(seen.trailers, [("x-checksum".to_owned(), "end".to_owned())]);
        }
    }
    assert_as_new(&host);
}

/// A response whose framing can be read in two ways is refused.
#[test]
fn a_response_with_ambiguous_framing_is_refused() {
    let host = allowing(&LOCAL, &[]);
    for head in [
        "transfer-encoding: gzip, chunked\r\n",
        "transfer-encoding: chunked\r\ncontent-length: 2\r\n",
        "transfer-encoding: gzip\r\n",
        "content-length: 2\r\ncontent-length: 3\r\n",
    ] {
        let answer = format!("HTTP/1.1 200 OK\r\n{head}\r\n2\r\nok\r\n0\r\n\r\n");
        let server = Upstream::saying_once(answer);
        assert_code(&fetch(&host, &server.url("/")), "HttpProtocolError");
    }
    assert_as_new(&host);
}

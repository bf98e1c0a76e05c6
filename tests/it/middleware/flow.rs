//! Bodies on their way through the host: they are passed on as they arrive, and the host holds no
//! more than the receiver is behind.

use std::io::{self, BufRead as _, BufReader, Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, mpsc};
use std::time::Duration;

use super::before;
use super::upstream::{Upstream, plain};
use crate::abi::probe::Probe;
use crate::client::Connection;
use crate::host::{HELLO, Host, until};
use crate::patience::patience;

/// Paths through the host: without a guest, with a guest that passes on, and with one that also
/// sees the head of the answer.
const PATHS: [&str; 3] = ["/", "/passing", "/watching"];

fn start(upstream: &Upstream) -> Host {
    before(upstream)
        .file("passing.wat", Probe::new("").next().wat())
        .file("watching.wat", Probe::new("").next().response("").wat())
        .args(["--workers", "1"])
        .start()
}

/// A connection on which a GET was sent. The test reads its bytes as they arrive.
fn ask(host: &Host, path: &str) -> TcpStream {
    let mut stream = TcpStream::connect(host.addr()).expect("a connection");
    stream.set_read_timeout(Some(patience())).expect("a socket");
    let request = format!("GET {path} HTTP/1.1\r\nhost: guest.test\r\nconnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).expect("it is sent");
    stream
}

/// Interim answers are counted, and an upstream that sends nothing else fails.
#[test]
fn interim_answers_without_end_are_no_answer() {
    let upstream = Upstream::scripted(|_, stream| {
        loop {
            stream.write_all(&b"HTTP/1.1 103 Early Hints\r\n\r\n".repeat(1000))?;
        }
    });
    // The number that some servers send is not too many.
    let patient = Upstream::saying(
        [b"HTTP/1.1 103 Early Hints\r\n\r\n".repeat(20), plain("200 OK", "", "ok")].concat(),
    );
    let host = before(&upstream).args(["--workers", "1", "--deadline", "1h"]).start();
    for _ in 0..3 {
        host.get("/").assert_problem(502);
        host.wait_log_with(&["1xx without end"]);
    }
    until("its connections are closed", patience(), || {
        (upstream.connections().1 == 3).then_some(())
    });
    host.at_rest();
    let host = before(&patient).start();
    assert_eq!(host.get("/").text(), "ok");
    // They count even if the answer arrives together with them.
    let many = b"HTTP/1.1 103 Early Hints\r\n\r\n".repeat(65);
    let upstream = Upstream::saying_once([many, plain("200 OK", "", "ok")].concat());
    before(&upstream).start().get("/").assert_problem(502);
}

/// Reads until this text was received.
#[track_caller]
fn read_until(stream: &mut TcpStream, wanted: &str) -> String {
    let mut text = String::new();
    let mut bytes = [0; 4096];
    while !text.contains(wanted) {
        let count = stream.read(&mut bytes).expect("more of the response");
        assert!(count > 0, "it ended before {wanted:?}: {text:?}");
        text += &String::from_utf8_lossy(&bytes[..count]);
    }
    text
}

/// The client gets the first piece of a response while the upstream holds back the second.
#[test]
fn a_response_leaves_as_it_comes() {
    let (go_on, may_go_on) = mpsc::channel();
    let may_go_on = Mutex::new(may_go_on);
    let upstream = Upstream::scripted(move |_, stream| {
        stream.write_all(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n5\r\nfirst\r\n")?;
        let may_go_on = may_go_on.lock().expect("one request after the other");
        may_go_on.recv().map_err(io::Error::other)?;
        stream.write_all(b"6\r\nsecond\r\n0\r\n\r\n").map(|()| true)
    });
    let host = start(&upstream);
    for path in PATHS {
        let mut stream = ask(&host, path);
        let text = read_until(&mut stream, "first");
        assert!(!text.contains("second"), "{path}: {text}");
        go_on.send(()).expect("the upstream waits");
        read_until(&mut stream, "second");
        host.at_rest();
    }
}

/// The upstream gets the first piece of a request while the client holds back the second.
#[test]
fn a_request_leaves_as_it_comes() {
    let upstream = Upstream::saying(plain("200 OK", "", "taken"));
    let host = start(&upstream);
    for path in PATHS {
        for (framing, end) in
            [("content-length: 9", ""), ("transfer-encoding: chunked", "0\r\n\r\n")]
        {
            let before = upstream.body_bytes();
            let mut connection = host.connect();
            connection
                .send(format!("POST {path} HTTP/1.1\r\nhost: guest.test\r\n{framing}\r\n\r\n"));
            for (index, text) in ["one", "two", "six"].iter().enumerate() {
                match end {
                    "" => connection.send(text),
                    _ => connection.send(format!("3\r\n{text}\r\n")),
                }
                let what = format!("piece {index} of {path} with {framing}");
                until(&what, patience(), || {
                    (upstream.body_bytes() == before + 3 * (index + 1)).then_some(())
                });
            }
            connection.send(end);
            assert_eq!(connection.read().text(), "taken");
            let seen = upstream.seen().pop().expect("a request");
            assert_eq!(seen.body, b"onetwosix");
            let framed = [seen.all("content-length"), seen.all("transfer-encoding")].concat();
            assert_eq!(framed.len(), 1, "{framing}: {seen:?}");
        }
    }
    host.at_rest();
}

/// Accepts one connection, answers each head on it before it reads the body, and reports the
/// bodies.
fn hasty() -> (String, mpsc::Receiver<String>) {
    let listener = TcpListener::bind(("127.0.0.1", 0)).expect("a free port");
    let url = format!("http://{}", listener.local_addr().expect("an address"));
    let (told, bodies) = mpsc::channel();
    std::thread::spawn(move || -> io::Result<()> {
        let mut stream = BufReader::new(listener.accept()?.0);
        loop {
            let (mut line, mut bytes) = (String::new(), 0);
            while line != "\r\n" {
                line.clear();
                if stream.read_line(&mut line)? == 0 {
                    return Ok(());
                }
                let length = line.strip_prefix("content-length: ");
                bytes = length.map_or(bytes, |length| length.trim().parse().unwrap_or(0));
            }
            stream.get_mut().write_all(&plain("200 OK", "", "ok"))?;
            let mut body = vec![0; bytes];
            stream.read_exact(&mut body)?;
            let _ = told.send(String::from_utf8_lossy(&body).into_owned());
        }
    });
    (url, bodies)
}

/// The rest of a request's body still arrives after the complete answer. After it, the connection
/// takes the next request.
#[test]
fn a_request_goes_on_behind_its_answer() {
    let (url, bodies) = hasty();
    let host = Host::with("good.wat", HELLO).args(["--workers", "1", "--upstream", &url]).start();
    let mut connection = host.connect();
    for _ in 0..3 {
        connection.send("POST / HTTP/1.1\r\nhost: guest.test\r\ncontent-length: 6\r\n\r\nabc");
        assert_eq!(connection.read().text(), "ok");
        connection.send("def");
        assert_eq!(bodies.recv_timeout(patience()).expect("all of it arrives"), "abcdef");
        // It is the only connection that is accepted.
        assert_eq!(host.get("/").text(), "ok");
        assert_eq!(bodies.recv_timeout(patience()).expect("the next"), "");
    }
    host.at_rest();
}

/// Such a request keeps its place until then, so that one client cannot have all connections.
#[test]
fn uploads_behind_their_answers_have_places() {
    let listener = TcpListener::bind(("127.0.0.1", 0)).expect("a free port");
    let url = format!("http://{}", listener.local_addr().expect("an address"));
    let connections = Arc::new(AtomicUsize::new(0));
    let counted = connections.clone();
    std::thread::spawn(move || {
        for mut stream in listener.incoming().map_while(Result::ok) {
            counted.fetch_add(1, Ordering::SeqCst);
            std::thread::spawn(move || -> io::Result<()> {
                let mut reader = BufReader::new(stream.try_clone()?);
                let mut line = String::new();
                while line != "\r\n" {
                    line.clear();
                    if reader.read_line(&mut line)? == 0 {
                        return Ok(());
                    }
                }
                stream.write_all(&plain("200 OK", "", "ok"))?;
                io::copy(&mut reader, &mut io::sink()).map(|_| ())
            });
        }
    });
    let flags = ["--workers", "1", "--upstream", &url, "--stall-timeout", "60s"];
    let host = Host::with("good.wat", HELLO).args(flags).start();
    let greedy: Vec<_> = (0..300)
        .map(|_| {
            let mut connection = Connection::open_from([127, 0, 0, 2].into(), host.addr());
            connection.send("POST / HTTP/1.1\r\nhost: a.test\r\ncontent-length: 1000\r\n\r\nabc");
            connection
        })
        .collect();
    host.status_when("all", patience(), |status| status.requests == 300);
    assert_eq!(host.get("/").text(), "ok");
    // One client may have three quarters of 256 places.
    let open = connections.load(Ordering::SeqCst);
    assert!(open <= 193, "{open} connections");
    drop(greedy);
    host.at_rest();
}

#[test]
fn a_large_response_is_whole() {
    const BYTES: usize = 10 << 20;
    let body: String = (0..BYTES / 8).map(|at| format!("{at:07x}\n")).collect();
    let whole = body.clone();
    let upstream = Upstream::scripted(move |seen, stream| {
        if seen.target != "/chunked" {
            return stream.write_all(&plain("200 OK", "", &whole)).map(|()| true);
        }
        stream.write_all(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n")?;
        for chunk in whole.as_bytes().chunks(50_000) {
            write!(stream, "{:x}\r\n", chunk.len())?;
            stream.write_all(chunk)?;
            stream.write_all(b"\r\n")?;
        }
        stream.write_all(b"0\r\n\r\n").map(|()| true)
    });
    let host = start(&upstream);
    let mut connection = host.connect();
    for path in ["/", "/passing", "/watching", "/chunked"] {
        let answer = connection.get(path);
        assert_eq!(answer.status, 200, "{path}");
        assert!(answer.text() == body, "{path}: {} bytes", answer.body.len());
    }
    host.at_rest();
}

/// If a client does not read, the upstream is stopped: the host holds a limited part of the
/// response.
#[test]
fn a_client_that_does_not_read_stops_the_upstream() {
    const BYTES: usize = 128 << 20;
    /// The most bytes that the host and the kernel's buffers of two connections may hold.
    const HELD_BYTES_MAX: usize = 48 << 20;
    /// How long a write has to wait to count as stopped. It need not be exact.
    const STOPPED: Duration = Duration::from_millis(300);
    let stopped_at = Arc::new(AtomicUsize::new(0));
    let note = stopped_at.clone();
    let upstream = Upstream::scripted(move |_, stream| {
        write!(stream, "HTTP/1.1 200 OK\r\ncontent-length: {BYTES}\r\n\r\n")?;
        stream.set_write_timeout(Some(STOPPED))?;
        let piece = vec![b'x'; 1 << 16];
        let mut sent = 0;
        while sent < BYTES {
            match stream.write(&piece[..piece.len().min(BYTES - sent)]) {
                Ok(count) => sent += count,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    note.store(sent, Ordering::SeqCst);
                }
                Err(error) => return Err(error),
            }
        }
        Ok(true)
    });
    let host = start(&upstream);
    let mut stream = ask(&host, "/");
    let stopped = until("stop of the upstream", patience(), || {
        Some(stopped_at.load(Ordering::SeqCst)).filter(|bytes| *bytes > 0)
    });
    assert!(stopped < HELD_BYTES_MAX, "{} MiB were held", stopped >> 20);
    // The worker serves others meanwhile, and the response is complete in the end.
    host.assert_serves("/good");
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).expect("the rest");
    let head = answer.windows(4).position(|it| it == b"\r\n\r\n").expect("a head") + 4;
    assert_eq!(answer.len() - head, BYTES);
    host.at_rest();
}

/// If a guest only handles the head, the response is not held, whatever its size.
#[test]
fn an_instance_is_back_before_the_response_ends() {
    let (go_on, may_go_on) = mpsc::channel();
    let may_go_on = Mutex::new(may_go_on);
    let upstream = Upstream::scripted(move |_, stream| {
        stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\nfirst")?;
        let may_go_on = may_go_on.lock().expect("one request after the other");
        may_go_on.recv().map_err(io::Error::other)?;
        stream.write_all(b"and b").map(|()| true)
    });
    let host = start(&upstream);
    for path in ["/passing", "/watching"] {
        let mut stream = ask(&host, path);
        read_until(&mut stream, "first");
        host.status_when("given back", patience(), |status| status.instances_out == 0);
        go_on.send(()).expect("the upstream waits");
        read_until(&mut stream, "and b");
    }
    host.at_rest();
}

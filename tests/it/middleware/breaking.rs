//! Upstreams that are down, silent or broken: the answer to the client, and that nothing is left
//! behind.

use std::io::{Read as _, Write as _};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use socket2::SockRef;

use super::before;
use super::upstream::{Upstream, abrupt, plain, reset};
use crate::abi::probe::Probe;
use crate::component::raw_connection::RawConnection;
use crate::host::{HELLO, Host, Line};
use crate::patience::patience;

/// An address without a server: a port that was free a moment ago.
fn nowhere() -> String {
    let listener = TcpListener::bind(("127.0.0.1", 0)).expect("a free port");
    format!("http://{}", listener.local_addr().expect("an address"))
}

/// Passes on, and answers with the context, whether there was an error, and the status.
fn telling() -> Probe {
    Probe::new("(drop (call $enable_features #2))").next().response(
        "(call $int (local.get $context)) (call $int (local.get $is_error))
         (call $int (call $get_status_code))",
    )
}

#[test]
fn an_upstream_that_is_down_is_a_502() {
    let host = Host::with("good.wat", HELLO)
        .file("telling.wat", telling().wat())
        .file("passing.wat", Probe::new("").next().wat())
        .args(["--upstream", &nowhere()])
        .start();
    host.get("/").assert_problem(502);
    host.request("POST", "/", &[], b"body").assert_problem(502);
    host.get("/passing").assert_problem(502);
    // A guest that handles responses gets the host's own answer, and may replace it.
    let answer = host.get("/telling");
    assert_eq!((answer.status, answer.text()), (502, "7\n1\n502\n".to_owned()));
    host.assert_serves("/good");
    assert_eq!(host.at_rest().rejects("upstream_failed"), 4);
}

/// Any client can make requests fail as often as it likes, so the log must not grow with them.
#[test]
fn what_fails_too_fast_is_not_all_listed() {
    let host = Host::with("good.wat", HELLO).args(["--upstream", &nowhere()]).start();
    let mut connection = host.connect();
    let deadline = Instant::now() + patience();
    let is_told = |line: &Line| line.has(&["more requests failed, too fast to be listed"]);
    while !host.lines().iter().any(is_told) {
        assert!(Instant::now() < deadline, "all of them are listed");
        connection.send("GET / HTTP/1.1\r\nhost: guest.test\r\n\r\n".repeat(50));
        (0..50).for_each(|_| connection.read().assert_problem(502));
    }
    let failed = host.at_rest().rejects("upstream_failed");
    let listed = host.lines().iter().filter(|it| it.message().starts_with("upstream ")).count();
    assert!(listed > 0 && listed < failed as usize, "{listed} of {failed}");
}

#[test]
fn an_upstream_that_is_silent_is_a_504() {
    let upstream = Upstream::scripted(|_, _| {
        std::thread::park();
        Ok(false)
    });
    let host = before(&upstream)
        .file("telling.wat", telling().wat())
        .args(["--deadline", "300ms"])
        .start();
    host.settled();
    host.get("/").assert_problem(504);
    let answer = host.get("/telling");
    // There may be no time left for the guest to handle the response.
    assert_eq!(answer.status, 504, "{}", answer.text());
    host.assert_serves("/good");
    let rest = host.at_rest();
    assert!(rest.rejects("upstream_deadline") >= 2, "{rest:?}");
}

#[test]
fn an_answer_that_is_not_http_is_a_502() {
    for bytes in [
        "",
        "garbage\r\n\r\n",
        "HTTP/1.1 200",
        "HTTP/1.1 200 OK\r\nbad header\r\n\r\n",
        "HTTP/1.1 200 OK\r\ncontent-length: 1\r\ncontent-length: 2\r\n\r\nab",
        "HTTP/1.1 200 OK\r\ncontent-length: -1\r\n\r\n",
        "HTTP/1.1 99 Low\r\ncontent-length: 0\r\n\r\n",
        "HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: x\r\n\r\n",
    ] {
        let upstream = Upstream::saying_once(bytes);
        let host = before(&upstream).start();
        let answer = host.get("/");
        assert_eq!(answer.status, 502, "{bytes:?}: {}", answer.text());
        answer.assert_problem(502);
        host.assert_serves("/good");
        host.at_rest();
    }
}

/// An upstream may close an idle connection at any time. A request that meets the close is sent
/// again, unless it may have had an effect. If a new connection is closed without an answer, the
/// request is not sent again.
#[test]
fn a_connection_that_the_upstream_closes_loses_no_request() {
    for resets in [false, true] {
        let seen = Arc::new(AtomicUsize::new(0));
        let counted = seen.clone();
        // Every second request on a connection is read, and not answered.
        let upstream = Upstream::scripted(move |_, stream| {
            if counted.fetch_add(1, Ordering::SeqCst) % 2 == 1 {
                if resets {
                    SockRef::from(&*stream).set_linger(Some(Duration::ZERO))?;
                }
                return Ok(false);
            }
            stream.write_all(&plain("200 OK", "", "ok"))?;
            Ok(true)
        });
        let host = before(&upstream).args(["--workers", "1"]).start();
        for method in ["GET", "GET", "OPTIONS", "GET"] {
            let answer = host.request(method, "/", &[], b"");
            assert_eq!((answer.status, answer.text().as_str()), (200, "ok"), "{method}");
        }
        // The first request is answered. Each of the others is read twice.
        assert_eq!(seen.load(Ordering::SeqCst), 7);
        host.request("POST", "/", &[], b"").assert_problem(502);
        assert_eq!(seen.load(Ordering::SeqCst), 8);
        host.get("/");
        host.request("GET", "/", &[], b"body").assert_problem(502);
        assert_eq!(seen.load(Ordering::SeqCst), 10);
        host.at_rest();
    }
    let upstream = Upstream::scripted(|_, _| Ok(false));
    let host = before(&upstream).start();
    host.get("/").assert_problem(502);
    assert_eq!(upstream.seen().len(), 1);
}

/// If an upstream answers and closes while the body is still being sent, the body resets the
/// connection. The answer has come before.
#[test]
fn an_answer_before_a_reset_is_an_answer() {
    let url = abrupt(&plain("413 No", "connection: close\r\n", "large"), |_| ());
    let host = Host::with("good.wat", HELLO).args(["--upstream", &url]).start();
    for _ in 0..20 {
        let answer = host.request("POST", "/", &[], &vec![b'x'; 5_000_000]);
        assert_eq!((answer.status, answer.text().as_str()), (413, "large"));
    }
    host.at_rest();
}

/// The host's writer notices a reset first. Its reader then sees an end of the connection that is
/// not the end of the answer.
#[test]
fn an_answer_that_a_reset_breaks_off_is_not_complete() {
    let url = abrupt(b"HTTP/1.1 200 OK\r\n\r\nthe beginning", reset);
    let host = Host::with("good.wat", HELLO).args(["--upstream", &url, "--workers", "1"]).start();
    for _ in 0..40 {
        let mut client = TcpStream::connect(host.addr()).expect("the host");
        let mut writer = client.try_clone().expect("a descriptor");
        let uploading = std::thread::spawn(move || {
            let head = "POST / HTTP/1.1\r\nhost: guest.test\r\ntransfer-encoding: chunked\r\n\r\n";
            let mut sent = writer.write_all(head.as_bytes());
            while sent.is_ok() {
                sent = writer.write_all(b"4\r\nbody\r\n");
            }
        });
        let mut answer = Vec::new();
        // The answer ends when the host closes the connection.
        let mut piece = [0; 4_096];
        while let Ok(read @ 1..) = client.read(&mut piece) {
            answer.extend_from_slice(&piece[..read]);
            if answer.ends_with(b"0\r\n\r\n") {
                break;
            }
        }
        let _ = client.shutdown(Shutdown::Both);
        uploading.join().expect("it ends with its connection");
        let answer = String::from_utf8_lossy(&answer);
        let is_whole = answer.starts_with("HTTP/1.1 200") && answer.ends_with("0\r\n\r\n");
        assert!(!is_whole, "{answer}");
    }
    host.at_rest();
}

/// The limit on heads also applies to the upstream's.
#[test]
fn an_endless_head_is_a_502() {
    let upstream = Upstream::scripted(|_, stream| {
        stream.write_all(b"HTTP/1.1 200 OK\r\n")?;
        loop {
            stream.write_all(b"x-more: and more and more and more and more\r\n")?;
        }
    });
    let host = before(&upstream).start();
    host.get("/").assert_problem(502);
    host.assert_serves("/good");
    host.at_rest();
}

/// A response that breaks off does not look complete. Nor does it look as if it had never begun,
/// because a client would then assume that the server has not seen the request.
#[test]
fn a_response_that_breaks_off_is_broken_for_the_client() {
    const CHUNKED: &str = "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n";
    for (bytes, body) in [
        ("HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\n".to_owned(), ""),
        ("HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\nonly this".to_owned(), "only this"),
        (format!("{CHUNKED}9\r\nonly this\r\n"), "9\r\nonly this\r\n"),
        (format!("{CHUNKED}not a chunk\r\n"), ""),
    ] {
        let upstream = Upstream::saying_once(bytes.clone());
        let host = before(&upstream).start();
        for _ in 0..10 {
            let raw = RawConnection::open(&host, "GET / HTTP/1.1\r\nhost: guest.test\r\n\r\n");
            let came = String::from_utf8_lossy(&raw.rest()).into_owned();
            assert!(came.starts_with("HTTP/1.1 200 "), "{bytes:?}: {came:?}");
            assert!(came.ends_with(&format!("\r\n\r\n{body}")), "{bytes:?}: {came:?}");
        }
        host.assert_serves("/good");
        host.at_rest();
    }
}

/// A guest that wants the whole response never sees a part of it.
#[test]
fn a_buffered_response_that_breaks_off_is_a_502() {
    let upstream = Upstream::saying_once("HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\nonly this");
    let host = before(&upstream).file("telling.wat", telling().wat()).start();
    host.get("/telling").assert_problem(502);
    host.assert_serves("/good");
    host.at_rest();
}

#[test]
fn a_buffered_response_over_the_limit_is_a_502() {
    let sized = |bytes: usize| {
        let upstream = Upstream::saying(plain("200 OK", "", &"x".repeat(bytes)));
        let watching = Probe::new("(drop (call $enable_features #2))").next().response("");
        let host = before(&upstream)
            .file("watching.wat", watching.wat())
            .args(["--response-max", "10000"])
            .start();
        let answer = host.get("/watching");
        // A response that is only passed through is not held, so it has no limit.
        assert_eq!(host.get("/").body.len(), bytes);
        host.at_rest();
        answer
    };
    assert_eq!(sized(10_000).body.len(), 10_000);
    sized(10_001).assert_problem(502);
}

/// The limit on request bodies also applies while a request is forwarded.
#[test]
fn a_request_over_the_limit_is_a_413() {
    let upstream = Upstream::saying(plain("200 OK", "", "taken"));
    let host = before(&upstream)
        .file("passing.wat", Probe::new("").next().wat())
        .args(["--body-max", "10000"])
        .start();
    let chunked = ["transfer-encoding: chunked"];
    for path in ["/", "/passing"] {
        let body = vec![b'x'; 10_000];
        assert_eq!(host.request("POST", path, &[], &body).text(), "taken");
        let body = vec![b'x'; 10_001];
        host.request("POST", path, &[], &body).assert_problem(413);
        let body = format!("2711\r\n{}\r\n0\r\n\r\n", "x".repeat(10_001));
        host.request("POST", path, &chunked, body.as_bytes()).assert_problem(413);
    }
    host.assert_serves("/good");
    host.at_rest();
}

/// If the client disconnects while the upstream computes, the upstream request ends.
#[test]
fn a_client_that_goes_away_ends_the_request() {
    let (let_go, held) = mpsc::channel::<()>();
    let held = Mutex::new(held);
    let upstream = Upstream::scripted(move |_, _| {
        // It ends with the test.
        let _ = held.lock().expect("one request only").recv();
        Ok(false)
    });
    let host = before(&upstream).args(["--deadline", "1h"]).start();
    let mut connection = host.connect();
    connection.send("GET / HTTP/1.1\r\nhost: guest.test\r\n\r\n");
    crate::host::until("request", patience(), || (!upstream.seen().is_empty()).then_some(()));
    drop(connection);
    host.at_rest();
    drop(let_go);
}

#[test]
fn without_an_upstream_the_next_handler_is_a_404() {
    let host = Host::with("passing.wat", Probe::new("").next().wat())
        .file("telling.wat", telling().wat())
        .file("watching.wat", Probe::new("").next().response("(call $log #0 'was told')").wat())
        .start();
    host.get("/passing").assert_problem(404);
    host.get("/watching").assert_problem(404);
    host.wait_log_with(&["was told", "watching"]);
    let answer = host.get("/telling");
    assert_eq!((answer.status, answer.text()), (404, "7\n0\n404\n".to_owned()));
    host.at_rest();
}

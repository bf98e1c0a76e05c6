//! Requests that are forwarded to the upstream: those without a route, and those that a guest
//! passes on with `next`.
//!
//! The upstream is a real server, scripted by the test (see [`upstream`]).

use std::io::Write as _;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Barrier};

use upstream::{Upstream, plain};

use crate::host::{HELLO, Host, Setup};

mod breaking;
mod flow;
mod memory;
mod rewrite;
mod secure;
pub mod upstream;

/// A host with this upstream.
fn before(upstream: &Upstream) -> Setup {
    Host::with("good.wat", HELLO).args(["--upstream", &upstream.url("")])
}

/// The upstream may have a name. Its addresses are tried one after the other. A request without a
/// host names the upstream's.
#[test]
fn an_upstream_may_have_a_name() {
    let upstream = Upstream::saying(plain("200 OK", "", "from above"));
    let url = upstream.url("").replace("127.0.0.1", "localhost");
    let host = Host::with("good.wat", HELLO).args(["--workers", "1", "--upstream", &url]).start();
    for _ in 0..3 {
        assert_eq!(host.get("/").text(), "from above");
    }
    let mut old = host.connect();
    old.send("GET / HTTP/1.0\r\n\r\n");
    assert_eq!(old.read().text(), "from above");
    let named = url.trim_start_matches("http://");
    let hosts: Vec<_> = upstream.seen().iter().map(|seen| seen.all("host").join(" ")).collect();
    assert_eq!(hosts.last().map(String::as_str), Some(named), "{hosts:?}");
    assert_eq!(upstream.connections(), (1, 0), "one after the other");
    let host = Host::with("good.wat", HELLO).args(["--upstream", "http://no.invalid"]).start();
    host.get("/").assert_problem(502);
    host.wait_log_with(&["upstream no.invalid", "its name"]);
}

#[test]
fn what_no_route_takes_is_forwarded() {
    let upstream = Upstream::saying(plain("418 Brewing", "x-up: 1\r\n", "from above"));
    let host = Host::with("good.wat", HELLO).args(["--upstream", &upstream.url("/base")]).start();
    let answer =
        host.request("PATCH", "/some%20where/%C3%A4?q=1%202&x", &["x-mine: 2"], b"the body");
    assert_eq!(answer.status, 418);
    assert_eq!(answer.header("x-up"), Some("1"));
    assert_eq!(answer.header("content-length"), Some("10"));
    assert_eq!(answer.text(), "from above");
    let seen = upstream.one();
    assert_eq!(seen.method, "PATCH");
    assert_eq!(seen.target, "/base/some%20where/%C3%A4?q=1%202&x");
    assert_eq!(seen.all("x-mine"), ["2"]);
    assert_eq!(seen.all("content-length"), ["8"]);
    assert_eq!(seen.body, b"the body");
    // A route takes precedence.
    assert_eq!(host.get("/good").text(), "Hello, World!");
    assert_eq!(upstream.seen().len(), 1);
    host.at_rest();
}

#[test]
fn the_upstream_learns_who_asked() {
    let upstream = Upstream::saying(plain("200 OK", "", ""));
    let host = before(&upstream).start();
    let fields = [
        "host: shop.test:81",
        "x-forwarded-for: 192.0.2.1",
        "X-Forwarded-For: 192.0.2.2",
        "x-forwarded-proto: forged",
        "x-forwarded-host: forged.test",
        "guesthouse-base-path: /forged",
        "guesthouse-match-id: forged",
    ];
    host.request("GET", "/", &fields, b"");
    host.get("/");
    let seen = upstream.seen();
    assert_eq!(seen[0].all("host"), ["shop.test:81"]);
    assert_eq!(seen[0].all("x-forwarded-for"), ["192.0.2.1, 192.0.2.2, 127.0.0.1"]);
    assert_eq!(seen[0].all("x-forwarded-proto"), ["http"]);
    assert_eq!(seen[0].all("x-forwarded-host"), ["shop.test:81"]);
    assert_eq!(seen[0].all("guesthouse-base-path"), [""; 0]);
    assert_eq!(seen[0].all("guesthouse-match-id"), [""; 0]);
    assert_eq!(seen[1].all("x-forwarded-for"), ["127.0.0.1"]);
    assert_eq!(seen[1].all("host"), ["guest.test"]);
}

/// Fields that belong to one connection (RFC 9110, 7.6.1).
const HOP_BY_HOP: [&str; 7] =
    ["connection", "keep-alive", "proxy-connection", "te", "trailer", "upgrade", "x-named"];

#[test]
fn fields_of_one_connection_stay_there() {
    let headers = "connection: x-named, x-also\r\nx-named: 1\r\nx-also: 1\r\n\
                   keep-alive: timeout=9\r\nproxy-connection: close\r\n\
                   upgrade: h9\r\nx-end-to-end: 1\r\nset-cookie: a=1\r\nset-cookie: b=2\r\n";
    let upstream = Upstream::saying(plain("200 OK", headers, "body"));
    let host = before(&upstream).start();
    let fields = [
        "connection: x-named, keep-alive, upgrade",
        "x-named: 1",
        "keep-alive: timeout=9",
        "proxy-connection: close",
        "te: trailers",
        "upgrade: websocket",
        "x-end-to-end: 1",
    ];
    let answer = host.request("GET", "/", &fields, b"");
    let seen = upstream.one();
    for name in HOP_BY_HOP {
        assert_eq!(seen.all(name), [""; 0], "{name} reached the upstream");
        assert_eq!(answer.all(name), [""; 0], "{name} reached the client");
    }
    assert_eq!(answer.all("x-also"), [""; 0]);
    assert_eq!(seen.all("x-end-to-end"), ["1"]);
    assert_eq!(answer.header("x-end-to-end"), Some("1"));
    assert_eq!(answer.all("set-cookie"), ["a=1", "b=2"]);
    assert_eq!(answer.text(), "body");
    host.at_rest();
}

#[test]
fn responses_without_a_body_have_none() {
    let upstream = Upstream::scripted(|seen, stream| {
        let bytes = match (seen.method.as_str(), seen.target.as_str()) {
            ("HEAD", _) => "HTTP/1.1 200 OK\r\ncontent-length: 12345\r\nx-up: head\r\n\r\n",
            (_, "/none") => "HTTP/1.1 204 No Content\r\nx-up: none\r\n\r\n",
            (_, "/same") => "HTTP/1.1 304 Not Modified\r\netag: \"a\"\r\nx-up: same\r\n\r\n",
            _ => "HTTP/1.1 200 OK\r\ncontent-length: 0\r\nx-up: empty\r\n\r\n",
        };
        std::io::Write::write_all(stream, bytes.as_bytes()).map(|()| true)
    });
    let host = before(&upstream).start();
    let mut connection = host.connect();
    for (method, path, status, mark, length) in [
        ("HEAD", "/head", 200, "head", Some("12345")),
        ("GET", "/none", 204, "none", None),
        ("GET", "/same", 304, "same", None),
        ("GET", "/empty", 200, "empty", Some("0")),
    ] {
        let answer = connection.request(method, path, &[], b"");
        assert_eq!((answer.status, answer.header("x-up")), (status, Some(mark)));
        assert_eq!(answer.body, b"", "{path}");
        assert_eq!(answer.header("content-length"), length, "{path}");
        assert_eq!(answer.header("transfer-encoding"), None, "{path}");
        connection.assert_silent();
    }
    host.at_rest();
}

#[test]
fn interim_responses_are_not_the_answer() {
    let mut bytes =
        b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nlink: </a>\r\n\r\n".to_vec();
    bytes.extend(plain("200 OK", "", "at last"));
    let upstream = Upstream::saying(bytes);
    let host = before(&upstream).start();
    let answer = host.get("/");
    assert_eq!((answer.status, answer.text()), (200, "at last".to_owned()));
    host.at_rest();
}

#[test]
fn connections_to_the_upstream_are_pooled() {
    let upstream = Upstream::saying(plain("200 OK", "", "kept"));
    let host = before(&upstream).args(["--workers", "1"]).start();
    for _ in 0..10 {
        assert_eq!(host.request("POST", "/", &[], b"body").text(), "kept");
    }
    assert_eq!(upstream.connections().0, 1);
    host.at_rest();
}

/// A connection that the upstream announces to close is not used for the next request.
#[test]
fn connections_that_the_upstream_closes_are_not_pooled() {
    let upstream = Upstream::saying_once(plain("200 OK", "connection: close\r\n", "once"));
    let host = before(&upstream).args(["--workers", "1"]).start();
    for _ in 0..10 {
        assert_eq!(host.request("POST", "/", &[], b"body").text(), "once");
    }
    assert_eq!(upstream.connections().0, 10);
    host.at_rest();
}

/// An answer of HTTP/1.0, which ends with its connection, is whole.
/// A request with a safe method is sent three more times, the last time on a new connection.
#[test]
fn many_stale_connections_cost_no_answer() {
    const POOLED: usize = 6;
    let (met, all_met) = (Arc::new(Barrier::new(POOLED)), AtomicUsize::new(0));
    let upstream = Upstream::scripted(move |_, stream| {
        if all_met.fetch_add(1, Ordering::SeqCst) < POOLED {
            met.wait();
            return stream.write_all(&plain("200 OK", "", "first")).map(|()| true);
        }
        // The connections in the pool are closed without an answer.
        if all_met.load(Ordering::SeqCst) <= POOLED + 3 {
            return Ok(false);
        }
        stream.write_all(&plain("200 OK", "", "again")).map(|()| true)
    });
    let host = before(&upstream).args(["--workers", "1"]).start();
    std::thread::scope(|scope| {
        for _ in 0..POOLED {
            scope.spawn(|| assert_eq!(host.get("/").text(), "first"));
        }
    });
    assert_eq!(upstream.connections(), (POOLED, 0));
    assert_eq!(host.get("/").text(), "again");
    assert_eq!(upstream.connections().0, POOLED + 1);
}

#[test]
fn an_answer_that_ends_with_its_connection_is_whole() {
    let upstream = Upstream::saying_once("HTTP/1.0 200 OK\r\nx-up: 1\r\n\r\nto the end");
    let host = before(&upstream).start();
    let mut connection = host.connect();
    for _ in 0..2 {
        let answer = connection.get("/");
        assert_eq!(answer.text(), "to the end");
        assert_eq!(answer.header("transfer-encoding"), Some("chunked"));
        assert!(!answer.closes());
    }
    host.at_rest();
}

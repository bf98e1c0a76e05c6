//! Outbound bodies that differ from the announced length or are not read, and responses that are
//! passed on.

use std::io::Write as _;
use std::net::Shutdown;
use std::time::Duration;

use super::flow::raw;
use super::{allowing, assert_code, fetch, fetch_with, good, is_03};
use crate::component::assert_as_new;
use crate::component::raw_connection::LAST;
use crate::host::until;
use crate::hostile::ISOLATIONS;
use crate::middleware::upstream::{Upstream, abrupt, plain, reset};
use crate::patience::patience;

/// The probe may send to every port of this machine.
const LOCAL: [&str; 1] = ["probe=http://127.0.0.1:*"];

/// A request that announces a body and has none is not sent. The server would take the next request
/// on the connection, which may be another client's, for that body.
#[test]
fn a_length_without_a_body_is_an_error() {
    let server = good();
    let host = allowing(&LOCAL, &["--workers", "1"]);
    for (number, method) in ["GET", "POST", "DELETE"].into_iter().enumerate() {
        let fields = [format!("x-method: {method}"), "x-content-length: 5".to_owned()];
        let fields: Vec<&str> = fields.iter().map(String::as_str).collect();
        let told = fetch_with(&host, "fetch", &server.url("/wrong"), &fields);
        assert_code(&told, "HttpRequestBodySize");
        assert_eq!(fetch(&host, &server.url("/right")), "200 ok");
        assert_eq!(server.seen().len(), number + 1);
    }
    assert!(server.seen().iter().all(|seen| seen.target == "/right"), "{:?}", server.seen());
    assert_as_new(&host);
}

/// A body that is shorter or longer than announced does not look whole to the server, either.
#[test]
fn a_body_that_is_not_as_announced_never_looks_whole() {
    let host = allowing(&LOCAL, &["--workers", "1"]);
    for bytes in [100_usize, 70_000, 200_000, 1_000_000] {
        for announced in [0, bytes - 10, bytes + 10] {
            for trailer in [&[][..], &["x-trailer: x-end"]] {
                let server = good();
                let fields =
                    [format!("x-bytes: {bytes}"), format!("x-content-length: {announced}")];
                let fields = fields.iter().map(String::as_str).chain(["x-method: POST"]);
                let fields: Vec<&str> = fields.chain(trailer.iter().copied()).collect();
                let told = fetch_with(&host, "fetch-sized", &server.url("/"), &fields);
                assert!(!told.starts_with("200"), "{bytes} bytes, {announced} announced: {told}");
                until("its connection is closed", patience(), || {
                    let (opened, closed) = server.connections();
                    (opened == closed).then_some(())
                });
                assert!(server.seen().is_empty(), "{bytes} bytes, {announced} announced");
            }
        }
    }
    assert_as_new(&host);
}

/// A server that answers and reads no more of the request closes the connection. The bytes that are
/// still being sent then reset it, but the answer has come before.
#[test]
fn an_answer_before_a_reset_is_an_answer() {
    let url = abrupt(&plain("413 No", "connection: close\r\n", "large"), |stream| {
        drop(stream.shutdown(Shutdown::Write));
    }) + "/";
    let host = allowing(&LOCAL, &["--workers", "1"]);
    for _ in 0..20 {
        let fields = ["x-method: POST", "x-bytes: 5000000"];
        assert_eq!(fetch_with(&host, "fetch-sized", &url, &fields), "413 large");
    }
    assert_as_new(&host);
}

/// The host's writer notices a reset first. Its reader then sees an end of the connection that is
/// not the end of the answer.
#[test]
fn an_answer_that_a_reset_breaks_off_is_not_complete() {
    let url = abrupt(b"HTTP/1.1 200 OK\r\n\r\nthe beginning", reset) + "/";
    let host = allowing(&LOCAL, &["--workers", "1"]);
    for _ in 0..40 {
        let fields = ["x-method: POST", "x-bytes: 5000000"];
        let told = fetch_with(&host, "fetch-sized", &url, &fields);
        assert!(!told.starts_with("200"), "{told}");
    }
    assert_as_new(&host);
}

/// Unfinished requests of a guest end with its call, even if its instance goes on.
#[test]
fn what_a_call_leaves_ends_with_it() {
    if is_03() {
        // In one instance, other calls may have sent them.
        return;
    }
    for isolation in ISOLATIONS {
        let host = allowing(&LOCAL, &["--workers", "1", "--isolation", isolation]);
        for _ in 0..3 {
            let (address, whole) = raw();
            let url = format!("http://{address}/");
            assert_eq!(fetch_with(&host, "fetch-leave", &url, &["x-method: POST"]), "left");
            let came = whole.recv_timeout(patience()).expect("the host closes the connection");
            assert!(!came.ends_with(LAST.as_bytes()), "{}", String::from_utf8_lossy(&came));
        }
        assert_as_new(&host);
    }
}

/// A guest of 0.3 answers with the response that it received, at any pace.
#[test]
fn a_response_may_be_handed_on() {
    if !is_03() {
        return;
    }
    const PIECES: [(&str, &[&str]); 4] = [
        ("transfer-encoding: chunked", &["3\r\nhel\r\n2\r\nlo\r\n0\r\n\r\n"]),
        ("transfer-encoding: chunked", &["", "3\r\nhel\r\n", "2\r\nlo\r\n0\r\n\r\n"]),
        ("content-length: 5", &["", "hel", "lo"]),
        ("connection: close", &["", "hel", "lo"]),
    ];
    for isolation in ISOLATIONS {
        let host = allowing(&LOCAL, &["--workers", "1", "--isolation", isolation]);
        for (framing, pieces) in PIECES {
            let server = Upstream::scripted(move |_, stream| {
                stream.write_all(format!("HTTP/1.1 200 OK\r\n{framing}\r\n\r\n").as_bytes())?;
                for piece in pieces {
                    // The server is slow.
                    std::thread::sleep(Duration::from_millis(20));
                    stream.write_all(piece.as_bytes())?;
                }
                Ok(framing != "connection: close")
            });
            for _ in 0..3 {
                let told = fetch_with(&host, "fetch-pass", &server.url("/"), &[]);
                assert_eq!(told, "hello", "{isolation}, {framing}");
            }
        }
        assert_as_new(&host);
    }
}

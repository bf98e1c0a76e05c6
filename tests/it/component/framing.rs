//! A response's body against what its head says: lengths, bodies that there are not, and bodies
//! that do not come to an end.

use super::raw_connection::{LAST, RawConnection};
use super::{Came, PATIENCE, assert_as_new, get_or_cut, is_03, start};
use crate::client::message;
use crate::host::{Host, until};
use crate::hostile::ISOLATIONS;

#[test]
fn an_announced_length_is_enforced() {
    let host = start(&[]);
    let mut connection = host.connect();
    for _ in 0..3 {
        let answer = connection.get("/probe/exact");
        assert_eq!((answer.status, answer.text().as_str()), (200, "12345"));
        assert_eq!(answer.header("content-length"), Some("5"));
    }
    let head = connection.request("HEAD", "/probe/exact", &[], b"");
    assert_eq!((head.status, head.header("content-length")), (200, Some("5")));
    connection.assert_silent();
    assert_as_new(&host);
}

/// The length that a HEAD names is that of a body which does not come, and is not missed.
#[test]
fn head_has_a_length_and_no_body() {
    let host = start(&[]);
    let mut connection = host.connect();
    for _ in 0..3 {
        let head = connection.request("HEAD", "/probe/head-length", &[], b"");
        assert_eq!((head.status, head.header("content-length")), (200, Some("5")), "{head:?}");
        connection.assert_silent();
        assert_eq!(connection.get("/probe/head-length").text(), "12345");
    }
    assert_as_new(&host);
}

#[test]
fn a_status_without_a_body_has_none() {
    let host = start(&[]);
    let mut connection = host.connect();
    for (path, status) in
        [("/probe/no-content", 204), ("/probe/status?204", 204), ("/probe/status?304", 304)]
    {
        let answer = connection.get(path);
        assert_eq!((answer.status, answer.body.len()), (status, 0), "{path}: {answer:?}");
        assert_eq!(answer.header("transfer-encoding"), None, "{path}: {answer:?}");
        assert!(status != 204 || answer.header("content-length").is_none(), "{answer:?}");
        // Nothing is left behind it that the next answer would be taken for.
        connection.assert_silent();
        assert_eq!(connection.get("/probe/exact").text(), "12345");
    }
    for (path, status) in [("/probe/empty", 200), ("/probe/status?205", 205)] {
        let answer = connection.get(path);
        assert_eq!((answer.status, answer.body.len()), (status, 0), "{path}: {answer:?}");
        assert_eq!(answer.header("content-length"), Some("0"), "{path}: {answer:?}");
    }
    assert_as_new(&host);
}

/// Behaviours whose response does not come to a good end.
const UNFINISHED: [&str; 5] = [
    "/probe/short",
    "/probe/long",
    "/probe/trap-middle",
    "/probe/unfinished-drop",
    "/probe/unfinished-leak",
];

/// Those that an instance can be seen to leave unfinished: of several calls in one, each might
/// still write to what another has left behind.
fn unfinished(isolation: &str) -> &'static [&'static str] {
    let is_told = |path: &&str| !path.ends_with("-leak");
    let told = UNFINISHED.iter().take_while(|path| is_told(path)).count();
    if is_03() && isolation == "reuse" { &UNFINISHED[..told] } else { &UNFINISHED }
}

/// A guest that has ended before its head is sent is answered for. On a busy machine the head may
/// be out by then, and the answer is cut off; it is never one that looks whole.
#[test]
fn what_is_not_whole_is_never_taken_for_whole() {
    for isolation in ISOLATIONS {
        let host = start(&["--isolation", isolation]);
        for path in unfinished(isolation) {
            until("a refusal", PATIENCE, || {
                let came = get_or_cut(&host, path);
                host.assert_serves("/probe/exact");
                match came {
                    Came::Whole(answer) => {
                        answer.assert_problem(500);
                        Some(())
                    }
                    Came::Cut => None,
                }
            });
        }
        assert_as_new(&host);
    }
}

/// Asserts that a piece of the response arrives, and then no more than the end of the connection.
#[track_caller]
fn assert_cut_off(host: &Host, path: &str) {
    let mut raw = RawConnection::open(host, message("POST", path, &["content-length: 4"], b""));
    let came = raw.wait_for("first");
    assert!(came.starts_with("HTTP/1.1 200 "), "{path}: {came}");
    // The guest has waited for this since it wrote the piece.
    raw.send("body");
    let came = String::from_utf8_lossy(&raw.rest()).into_owned();
    assert!(!came.ends_with(LAST), "{path}: {came}");
    assert!(came.trim_end().ends_with("first"), "{path}: {came}");
}

#[test]
fn what_has_begun_and_is_not_finished_is_cut_off() {
    for isolation in ISOLATIONS {
        let host = start(&["--isolation", isolation]);
        // The first two do not wait for anything between head and end.
        for path in &unfinished(isolation)[2..] {
            for _ in 0..2 {
                assert_cut_off(&host, path);
                assert_as_new(&host);
            }
        }
    }
}

/// Nor is it whole if the guest has been stopped.
#[test]
fn what_has_begun_and_is_stopped_is_cut_off() {
    for isolation in ISOLATIONS {
        let host = start(&["--isolation", isolation, "--cpu-max", "100ms"]);
        for _ in 0..2 {
            assert_cut_off(&host, "/probe/spin-middle");
            assert_as_new(&host);
        }
        host.wait_log_with(&["stopped: cpu_time"]);
    }
}

/// What comes of the guest once its response is whole is no matter of the client's.
#[test]
fn a_whole_response_outlives_its_guest() {
    for isolation in ISOLATIONS {
        let host = start(&["--workers", "1", "--isolation", isolation]);
        assert_eq!(host.get("/probe/count").text(), "1");
        let answer = host.get("/probe/trap-after");
        assert_eq!((answer.status, answer.text().as_str()), (200, "whole"), "{answer:?}");
        host.wait_log_with(&["stopped", "unreachable"]);
        // An instance that has trapped is not asked again.
        assert_eq!(host.get("/probe/count").text(), "1", "{isolation}");
        assert_as_new(&host);
    }
}

/// HTTP/1.0 has no chunks: a body without a length ends with its connection, which is not said to
/// be kept.
#[test]
fn an_old_client_is_sent_a_body_to_the_end_of_its_connection() {
    let host = start(&[]);
    for keep in ["", "connection: keep-alive\r\n"] {
        let mut connection = host.connect();
        connection.send(format!("GET /probe/sse?3 HTTP/1.0\r\nhost: a\r\n{keep}\r\n"));
        let answer = connection.read();
        assert!(answer.closes(), "{answer:?}");
        assert_eq!(answer.all("transfer-encoding"), [""; 0], "{answer:?}");
        assert!(answer.text().ends_with("data: 2\n\n"), "{answer:?}");
    }
    assert_as_new(&host);
}

/// Nothing but a reset tells such a client that its body was cut off.
#[test]
fn an_old_client_can_tell_a_body_that_breaks_off() {
    let host = start(&[]);
    for _ in 0..5 {
        let mut connection = host.connect();
        connection.send("GET /probe/trap-middle HTTP/1.0\r\nhost: a\r\n\r\n");
        let came = connection.next("GET");
        let is_reset = |error: &std::io::Error| error.kind() == std::io::ErrorKind::ConnectionReset;
        let is_told = match &came {
            Ok(Some(answer)) => answer.status == 500,
            Ok(None) => false,
            Err(error) => is_reset(error),
        };
        assert!(is_told, "{came:?}");
    }
    assert_as_new(&host);
}

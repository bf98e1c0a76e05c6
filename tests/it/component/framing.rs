//! Response bodies that do not fit their heads: wrong lengths, bodies where there must be none, and
//! bodies that are never finished.

use super::raw_connection::{LAST, RawConnection};
use super::{Came, assert_as_new, get_or_cut, is_03, start};
use crate::client::message;
use crate::host::{Host, until};
use crate::hostile::ISOLATIONS;
use crate::patience::patience;

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

/// The length in the answer to a HEAD is that of the body which is not sent.
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
        // No bytes are left that could be taken for the next answer.
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

/// Behaviours with a response that is not finished correctly.
const UNFINISHED: [&str; 5] = [
    "/probe/short",
    "/probe/long",
    "/probe/trap-middle",
    "/probe/unfinished-drop",
    "/probe/unfinished-leak",
];

/// The behaviours that can be seen to be unfinished. If an instance has several calls, another call
/// could still write to a body that one has leaked.
fn unfinished(isolation: &str) -> &'static [&'static str] {
    let is_told = |path: &&str| !path.ends_with("-leak");
    let told = UNFINISHED.iter().take_while(|path| is_told(path)).count();
    if is_03() && isolation == "reuse" { &UNFINISHED[..told] } else { &UNFINISHED }
}

/// If a guest fails before its head is sent, the host answers. On a busy machine the head may have
/// been sent, and then the answer is cut off. It never looks whole.
#[test]
fn what_is_not_whole_is_never_taken_for_whole() {
    for isolation in ISOLATIONS {
        let host = start(&["--isolation", isolation]);
        for path in unfinished(isolation) {
            until("a refusal", patience(), || {
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

/// Asserts that a piece of the response arrives, and then nothing but the end of the connection.
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
        // The first two behaviours do not wait between head and end.
        for path in &unfinished(isolation)[2..] {
            for _ in 0..2 {
                assert_cut_off(&host, path);
                assert_as_new(&host);
            }
        }
    }
}

/// A response whose guest was stopped is not whole, either.
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

/// Once its response is whole, it does not matter to the client how the guest ends.
#[test]
fn a_whole_response_outlives_its_guest() {
    for isolation in ISOLATIONS {
        let host = start(&["--workers", "1", "--isolation", isolation]);
        assert_eq!(host.get("/probe/count").text(), "1");
        let answer = host.get("/probe/trap-after");
        assert_eq!((answer.status, answer.text().as_str()), (200, "whole"), "{answer:?}");
        host.wait_log_with(&["stopped", "unreachable"]);
        // An instance that has trapped gets no further requests.
        assert_eq!(host.get("/probe/count").text(), "1", "{isolation}");
        assert_as_new(&host);
    }
}

/// HTTP/1.0 has no chunks: the end of the connection ends a body without a length, and the host
/// does not offer to keep the connection.
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

/// Only a reset tells such a client that the body was cut off.
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

//! A request's body on its way to a component: read whole, read late, not read, and sent back as it
//! arrives.

use std::io::Write as _;
use std::thread::sleep;
use std::time::Duration;

use super::raw_connection::{LAST, RawConnection, chunks, unchunked};
use super::{assert_as_new, start};
use crate::client::{Response, message};
use crate::host::{Host, Status};
use crate::patience::patience;
use crate::uploads::{STALL, assert_none_lost, slowly};

/// Checks once whether there is more of the body, and then waits for a clock.
const LOOKS_ONCE: &str = include_str!("looks_once.wat");
const CHUNKED: &str = "transfer-encoding: chunked";

fn body(bytes: u32) -> Vec<u8> {
    (0..bytes).map(|at| (at % 251) as u8).collect()
}

/// A body in chunks, with the last chunk.
fn chunked(body: &[u8]) -> Vec<u8> {
    [&chunks(body, 10_000), LAST.as_bytes()].concat()
}

#[test]
fn a_body_is_read_whole() {
    let host = start(&[]);
    let mut connection = host.connect();
    for bytes in [0, 1, 1 << 20] {
        let body = body(bytes);
        let sum: u64 = body.iter().map(|byte| u64::from(*byte)).sum();
        let with_length = connection.request("POST", "/probe/upload", &[], &body);
        let in_chunks = connection.request("POST", "/probe/upload", &[CHUNKED], &chunked(&body));
        for answer in [with_length, in_chunks] {
            assert_eq!((answer.status, answer.text()), (200, format!("{bytes} {sum}")));
        }
    }
    assert_as_new(&host);
}

#[test]
fn a_body_that_is_too_large_is_refused() {
    let host = start(&["--body-max", "1KiB"]);
    let (small, large) = (body(1024), body(1025));
    let post = |headers: &[&str], body: &[u8]| host.request("POST", "/probe/upload", headers, body);
    assert_eq!(post(&[], &small).status, 200);
    assert_eq!(post(&[CHUNKED], &chunked(&small)).status, 200);
    post(&[], &large).assert_problem(413);
    post(&["content-length: 1000000000000"], b"").assert_problem(413);
    post(&[CHUNKED], &chunked(&large)).assert_problem(413);
    assert_eq!(assert_as_new(&host).rejects("body_too_large"), 3);
}

/// A client that disconnects in the middle of its body is counted as disconnected.
#[test]
fn a_body_whose_client_goes_is_no_broken_one() {
    let host = start(&[]);
    for framing in ["content-length: 10", CHUNKED] {
        let mut connection = host.connect();
        connection.send(format!(
            "POST /probe/upload HTTP/1.1\r\nhost: guest.test\r\n{framing}\r\n\r\n5\r\nfirst"
        ));
        drop(connection);
    }
    let gone = |status: &Status| status.rejects("client_gone") == 2;
    let status = host.status_when("both have gone", patience(), gone);
    assert_eq!(status.rejects("body_broken"), 0, "{status:?}");
    assert_as_new(&host);
}

/// If the client's body is at fault, the guest is not blamed.
#[test]
fn a_body_that_is_broken_or_late_is_blamed_on_its_client() {
    let host = start(&["--stall-timeout", "300ms"]);
    let broken = host.request("POST", "/probe/upload", &[CHUNKED], b"4\r\nbody\r\nzz\r\n");
    broken.assert_problem(400);
    // The guest has begun its response, and nothing of it is sent.
    let broken = host.request("POST", "/probe/echo", &[CHUNKED], b"zz\r\n");
    broken.assert_problem(400);
    let late = host.request("POST", "/probe/upload", &["content-length: 10"], b"part");
    late.assert_problem(408);
    let status = assert_as_new(&host);
    assert_eq!((status.rejects("body_broken"), status.rejects("body_timeout")), (2, 1));
}

/// The deadline stands still while the host waits for the body. It goes on once the body is
/// complete, is late, or was cut off, even if the guest never reads again.
#[test]
fn a_deadline_holds_for_who_looks_once() {
    let args = ["--workers", "1", "--deadline", "1s", "--stall-timeout", "1s"];
    let host = Host::with("looks.wat", LOOKS_ONCE).args(args).start();
    let begin = || {
        let mut connection = host.connect();
        connection
            .send("POST /looks HTTP/1.1\r\nhost: guest.test\r\ncontent-length: 10\r\n\r\nfirst");
        host.status_when("it is called", patience(), |status| status.instances_out == 1);
        connection
    };
    let mut whole = begin();
    whole.send("other");
    whole.read().assert_problem(504);
    host.at_rest();
    begin().read().assert_problem(504);
    host.at_rest();
    drop(begin());
    host.at_rest();
}

#[test]
fn a_request_may_have_trailers() {
    let host = start(&[]);
    let post = |headers: &[&str], body: &[u8]| {
        let answer = host.request("POST", "/probe/upload-trailers", headers, body);
        assert_eq!(answer.status, 200, "{}", answer.text());
        answer.text()
    };
    let trailed = b"4\r\nbody\r\n0\r\nx-sum: 426\r\nconnection: close\r\n\r\n";
    assert_eq!(post(&[CHUNKED], trailed), "x-sum: 426\n");
    assert_eq!(post(&[CHUNKED], b"4\r\nbody\r\n0\r\n\r\n"), "none");
    assert_eq!(post(&[], b"body"), "none");
    assert_eq!(post(&[], b""), "none");
    assert_as_new(&host);
}

#[test]
fn continue_is_sent_only_when_the_body_is_read() {
    let host = start(&[]);
    let expect = ["expect: 100-continue", "content-length: 4"];
    let mut connection = host.connect();
    connection.send(message("POST", "/probe/upload", &expect, b""));
    assert_eq!(connection.read_interim(), 100);
    connection.assert_silent();
    connection.send("body");
    assert_eq!(connection.read().text(), "4 430");
    let mut connection = host.connect();
    connection.send(message("POST", "/probe/ignore-body", &expect, b""));
    let answer = connection.read();
    assert_eq!(answer.interim, [0; 0], "it asked for a body which nobody reads");
    assert_eq!((answer.status, answer.text().as_str()), (200, "ignored"));
    assert_as_new(&host);
}

/// An answer does not wait for the request's body. After a whole answer the guest no longer gets
/// the rest of the body, and nothing waits for it, whether the client goes on or disconnects.
#[test]
fn an_answer_does_not_wait_for_the_body() {
    for (framing, rest) in [("content-length: 4", "body"), (CHUNKED, "4\r\nbody\r\n0\r\n\r\n")] {
        let host = start(&[]);
        for goes_on in [true, false] {
            let mut connection = host.connect();
            connection.send(message("POST", "/probe/early", &[framing], b""));
            assert_eq!(connection.read().text(), "early");
            if goes_on {
                // The host may have closed its side by now.
                let _ = connection.try_send(rest);
            }
            drop(connection);
            assert_as_new(&host);
        }
    }
}

#[test]
fn a_body_goes_back_as_it_comes() {
    const BYTES: u32 = 4 << 20;
    let host = start(&[]);
    let body = body(BYTES);
    let close = ["connection: close", CHUNKED];
    let raw = RawConnection::open(&host, message("POST", "/probe/echo", &close, b""));
    let mut sender = raw.sender();
    let came = std::thread::scope(|scope| {
        let sent = scope.spawn(|| sender.write_all(&chunked(&body)));
        let came = raw.rest();
        sent.join().expect("no panic").expect("the host takes it");
        came
    });
    let (came, is_whole) = unchunked(&came);
    assert!(is_whole, "{} bytes", came.len());
    assert!(came == body, "{} bytes of {BYTES}, or others", came.len());
    assert_as_new(&host);
}

/// The rest of the body is never taken for the head of another request, however late it comes.
#[test]
fn a_body_may_go_on_behind_the_head_of_its_response() {
    let host = start(&["--head-timeout", "300ms"]);
    let mut raw = RawConnection::open(&host, message("POST", "/probe/echo", &[CHUNKED], b""));
    for number in 0..30 {
        let piece = format!("piece {number};");
        raw.send(chunks(piece.as_bytes(), piece.len()));
        raw.wait_for(&piece);
        sleep(Duration::from_millis(100));
    }
    raw.send(LAST);
    raw.wait_for("\r\n0\r\n\r\n");
    drop(raw);
    assert_as_new(&host);
}

/// The host does not wait for the rest for ever.
#[test]
fn a_body_that_stalls_behind_the_head_of_its_response_is_given_up() {
    let host = start(&["--stall-timeout", "300ms"]);
    let mut raw = RawConnection::open(&host, message("POST", "/probe/echo", &[CHUNKED], b""));
    raw.send(chunks(b"piece", 5));
    raw.wait_for("piece");
    let (body, is_whole) = unchunked(&raw.rest());
    assert_eq!((body.as_slice(), is_whole), (&b"piece"[..], false));
    assert_as_new(&host);
}

/// Nothing is buffered: each piece comes back before the next one is sent.
#[test]
fn each_piece_goes_back_before_the_next_one_comes() {
    let host = start(&[]);
    let mut raw = RawConnection::open(&host, message("POST", "/probe/echo", &[CHUNKED], b""));
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
}

#[test]
fn none_of_many_uploads_is_lost() {
    let host = start(&STALL);
    let is_counted = |answer: &Response, bytes: usize| {
        let sum = bytes as u64 * u64::from(b'x');
        answer.status == 200 && answer.text() == format!("{bytes} {sum}")
    };
    assert_none_lost(&host, "/probe/upload", is_counted);
    assert_as_new(&host);
}

/// Time spent waiting for the client does not count as the guest's time.
#[test]
fn an_upload_may_take_longer_than_the_deadline() {
    let host = start(&["--deadline", "1s"]);
    let answer = slowly(&host, "/probe/upload");
    assert_eq!((answer.status, answer.text().as_str()), (200, "500 60000"), "{answer:?}");
    assert_as_new(&host);
}

/// After the head of the answer, the client can no longer be told to send its body.
#[test]
fn continue_is_sent_ahead_of_a_head_that_comes_first() {
    let host = start(&["--stall-timeout", "2s"]);
    for _ in 0..5 {
        let headers = ["expect: 100-continue", "content-length: 4", "connection: close"];
        let mut raw = RawConnection::open(&host, message("POST", "/probe/echo", &headers, b""));
        raw.wait_for("HTTP/1.1 100 Continue\r\n\r\n");
        raw.send("body");
        let came = String::from_utf8_lossy(&raw.rest()).into_owned();
        assert_eq!(came.matches("100 Continue").count(), 1, "{came}");
        let (body, is_whole) =
            unchunked(came.split_once("\r\n\r\n").expect("two heads").1.as_bytes());
        assert_eq!((body.as_slice(), is_whole), (&b"body"[..], true), "{came}");
    }
    assert_as_new(&host);
}

//! Bodies of 0, 1, 2 bytes and so on, up to and past the limit, in every framing.

use super::{AMOUNT, asking, assert_whole};
use crate::abi::probe::Probe;
use crate::client::Response;
use crate::host::{HELLO, Host};
use crate::wat;

/// The bytes of `--body-max` and `--response-max` in these tests, unless a test changes the limit.
const BYTES_MAX: usize = 16;

/// Answers with as many bytes as the request asks for, written at once.
fn at_once() -> String {
    Probe::new(&format!("{AMOUNT} (call $write_body #1 #65536 (local.get $amount))")).wat()
}

/// The same, written byte by byte.
fn byte_by_byte() -> String {
    let write = "
    (loop $more
      (if (local.get $amount)
        (then
          (call $write_body #1 #65536 #1)
          (local.set $amount (i32.sub (local.get $amount) #1))
          (br $more))))";
    Probe::new(&format!("{AMOUNT} {write}")).wat()
}

/// A body in chunks of this size.
fn chunked(body: &[u8], size: usize) -> Vec<u8> {
    let mut framed = Vec::new();
    for chunk in body.chunks(size) {
        framed.extend(format!("{:x}\r\n", chunk.len()).bytes());
        framed.extend(chunk);
        framed.extend(b"\r\n");
    }
    framed.extend(b"0\r\n\r\n");
    framed
}

/// Posts a body in every framing, each on a connection of its own.
#[track_caller]
fn post(host: &Host, path: &str, body: &[u8]) -> [Response; 3] {
    let length = format!("content-length: {}", body.len());
    let coding = "transfer-encoding: chunked".to_owned();
    let framings = [
        (&length, body.to_vec()),
        (&coding, chunked(body, body.len().max(1))),
        (&coding, chunked(body, 1)),
    ];
    framings.map(|(framing, body)| {
        let answer = host.request("POST", path, &[framing], &body);
        assert_whole(host);
        answer
    })
}

#[test]
fn request_bodies_byte_by_byte() {
    let host = Host::with("good.wat", HELLO)
        .file("echo.wat", wat::echoes())
        .args(["--native", "--body-max", &BYTES_MAX.to_string()])
        .start();
    let body = b"the body of a request";
    let mut refused = 0;
    for bytes in 0..=body.len() {
        for path in ["/echo", "/native/echo"] {
            for answer in post(&host, path, &body[..bytes]) {
                if bytes <= BYTES_MAX {
                    assert_eq!(answer.status, 200, "{path}: {answer:?}");
                    // The native twin also answers with the head.
                    let is_whole = path != "/echo" || answer.body.len() == bytes;
                    assert!(is_whole && answer.body.ends_with(&body[..bytes]), "{answer:?}");
                } else {
                    answer.assert_problem(413);
                    refused += 1;
                }
            }
            let status = assert_whole(&host);
            assert_eq!(status.rejects("body_too_large"), refused, "{bytes} bytes to {path}");
        }
    }
    assert!(refused > 0);
}

#[test]
fn response_bodies_byte_by_byte() {
    let host = Host::with("good.wat", HELLO)
        .file("once.wat", at_once())
        .file("each.wat", byte_by_byte())
        .args(["--response-max", &BYTES_MAX.to_string()])
        .start();
    for bytes in 0..=BYTES_MAX + 4 {
        for guest in ["once", "each"] {
            let answer = host.get(&asking(guest, bytes));
            if bytes <= BYTES_MAX {
                assert_eq!((answer.status, answer.body.len()), (200, bytes), "{guest}");
            } else {
                answer.assert_problem(500);
            }
            assert_whole(&host);
        }
    }
}

/// The limits from 0 on, until a fixed request and a fixed response fit.
#[test]
fn limits_from_nothing_until_they_are_enough() {
    const BODY: &[u8] = b"bodies";
    for budget in 0..=BODY.len() {
        let bytes = budget.to_string();
        let host = Host::with("good.wat", wat::guest("", ""))
            .file("read.wat", wat::reads().replace("(i32.const 4))", "(i32.const 0))"))
            .file("once.wat", at_once())
            .file("each.wat", byte_by_byte())
            .args(["--body-max", &bytes, "--response-max", &bytes])
            .start();
        for answer in post(&host, "/read", BODY) {
            if budget < BODY.len() {
                answer.assert_problem(413);
            }
            assert_eq!(answer.status == 200, budget == BODY.len(), "{budget}: {answer:?}");
        }
        for guest in ["once", "each"] {
            let answer = host.get(&asking(guest, BODY.len()));
            if budget < BODY.len() {
                answer.assert_problem(500);
            }
            assert_eq!(answer.status == 200, budget == BODY.len(), "{budget}: {answer:?}");
            assert_whole(&host);
        }
    }
}

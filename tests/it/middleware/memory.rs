//! Whole bodies that the host holds for a guest that passes requests on: they count as the host's
//! memory, and a body without room is refused.

use super::before;
use super::upstream::{Upstream, plain};
use crate::abi::probe::Probe;
use crate::client::message;
use crate::host::Host;
use crate::patience::patience;

/// A number of bytes that fit into the memory of these tests, and one that does not.
const FITS: usize = 300 << 10;
const TOO_MUCH: usize = 3 << 20;

fn start(upstream: &Upstream, guest: &Probe) -> Host {
    let host = before(upstream)
        .file("guest.wat", guest.wat())
        .args(["--memory-total", "4MiB", "--workers", "1"])
        .start();
    host.settled();
    host
}

/// Asserts that one request was refused, and that nothing is held any more.
#[track_caller]
fn assert_refused_one(host: &Host) {
    host.assert_serves("/good");
    assert_eq!(host.at_rest().rejects("no_memory"), 1);
    host.status_when("its memory back", patience(), |status| status.memory_used < 2 << 20);
}

#[test]
fn a_response_that_is_buffered_for_a_guest_counts() {
    let upstream = Upstream::scripted(|seen, stream| {
        let length = if seen.target.ends_with("large") { TOO_MUCH } else { FITS };
        let answer = plain("200 OK", "", &"x".repeat(length));
        // The host closes the connection of a body that it refuses.
        Ok(std::io::Write::write_all(stream, &answer).is_ok())
    });
    let guest = Probe::new("(drop (call $enable_features #2))").next().response("");
    let host = start(&upstream, &guest);
    assert_eq!(host.get("/guest/small").body.len(), FITS);
    let answer = host.get("/guest/large");
    answer.assert_problem(503);
    assert_eq!(answer.header("retry-after"), Some("1"));
    assert_eq!(host.get("/guest/small").body.len(), FITS);
    assert_refused_one(&host);
}

#[test]
fn a_request_that_is_put_together_again_counts() {
    let upstream = Upstream::saying(plain("200 OK", "", "got it"));
    let guest = Probe::new(
        "(drop (call $enable_features #1))
         (drop (call $read_body #0 #65536 #1))",
    );
    let host = start(&upstream, &guest.next());
    let post = |length: usize| {
        let mut connection = host.connect();
        // The answer may come before all of the body is sent, and the connection may end after it.
        let _ = connection.try_send(message("POST", "/guest", &[], &vec![b'x'; length]));
        connection.next("POST").ok().flatten().map(|answer| answer.status)
    };
    assert_eq!(post(FITS), Some(200));
    assert_eq!(upstream.one().body, vec![b'x'; FITS]);
    assert!(matches!(post(TOO_MUCH), Some(503) | None));
    assert_eq!(post(FITS), Some(200));
    assert_refused_one(&host);
}

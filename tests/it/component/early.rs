//! Bodies that a guest of wasi:http 0.2 writes before anybody reads them: the body of a response
//! that is not set yet, or of a request that is not sent yet.
//!
//! In 0.3 a body is a stream, and a writer waits for the reader. So on every host the guest has to
//! return its response first.

use super::raw_connection::RawConnection;
use super::{assert_as_new, is_03, start, text};
use crate::client::message;
use crate::patience::patience;

const KIB: u64 = 1 << 10;
const MIB: u64 = 1 << 20;

#[test]
fn a_body_may_be_written_before_its_response_is_set() {
    if is_03() {
        return;
    }
    for isolation in crate::hostile::ISOLATIONS {
        let host = start(&["--isolation", isolation]);
        for kib in [0, 1, 192, 193, 257, 1024, 7 * 1024] {
            let body = text(&host, &format!("/probe/write-first?{kib}"));
            assert_eq!(body.len() as u64, kib * KIB);
        }
        // Each piece also counts with the memory that it takes beside its bytes.
        for count in [1, 5, 20_000] {
            let body = text(&host, &format!("/probe/write-bytes-first?{count}"));
            assert_eq!(body.len(), count);
        }
        assert_as_new(&host);
    }
}

/// If the guest writes more, it waits. What it has written is charged until it is sent.
#[test]
fn what_is_written_before_is_bounded_and_charged() {
    if is_03() {
        return;
    }
    let flags = ["--workers", "1", "--response-max", "4MiB", "--deadline", "1h"];
    let host = start(&flags);
    let before = assert_as_new(&host).memory_used;
    let is_back = |status: &crate::host::Status| status.memory_used <= before;
    assert_eq!(text(&host, "/probe/write-first?4000").len() as u64, 4000 * KIB);
    host.status_when("its memory back", patience(), is_back);
    // The bytes that may wait, and the memory of the guest itself.
    let most = [("write-first?5000", 5000 * KIB + 5 * MIB), ("write-bytes-first?1000000", 8 * MIB)];
    for (behaviour, most) in most {
        let path = format!("/probe/{behaviour}");
        let raw = RawConnection::open(&host, message("GET", &path, &[], b""));
        let is_full = |status: &crate::host::Status| status.memory_used > before + 3 * MIB;
        let full = host.status_when("full", patience(), is_full);
        assert!(full.memory_used < before + most, "{behaviour}: {before}, then {full:?}");
        drop(raw);
        host.status_when("its memory back", patience(), is_back);
        assert_as_new(&host);
    }
    // If the response is never set, there is no answer.
    let host = start(&["--workers", "1", "--response-max", "4MiB", "--deadline", "1s"]);
    host.get("/probe/write-first?5000").assert_problem(504);
    assert_as_new(&host);
}

/// Without memory for such a body the host answers 503, and is at rest afterwards.
#[test]
fn a_body_for_which_there_is_no_memory_is_a_503() {
    if is_03() {
        return;
    }
    let host = start(&["--workers", "1", "--memory-total", "16MiB", "--response-max", "64MiB"]);
    host.get("/probe/write-first?40000").assert_problem(503);
    assert_eq!(assert_as_new(&host).rejects("no_memory"), 1);
    assert_eq!(text(&host, "/probe/write-first?1000").len() as u64, 1000 * KIB);
    assert_as_new(&host);
}

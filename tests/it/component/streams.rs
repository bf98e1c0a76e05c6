//! Responses that are sent while they are made, and clients that do not read them.

use super::wire::{Wire, unchunked};
use super::{PATIENCE, assert_as_new, start, text};
use crate::client::message;

const CLOSE: [&str; 1] = ["connection: close"];

#[test]
fn events_are_sent_as_they_are_made() {
    let host = start(&[]);
    // A hundred take five seconds.
    let mut wire = Wire::open(&host, message("GET", "/probe/sse?100", &[], b""));
    let came = wire.wait_for("data: 0\n\n");
    assert!(came.contains("content-type: text/event-stream"), "{came}");
    assert!(!came.contains("data: 99"), "{came}");
    drop(wire);
    let wire = Wire::open(&host, message("GET", "/probe/sse?5", &CLOSE, b""));
    let (body, is_whole) = unchunked(&wire.rest());
    let events: String = (0..5).map(|number| format!("data: {number}\n\n")).collect();
    assert_eq!((String::from_utf8_lossy(&body).into_owned(), is_whole), (events, true));
    assert_as_new(&host);
}

#[test]
fn a_client_that_does_not_read_is_cut_off() {
    let host = start(&["--stall-timeout", "1s", "--deadline", "60s"]);
    let wire = Wire::open(&host, message("GET", "/probe/write-forever", &[], b""));
    host.status_when("writing", PATIENCE, |status| status.instances_out == 1);
    host.status_when("cut off", PATIENCE, |status| status.connections == 0);
    host.at_rest();
    let (_, is_whole) = unchunked(&wire.rest());
    assert!(!is_whole, "it has an end");
    assert_as_new(&host);
}

/// Pieces that bring nothing keep nobody from being served, nor do they last for ever.
#[test]
fn empty_writes_hold_up_nobody() {
    let host = start(&["--workers", "1", "--cpu-max", "500ms"]);
    assert_eq!(text(&host, "/probe/empty-writes?1000"), "end");
    let wire = Wire::open(&host, message("GET", "/probe/empty-writes", &CLOSE, b""));
    for _ in 0..20 {
        host.assert_serves("/probe/exact");
    }
    // A million are more than there is time for, unless the machine is very fast.
    let (body, is_whole) = unchunked(&wire.rest());
    let body = String::from_utf8_lossy(&body);
    assert_eq!(is_whole, body == "end", "{body:?} is taken for whole");
    assert_as_new(&host);
}

//! Responses that are sent while the guest makes them, and clients that do not read them.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;

use super::raw_connection::{RawConnection, unchunked};
use super::{assert_as_new, start, text};
use crate::client::message;
use crate::host::Host;
use crate::patience::patience;

const CLOSE: [&str; 1] = ["connection: close"];

#[test]
fn events_are_sent_as_they_are_made() {
    let host = start(&[]);
    // A hundred events take five seconds.
    let mut raw = RawConnection::open(&host, message("GET", "/probe/sse?100", &[], b""));
    let came = raw.wait_for("data: 0\n\n");
    assert!(came.contains("content-type: text/event-stream"), "{came}");
    assert!(!came.contains("data: 99"), "{came}");
    drop(raw);
    let raw = RawConnection::open(&host, message("GET", "/probe/sse?5", &CLOSE, b""));
    let (body, is_whole) = unchunked(&raw.rest());
    let events: String = (0..5).map(|number| format!("data: {number}\n\n")).collect();
    assert_eq!((String::from_utf8_lossy(&body).into_owned(), is_whole), (events, true));
    assert_as_new(&host);
}

#[test]
fn a_client_that_does_not_read_is_cut_off() {
    let host = start(&["--stall-timeout", "1s", "--deadline", "1h"]);
    let raw = RawConnection::open(&host, message("GET", "/probe/write-forever", &[], b""));
    host.status_when("writing", patience(), |status| status.instances_out == 1);
    host.status_when("cut off", patience(), |status| status.connections == 0);
    host.at_rest();
    let (_, is_whole) = unchunked(&raw.rest());
    assert!(!is_whole, "it has an end");
    assert_as_new(&host);
}

const MIB: u64 = 1 << 20;

/// Sends this many MiB to a guest that sends them back. Returns the number of bytes that came back.
fn give_back(host: &Host, mib: u64) -> u64 {
    let length = format!("content-length: {}", mib * MIB);
    let mut raw = TcpStream::connect(host.addr()).expect("a connection");
    raw.set_read_timeout(Some(patience())).expect("a socket");
    let head = message("POST", "/probe/echo", &[&length, CLOSE[0]], b"");
    raw.write_all(&head).expect("the host takes it");
    let mut sender = raw.try_clone().expect("a socket");
    std::thread::scope(|scope| {
        scope.spawn(move || {
            let piece = vec![b'x'; MIB as usize];
            (0..mib).for_each(|_| sender.write_all(&piece).expect("the host takes it"));
        });
        let (mut came, mut room) = (0, vec![0; MIB as usize]);
        loop {
            match raw.read(&mut room).expect("more of it") {
                0 => return came,
                count => came += count as u64,
            }
        }
    })
}

/// However long a body is, the host holds a few pieces of it at a time. Passing them on does not
/// keep the worker from serving others.
#[test]
fn a_long_body_takes_no_more_memory_than_a_short_one() {
    const PEAK_MAX: u64 = 16 * MIB;
    for more in [&[][..], &["--slow-priority", "off"]] {
        let flags = [&["--workers", "1", "--body-max", "probe=none"], more].concat();
        let host = start(&flags);
        give_back(&host, 8);
        host.at_rest();
        let before = host.rss_bytes();
        host.peak_bytes();
        let came = std::thread::scope(|scope| {
            let long = scope.spawn(|| give_back(&host, 400));
            host.status_when("under way", patience(), |status| status.instances_out > 0);
            for _ in 0..20 {
                host.assert_serves("/probe/exact");
            }
            long.join().expect("no panic")
        });
        assert!(came > 400 * MIB, "{came} bytes");
        let peak = host.peak_bytes();
        assert!(peak <= before + PEAK_MAX, "{before} bytes, and {peak} at the most");
        assert_as_new(&host);
    }
}

/// Empty pieces do not keep the worker from serving others, and do not go on for ever.
#[test]
fn empty_writes_hold_up_nobody() {
    // The worker's calls must not have to wait for other programs of this machine.
    let host = start(&["--workers", "1", "--cpu-max", "500ms", "--slow-priority", "0"]);
    assert_eq!(text(&host, "/probe/empty-writes?1000"), "end");
    let raw = RawConnection::open(&host, message("GET", "/probe/empty-writes", &CLOSE, b""));
    for _ in 0..20 {
        host.assert_serves("/probe/exact");
    }
    // There is no time for a million, unless the machine is very fast.
    let (body, is_whole) = unchunked(&raw.rest());
    let body = String::from_utf8_lossy(&body);
    assert_eq!(is_whole, body == "end", "{body:?} is taken for whole");
    assert_as_new(&host);
}

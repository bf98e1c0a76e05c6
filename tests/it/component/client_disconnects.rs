//! When a client disconnects, its call ends, whatever the call is doing.

use super::start;
use crate::client::message;
use crate::host::{Host, Status};
use crate::hostile::ISOLATIONS;
use crate::patience::patience;

/// Longer than any wait for a state, so that the deadline never ends a call first.
const LONG: [&str; 4] = ["--deadline", "1h", "--cpu-max", "1h"];

/// Sends this, waits until the call runs, disconnects, and waits until nothing is left of the call.
#[track_caller]
fn leave(host: &Host, request: &[u8]) {
    let mut connection = host.connect();
    connection.send(request);
    host.status_when("inside", patience(), |status| status.instances_out == 1);
    drop(connection);
    let is_over = |status: &Status| {
        status.in_flight == 0 && status.instances_out == 0 && status.connections == 0
    };
    host.status_when("nothing left", patience(), is_over);
    host.assert_serves("/probe/exact");
}

#[test]
fn a_call_ends_with_its_client() {
    for isolation in ISOLATIONS {
        let host = start(&[&["--workers", "1", "--isolation", isolation][..], &LONG].concat());
        for path in ["/probe/silent", "/probe/spin", "/probe/sse?100000", "/probe/write-forever"] {
            for _ in 0..2 {
                leave(&host, &message("GET", path, &[], b""));
            }
        }
        for path in ["/probe/upload", "/probe/echo", "/probe/early", "/probe/trap-middle"] {
            leave(&host, &message("POST", path, &["content-length: 9"], b"part"));
        }
        host.at_rest();
    }
}

//! When a client disconnects, its call ends, whatever the call is doing.

use super::{ISOLATIONS, host};
use crate::client::message;
use crate::host::Host;
use crate::patience::patience;
use crate::wat;

/// Guests that run until they are stopped, on a GET.
const ENDLESS: [&str; 4] = ["log_forever", "loop", "sleep", "stdout_forever"];

fn patient(isolation: &str) -> Host {
    let flags = ["--workers", "1", "--deadline", "1h", "--cpu-max", "1h"];
    host(ENDLESS, isolation).file("reads.wat", wat::reads()).args(flags).start()
}

/// Sends this, waits until the call runs, disconnects, and waits until nothing is left of the call.
#[track_caller]
fn leave(host: &Host, request: &[u8]) {
    let mut connection = host.connect();
    connection.send(request);
    let inside = |status: &crate::host::Status| status.instances_out == 1 && status.in_flight == 1;
    host.status_when("inside", patience(), inside);
    drop(connection);
    host.status_when("nothing left", patience(), |status| {
        status.in_flight == 0 && status.instances_out == 0 && status.connections == 0
    });
    host.assert_serves("/good");
}

#[test]
fn a_call_ends_with_its_client() {
    for isolation in ISOLATIONS {
        let host = patient(isolation);
        host.settled();
        for _ in 0..3 {
            for name in ENDLESS {
                leave(&host, &message("GET", &format!("/{name}"), &[], b""));
            }
            leave(&host, &message("POST", "/reads", &["content-length: 9"], b"part"));
            // Bytes after the request do not keep the host from noticing the end of the connection.
            let mut pipelined = message("GET", "/loop", &[], b"");
            pipelined.extend(message("GET", "/good", &[], b""));
            leave(&host, &pipelined);
        }
        // The guests still serve.
        for name in ENDLESS {
            let answer = host.request("POST", &format!("/{name}"), &[], b"");
            assert_eq!(answer.status, 200, "{name} {isolation}: {answer:?}");
        }
        host.at_rest();
    }
}

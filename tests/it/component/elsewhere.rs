//! Calls that begin on another worker than the one of their connection.

use super::{assert_as_new, setup};
use crate::client::message;
use crate::handover::of_one_worker;
use crate::patience::patience;

/// Each of two workers has one place, and the place on the connection's worker is taken.
#[test]
fn a_call_can_begin_on_another_worker() {
    let flags = ["--workers", "2", "--in-flight-max", "2", "--queue-max", "0"];
    let host = setup(&flags).start();
    host.settled();
    let [mut held, mut one, mut gone] = of_one_worker(&host);
    held.send(message("GET", "/probe/sse?100000", &[], b""));
    host.status_when("held", patience(), |status| status.instances_out == 1);
    let body = vec![b'x'; 300_000];
    let echo = one.request("POST", "/probe/echo", &[], &body);
    assert_eq!((echo.status, echo.body), (200, body));
    let events = one.get("/probe/sse?3").text();
    assert_eq!(events, "data: 0\n\ndata: 1\n\ndata: 2\n\n");
    one.get("/probe/trap-before").assert_problem(500);
    assert_eq!(host.status().calls("handed"), 3);
    // If the client disconnects, its call ends.
    gone.send(message("GET", "/probe/sse?100000", &[], b""));
    host.status_when("both", patience(), |status| status.instances_out == 2);
    drop(gone);
    host.status_when("one", patience(), |status| status.instances_out == 1);
    drop(held);
    host.at_rest();
    assert_as_new(&host);
}

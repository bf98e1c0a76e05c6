//! Kept connections: which worker has them, and how little memory they hold.

use crate::client::Connection;
use crate::host::{HELLO, Host, until};
use crate::patience::{patience, soon};

/// Sends one request on each connection. Returns how many requests each worker has answered for
/// them.
fn spread(host: &Host, connections: &mut [Connection]) -> Vec<u64> {
    let before = host.status().requests_by_worker;
    for connection in connections {
        assert_eq!(connection.get("/hello").text(), "Hello, World!");
    }
    let after = host.status().requests_by_worker;
    after.iter().zip(before).map(|(after, before)| after - before).collect()
}

#[test]
fn connections_are_spread_evenly() {
    let host = Host::with("hello.wat", HELLO).args(["--workers", "3"]).start();
    host.settled();
    for count in [3, 6, 9] {
        let mut connections: Vec<_> = (0..count).map(|_| host.connect()).collect();
        assert_eq!(spread(&host, &mut connections), [count / 3; 3]);
        drop(connections);
        host.status_when("without connections", soon(), |it| it.connections == 0);
    }
    host.at_rest();
}

/// New connections go to the worker that has the fewest.
#[test]
fn who_has_the_fewest_gets_the_next() {
    let host = Host::with("hello.wat", HELLO).start();
    host.settled();
    let mut connections: Vec<_> = (0..8).map(|_| host.connect()).collect();
    assert_eq!(spread(&host, &mut connections), [4, 4]);
    // One worker keeps all of its connections, the other one none.
    let mut open = Vec::new();
    for mut connection in connections {
        if spread(&host, std::slice::from_mut(&mut connection))[0] == 1 {
            open.push(connection);
        }
    }
    host.status_when("closed", soon(), |it| it.connections == 4);
    open.extend((0..4).map(|_| host.connect()));
    assert_eq!(spread(&host, &mut open), [4, 4]);
    host.at_rest();
}

#[test]
fn the_kernel_may_spread_them() {
    let host = Host::with("hello.wat", HELLO).args(["--balance", "kernel"]).start();
    // Chance would put 64 on one worker once in 10^19 runs.
    let mut connections: Vec<_> = (0..64).map(|_| host.connect()).collect();
    let spread = spread(&host, &mut connections);
    assert!(spread.iter().all(|count| *count > 0), "{spread:?}");
    host.at_rest();
}

/// An idle connection gives back everything but its socket, and then goes on as before.
#[test]
fn idle_connections_are_parked_and_go_on() {
    const COUNT: usize = 1500;
    let host = Host::with("hello.wat", HELLO).start();
    host.settled();
    let mut connections: Vec<_> = (0..COUNT).map(|_| host.connect()).collect();
    let all_parked = |it: &crate::host::Status| it.connections_parked == COUNT as u64;
    for _ in 0..2 {
        spread(&host, &mut connections);
        host.status_when("parked", patience(), all_parked);
    }
    let before = host.rss_bytes() >> 10;
    spread(&host, &mut connections);
    let used = host.rss_bytes() >> 10;
    until("memory given back", patience(), || {
        host.status_when("parked", patience(), all_parked);
        // Without parking, each holds some 18 KiB.
        (host.rss_bytes() >> 10 < before + 4 * COUNT as u64).then_some(())
    });
    assert!(used > before + 8 * COUNT as u64, "{before} KiB parked, {used} KiB in use");
    drop(connections);
    host.at_rest();
}

/// A part of a head that was received is not lost when its connection is parked.
#[test]
fn the_beginning_of_a_head_outlives_parking() {
    let host = Host::with("hello.wat", HELLO).start();
    host.settled();
    let mut other = host.connect();
    let mut connection = host.connect();
    connection.send("GET /hello HTTP/1.1\r\nhost: a\r\n\r\nGET /hello HT");
    assert_eq!(connection.read().text(), "Hello, World!");
    assert_eq!(other.get("/hello").text(), "Hello, World!");
    host.status_when("parked", patience(), |it| it.connections_parked > 0);
    connection.send("TP/1.1\r\nhost: a\r\n\r\n");
    assert_eq!(connection.read().text(), "Hello, World!");
    assert_eq!(connection.get("/hello").text(), "Hello, World!");
    assert_eq!(other.get("/hello").text(), "Hello, World!");
    host.at_rest();
}

/// A connection is parked after a body that was read to its end, and not after another one.
#[test]
fn a_body_that_is_not_whole_keeps_its_connection_from_parking() {
    let host = Host::demo().start_settled();
    let mut read = host.connect();
    assert!(read.request("POST", "/echo", &[], b"body").text().ends_with("body"));
    host.status_when("parked", patience(), |it| it.connections_parked == 1);
    assert!(read.request("POST", "/echo", &[], b"more").text().ends_with("more"));
    // The guest does not read this body, and hyper drops what arrives.
    let mut unread = host.connect();
    unread.send("POST /hello HTTP/1.1\r\nhost: a\r\ncontent-length: 8\r\n\r\nhalf");
    assert_eq!(unread.read().status, 200);
    host.status_when("parked", patience(), |it| it.connections_parked == 1);
    drop((read, unread));
    host.at_rest();
}

#[test]
fn a_parked_connection_is_closed_by_its_client_and_by_the_host() {
    let host = Host::with("hello.wat", HELLO).args(["--idle-timeout", "4s"]).start();
    host.settled();
    let mut closed = host.connect();
    let mut idle = host.connect();
    assert_eq!(closed.get("/hello").status, 200);
    assert_eq!(idle.get("/hello").status, 200);
    host.status_when("parked", patience(), |it| it.connections_parked == 2);
    closed.finish();
    assert_eq!(closed.read_to_close(), b"");
    assert_eq!(idle.read_to_close(), b"");
    host.at_rest();
}

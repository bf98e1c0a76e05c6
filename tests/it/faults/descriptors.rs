//! File descriptors: a start with 0, 1, 2 and so on until the host serves, and a host that has none
//! left for connections.

use rustix::process::{Resource, Rlimit, getrlimit, prlimit};

use super::assert_whole;
use crate::client::{Connection, message};
use crate::host::{HELLO, Host, Setup, until};
use crate::patience::soon;

/// A host that may have this many descriptors open, and cannot raise the limit.
fn limited(descriptors: u64) -> Setup {
    let limit = format!("ulimit -n {descriptors} && exec \"$@\"");
    Host::with("good.wat", HELLO).through(["sh", "-c", &limit, "sh"])
}

/// From the first number with which a program can be loaded.
#[test]
fn starts_until_the_descriptors_are_enough() {
    let mut refused = 0;
    for descriptors in 5..64 {
        // A start that is refused ends the process. A start that is not refused serves.
        match limited(descriptors).try_start() {
            Ok(host) => {
                host.assert_serves("/good");
                assert_whole(&host);
                assert!(refused > 0, "{descriptors} descriptors were enough");
                return;
            }
            Err((code, log)) => {
                assert_eq!(code, Some(1), "with {descriptors}: {log}");
                assert!(log.contains("error: "), "with {descriptors}: {log}");
                assert!(!log.contains("panicked"), "with {descriptors}: {log}");
                refused += 1;
            }
        }
    }
    panic!("no number was enough");
}

fn ask(host: &Host) -> Connection {
    let mut connection = host.connect();
    connection.send(message("GET", "/good", &[], b""));
    connection
}

fn warned(host: &Host) -> usize {
    let warns = |line: &crate::host::Line| line.has(&["cannot accept connections now"]);
    host.lines().iter().filter(|line| warns(line)).count()
}

/// With 0, 1, 2 free descriptors the host accepts as many connections. The others are answered when
/// more descriptors are free.
#[test]
fn connections_until_the_descriptors_are_enough() {
    const CONNECTIONS: u64 = 4;
    let host = Host::with("good.wat", HELLO).args(["--workers", "1"]).start();
    host.settled();
    host.assert_serves("/good");
    assert_whole(&host);
    let usual = getrlimit(Resource::Nofile).maximum;
    for free in 0..=CONNECTIONS {
        let used = host.descriptors();
        // The limit is on the numbers of descriptors, and some below the highest one in use are
        // free.
        let mut unused = (0..usual.unwrap_or(u64::MAX)).filter(|number| !used.contains(number));
        let enough = unused.nth(free as usize);
        let limit = |current| {
            let limit = Rlimit { current, maximum: usual };
            prlimit(Some(host.pid()), Resource::Nofile, limit).expect("a child's limit");
        };
        limit(enough);
        let before = warned(&host);
        let mut asked: Vec<Connection> = (0..CONNECTIONS).map(|_| ask(&host)).collect();
        for connection in asked.iter_mut().take(free as usize) {
            assert_eq!(connection.read().text(), "Hello, World!");
        }
        if free < CONNECTIONS {
            until("warning", soon(), || (warned(&host) > before).then_some(()));
            assert_eq!(host.status().connections, free);
        }
        for connection in asked.iter_mut().skip(free as usize) {
            connection.assert_silent();
        }
        limit(usual);
        for connection in asked.iter_mut().skip(free as usize) {
            assert_eq!(connection.read().text(), "Hello, World!");
        }
        drop(asked);
        assert_whole(&host);
    }
}

/// The host goes on accepting after it ran out of descriptors.
#[test]
fn more_connections_than_descriptors() {
    let host = limited(64).args(["--connections-max", "1000"]).start();
    host.settled();
    for _ in 0..3 {
        let before = warned(&host);
        // They are idle, and may hold a descriptor each for as long as they like.
        let idle: Vec<Connection> = (0..100).map(|_| host.connect()).collect();
        until("warning", soon(), || (warned(&host) > before).then_some(()));
        drop(idle);
        host.assert_serves("/good");
        assert_whole(&host);
    }
}

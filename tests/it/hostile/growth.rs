//! Guests that take as much memory as they get: they get the limit, and asking for more is refused
//! without a trap.

use super::{ISOLATIONS, host};
use crate::client::Response;
use crate::host::{HELLO, Host};

/// The hostile guests that this file tests.
pub const GUESTS: &[&str] =
    &["header_churn", "memories_grow", "memory_grow", "memory_grow_refused", "table_grow"];

/// The number of pages of 64 KiB in the `--memory-max` of these tests.
const PAGES_MAX: i32 = 32;

/// Decodes a body of numbers with four bytes each.
fn numbers(answer: &Response) -> Vec<i32> {
    assert_eq!(answer.status, 200, "{}", answer.text());
    let words = answer.body.chunks_exact(4);
    let number = |word: &[u8]| i32::from_le_bytes(word.try_into().expect("four bytes"));
    words.map(number).collect()
}

fn small(isolation: &str) -> Host {
    host(GUESTS.iter().copied(), isolation).args(["--memory-max", "2MiB", "--workers", "1"]).start()
}

#[test]
fn memory_ends_at_the_limit() {
    for isolation in ISOLATIONS {
        let host = small(isolation);
        for path in ["/memory_grow", "/memories_grow"] {
            // Under reuse, the second request finds the memory as large as it can be.
            for _ in 0..3 {
                assert_eq!(numbers(&host.get(path)), [-1, PAGES_MAX], "{path} {isolation}");
            }
        }
        host.assert_serves("/good");
        host.at_rest();
    }
}

#[test]
fn the_default_limit_of_memory_is_128_mib() {
    let host = host(["memory_grow"], "fresh").start();
    assert_eq!(numbers(&host.get("/memory_grow")), [-1, 2048]);
    assert_eq!(numbers(&host.get("/memory_grow")), [-1, 2048]);
    host.at_rest();
}

/// If one memory was refused to grow, the pages that it asked for must not count against the
/// guest's other memories.
#[test]
fn memory_that_was_refused_does_not_count() {
    let host = small("fresh");
    assert_eq!(numbers(&host.get("/memory_grow_refused")), [-1, 1]);
    assert_eq!(numbers(&host.get("/memory_grow_refused")), [-1, 1]);
    host.at_rest();
}

#[test]
fn a_table_ends_at_the_limit() {
    const SLOTS_MAX: i32 = 20_000;
    for isolation in ISOLATIONS {
        let host = small(isolation);
        for _ in 0..3 {
            let numbers = numbers(&host.get("/table_grow"));
            assert_eq!(numbers[0], -1, "{isolation}");
            let slots = SLOTS_MAX - 1000 + 1..=SLOTS_MAX;
            assert!(slots.contains(&numbers[1]), "{isolation}: {numbers:?}");
        }
        host.assert_serves("/good");
        host.at_rest();
    }
}

/// The limit on headers applies to those that the response has, not to all that were ever set.
#[test]
fn headers_that_were_replaced_do_not_count() {
    let host = small("fresh");
    let answer = host.get("/header_churn");
    assert_eq!(answer.status, 200, "{}", answer.text());
    assert_eq!(answer.header("x-churn"), Some("x-churn"));
    host.at_rest();
}

/// Many requests at once, each of which takes all the memory that it may have.
#[test]
fn greedy_requests_side_by_side_are_all_answered() {
    let host = host(["memory_grow"], "fresh").args(["--memory-max", "16MiB"]).start();
    let mut connections: Vec<_> = (0..32).map(|_| host.connect()).collect();
    for connection in &mut connections {
        connection.send("GET /memory_grow HTTP/1.1\r\nhost: guest.test\r\n\r\n");
    }
    for connection in &mut connections {
        assert_eq!(numbers(&connection.read()), [-1, 256]);
    }
    host.assert_serves("/good");
    host.at_rest();
}

/// A module whose initial size is just at the limit is served. With one page more it is not.
#[test]
fn a_guest_may_begin_with_all_the_memory_it_may_have() {
    let sized = |pages: u32| {
        HELLO.replace(
            "(memory (export \"memory\") 1)",
            &format!("(memory (export \"memory\") {pages})"),
        )
    };
    let host = Host::with("all.wat", sized(32))
        .file("more.wat", sized(33))
        .args(["--memory-max", "2MiB"])
        .start();
    host.assert_serves("/all");
    host.get("/more").assert_problem(503);
    host.wait_log_with(&["more", "--memory-max"]);
    host.at_rest();
}

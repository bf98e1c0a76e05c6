//! Memory for loading files: code counts as files do, and a load that waits for memory holds up no
//! other.

use std::time::Duration;

use super::{MIB, hoard, host};
use crate::client::{Connection, message};
use crate::host::{HELLO, Host, until};
use crate::patience::soon;
use crate::wat;

/// A load that waits for memory is given up after 10 s.
const BEFORE_GIVEN_UP: Duration = Duration::from_secs(8);

/// A guest with two data segments that are far apart. The compiler makes an image of this many
/// bytes.
fn far_apart(bytes: u64, says: &str) -> String {
    let (pages, last) = (bytes.div_ceil(65_536), bytes - 8);
    let data = format!(r#"(data (i32.const 8) "x") (data (i32.const {last}) "x")"#);
    let memory = format!(r#"(memory (export "memory") {pages}) {data}"#);
    let text = wat::says(says).replace(r#"(memory (export "memory") 2)"#, &memory);
    assert!(text.contains(&data), "{text}");
    text
}

#[test]
fn code_counts_however_small_its_file_is() {
    let guests = [("image", far_apart(12 * MIB, "image")), ("less", far_apart(2 * MIB, "less"))];
    assert!(guests[0].1.len() < 2_000, "{}", guests[0].1.len());
    let host = host(&guests, "32MiB").start();
    let status = host.settled();
    assert_eq!((status.ready, status.failed), (2, 1), "{status:?}");
    host.wait_log_with(&["image.wat", "KiB of code", "more than half of --memory-total"]);
    host.get("/image").assert_problem(503);
    assert_eq!(host.get("/less").text(), "less");
    host.assert_serves("/good");
}

/// Takes memory until there is only enough for small requests. Returns the requests that hold it.
#[track_caller]
fn fill(host: &Host) -> Vec<Connection> {
    const ASKED: usize = 32;
    let head = "POST /hoard HTTP/1.1\r\nhost: guest.test\r\ncontent-length: 4\r\n\r\n";
    let mut waiting: Vec<Connection> = (0..ASKED).map(|_| host.connect()).collect();
    for connection in &mut waiting {
        connection.send(head);
    }
    host.status_when("full", soon(), |status| {
        let refused = status.rejects("no_memory");
        let all = status.in_flight + refused == ASKED as u64;
        refused > 0 && all && status.in_flight == status.instances_out
    });
    waiting
}

/// However many large files wait for memory, and however many requests wait for them, a small file
/// is loaded at once, and the large ones when there is memory.
#[test]
fn large_files_that_wait_for_memory_hold_up_no_small_one() {
    const LARGE: usize = 40;
    let host = host(&[("hoard", hoard(32, 0, 0))], "64MiB").args(["--deadline", "60s"]).start();
    host.settled();
    let waiting = fill(&host);
    let comment = format!("\n;; {}", "x".repeat(MIB as usize));
    for at in 0..LARGE {
        let text = wat::says(&format!("large {at}")) + &comment;
        std::fs::write(host.handlers().join(format!("large-{at}.wat")), text).expect("a file");
    }
    let all = LARGE as u64 + 2;
    host.status_when("all with a route", soon(), |status| status.handlers == all);
    let held = host.status().in_flight;
    let mut asked: Vec<Connection> = (0..LARGE)
        .map(|at| {
            let mut connection = host.connect();
            connection.send(message("GET", &format!("/large-{at}"), &[], b""));
            connection
        })
        .collect();
    let placed = held + LARGE as u64;
    host.status_when("all wait", soon(), |status| status.in_flight == placed);
    std::fs::write(host.handlers().join("late.wat"), HELLO).expect("a file");
    host.status_when("it has a route", soon(), |status| status.handlers == all + 1);
    host.assert_serves("/late");
    // Not after any load that was given up.
    let given_up = host.lines().iter().filter(|line| line.has(&["leave no more of"])).count();
    assert_eq!(given_up, 0, "a large one had its time before");
    for connection in &mut asked {
        connection.assert_silent();
    }
    drop(waiting);
    for (at, connection) in asked.iter_mut().enumerate() {
        assert_eq!(connection.read().text(), format!("large {at}"));
    }
    host.at_rest();
}

/// If a file could not be loaded, and the file that replaces it waits for memory, the new one is
/// not treated as bad.
#[test]
fn what_has_been_mended_waits_like_any_other() {
    let (host, mut holds) = held(832, "fresh");
    let large = host.handlers().join("large.wat");
    std::fs::write(&large, "(module").expect("a file");
    host.status_when("failed", soon(), |status| status.failed == 1);
    host.get("/large").assert_problem(503);
    let mended = host.handlers().join("large.new");
    let text = wat::says("mended") + "\n;; " + &"x".repeat(3 * MIB as usize);
    std::fs::write(&mended, text).expect("a file");
    std::fs::rename(&mended, &large).expect("its file");
    host.status_when("seen", BEFORE_GIVEN_UP, |status| status.failed == 0);
    let mut asks = host.connect();
    asks.send(message("GET", "/large", &[], b""));
    host.status_when("it waits", soon(), |status| status.in_flight == 2);
    asks.assert_silent();
    holds.send("done");
    assert_eq!(holds.read().status, 200);
    assert_eq!(asks.read().text(), "mended");
    host.at_rest();
}

/// A host with 64 MiB, of which one call holds this many pages until it is sent four bytes.
#[track_caller]
fn held(pages: u32, isolation: &str) -> (Host, Connection) {
    let host = host(&[("hoard", hoard(pages, 0, 0))], "64MiB").args(["--isolation", isolation]);
    let host = host.args(["--workers", "1", "--deadline", "8s"]).start();
    host.settled();
    let mut holds = host.connect();
    holds.send("POST /hoard HTTP/1.1\r\nhost: guest.test\r\ncontent-length: 4\r\n\r\n");
    host.status_when("held", soon(), |status| status.instances_out == 1);
    host.assert_serves("/good");
    (host, holds)
}

/// Under `reuse` a call leaves a ready instance with the memory that it took. If a load was waiting
/// before, this instance is evicted.
#[test]
fn ready_instances_are_given_up_for_a_load_that_waits() {
    let (host, mut holds) = held(448, "reuse");
    let text = wat::says("large") + "\n;; " + &"x".repeat(10 * MIB as usize);
    std::fs::write(host.handlers().join("large.wat"), text).expect("a file");
    host.wait_log_with(&["memory is short"]);
    let mut asks = host.connect();
    asks.send(message("GET", "/large", &[], b""));
    host.status_when("it waits", soon(), |status| status.in_flight == 2);
    // Instances that were ready when the load began to wait have been evicted.
    host.status_when("relieved", soon(), |status| status.instances_ready == 0);
    holds.send("done");
    assert_eq!(holds.read().status, 200);
    assert_eq!(asks.read().text(), "large");
}

/// Other threads free what a thread has loaded. The memory goes back to the kernel, even if that
/// thread loads nothing more.
#[test]
fn what_was_loaded_and_is_unloaded_goes_back_to_the_kernel() {
    const GUESTS: usize = 8;
    const ROUNDS: usize = 3;
    const LEFT_MAX: u64 = 64 * MIB;
    let exports: String = (0..60_000).map(|at| format!("(export \"e{at}\" (func 0))")).collect();
    let text = |at: usize| {
        let text = wat::says(&format!("large {at}"));
        format!("{} {exports})", text.trim_end().strip_suffix(')').expect("a module"))
    };
    let host = host(&[], "256MiB")
        .args(["--loaded-max", "8MiB", "--workers", "1", "--deadline", "60s", "--cpu-max", "60s"])
        .start();
    host.settled();
    let before = host.rss_bytes();
    for at in 0..GUESTS {
        std::fs::write(host.handlers().join(format!("large-{at}.wat")), text(at)).expect("a file");
    }
    for at in (0..GUESTS).cycle().take(GUESTS * ROUNDS) {
        let path = format!("/large-{at}");
        until("it is served", soon(), || (host.get(&path).status != 404).then_some(()));
        assert_eq!(host.get(&path).text(), format!("large {at}"));
    }
    until("memory that is given back", soon(), || {
        let status = host.status();
        let used = status.memory_used;
        (host.rss_bytes() <= before + used + LEFT_MAX).then_some(())
    });
}

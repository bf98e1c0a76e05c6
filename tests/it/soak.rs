//! A soak test: all hostile guests and clients at once, beside good ones, for `SOAK_SECONDS`.
//!
//! No good request is lost, nothing panics, and once the load ends everything is back: requests,
//! instances, connections, descriptors, and memory. The first third of the time warms the host up,
//! and what the host holds at the end is compared with what it held then. Chance decides how many
//! slots are ever in use at once, so a host that has grown is loaded again: a leak grows each time,
//! a slot that is used for the first time does not. In `cargo test` it is a miniature; `just soak`
//! takes five minutes.

use std::collections::BTreeMap;
use std::sync::Mutex;
use std::time::{Duration, Instant};

use crate::abi::probe::Probe;
use crate::host::{Host, Setup, Status, until};
use crate::hostile;
use crate::patience::patience;
use crate::wat;

mod clients;

/// The whole time without `SOAK_SECONDS`.
const SECONDS: u64 = 3;

/// Memory that may come on top of that after the first third. The pages of a guest's memory are
/// kept for the next guest, so each slot that is used for the first time adds to it.
const RSS_GROWTH_MAX: u64 = 48 << 20;

/// How often the load runs after the first third, at most.
const LOADS_MAX: usize = 4;

/// The number of answered requests of each kind.
type Tally = Mutex<BTreeMap<&'static str, u64>>;

/// What a host holds at rest.
#[derive(Clone, Copy, Debug)]
struct Held {
    rss_bytes: u64,
    descriptors: usize,
}

/// A guest that keeps one page more with each request, and traps when there is none left.
fn leaking() -> String {
    Probe::new(
        "(if (i32.eq (memory.grow #1) #-1) (then (unreachable)))
         (i32.store8 (i32.sub (i32.mul (memory.size) #65536) #1) #1)",
    )
    .wat()
}

/// A guest that takes much memory at once, and writes to all of it.
fn bursting() -> String {
    Probe::new(
        "(if (i32.ne (memory.grow #200) #-1)
           (then (memory.fill #0x30000 #0x73 #0xc80000)))",
    )
    .wat()
}

/// A guest with a large answer.
fn large() -> String {
    Probe::new(
        "(local $left i32)
         (local.set $left #100)
         (loop $more
           (call $write_body #1 #65536 #65536)
           (br_if $more (local.tee $left (i32.sub (local.get $left) #1))))",
    )
    .wat()
}

fn setup(isolation: &str) -> Setup {
    let names = hostile::names();
    hostile::host(names.iter().map(String::as_str), isolation)
        .file("echo.wat", wat::echoes())
        .file("swapped.wat", wat::says("version 0"))
        .file("leaking.wat", leaking())
        .file("bursting.wat", bursting())
        .file("large.wat", large())
        .args(["--native", "--memory-max", "16MiB", "--deadline", "2s", "--cpu-max", "50ms"])
}

/// Waits until nothing is in flight and nothing is held for a client.
#[track_caller]
fn rest(host: &Host) -> Status {
    // No longer than a body may stall: what only that timeout ends is not at rest.
    host.status_when("at rest without connections", patience() / 2, |status| {
        let idle = status.in_flight == 0 && status.instances_out == 0;
        idle && status.connections == 0 && status.loading == 0 && status.cold == 0
    })
}

fn held(host: &Host) -> Held {
    Held { rss_bytes: host.rss_bytes(), descriptors: host.descriptors().len() }
}

/// What the host holds once it gives nothing more back.
#[track_caller]
fn held_at_rest(host: &Host) -> Held {
    rest(host);
    let least = Mutex::new((held(host), 0));
    until("memory that stays the same", patience(), || {
        let now = held(host);
        let mut least = least.lock().expect("one thread");
        let shrunk = now.rss_bytes < least.0.rss_bytes || now.descriptors < least.0.descriptors;
        *least = if shrunk { (now, 0) } else { (least.0, least.1 + 1) };
        (least.1 == 40).then_some(least.0)
    })
}

/// Loads the host until it holds no more than it did before the load.
#[track_caller]
fn load_until_flat(host: &Host, time: Duration, tally: &Tally) {
    let mut before = held_at_rest(host);
    for _ in 0..LOADS_MAX {
        clients::load(host, Instant::now() + time, tally);
        let after = held_at_rest(host);
        println!("held before {before:?}, after {after:?}");
        let flat = after.rss_bytes <= before.rss_bytes + RSS_GROWTH_MAX;
        if flat && after.descriptors <= before.descriptors {
            return;
        }
        before = after;
    }
    panic!("after {LOADS_MAX} loads each leaves more behind: {before:?}");
}

fn soak(isolation: &str) {
    let seconds = std::env::var("SOAK_SECONDS").map_or(SECONDS, |seconds| {
        seconds.parse().unwrap_or_else(|error| panic!("SOAK_SECONDS={seconds}: {error}"))
    });
    let third = Duration::from_secs(seconds) / 3;
    let host = setup(isolation).start();
    for path in clients::GOOD {
        // It is loaded at the same time as guests that take as long to load as they may.
        until(path, patience(), || (host.get(path).status == 200).then_some(()));
    }
    let tally = Tally::default();
    clients::load(&host, Instant::now() + third, &tally);
    load_until_flat(&host, 2 * third, &tally);
    let status = rest(&host);
    host.assert_no_panic();
    assert_eq!(status.rejects("panic"), 0, "{status:?}");
    // On a busy machine a call may reach its deadline before it has had its CPU time.
    for ends in [&["trap"][..], &["cpu_time", "deadline"], &["not_loaded"], &["body_broken"]] {
        let count: u64 = ends.iter().map(|end| status.rejects(end)).sum();
        assert!(count > 0, "no {ends:?} in {status:?}");
    }
    for path in clients::GOOD {
        host.assert_serves(path);
    }
    let tally = tally.into_inner().expect("no client has panicked");
    println!("{isolation}: {tally:?}\n{status:?}");
}

#[test]
fn hostile_guests_side_by_side_harm_nobody_under_fresh() {
    soak("fresh");
}

#[test]
fn hostile_guests_side_by_side_harm_nobody_under_reuse() {
    soak("reuse");
}

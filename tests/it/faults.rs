//! Fault loops, as in SQLite: for every kind of budget, the same request with a budget of 0, 1, 2
//! and so on until it succeeds.
//!
//! After every step nothing has panicked, every permit, instance and connection is back, and the
//! next good request is answered. This file has memory and time; each other budget has a file of
//! its own.

use crate::abi::probe::Probe;
use crate::host::{HELLO, Host, Status, until};
use crate::hostile;
use crate::patience::soon;

mod bodies;
mod cuts;
mod descriptors;
mod places;

const PAGE: usize = 64 << 10;

/// The initial pages of a probe.
const PAGES_MIN: usize = 3;

/// Asserts that a step has left nothing behind, and that the next request is answered as the first
/// one was.
#[track_caller]
fn assert_whole(host: &Host) -> Status {
    host.assert_serves("/good");
    assert_nothing_left(host)
}

/// Asserts that nothing has panicked, and that everything that a request holds is back.
#[track_caller]
fn assert_nothing_left(host: &Host) -> Status {
    let status = host.status_when("at rest without connections", soon(), |status| {
        status.in_flight == 0 && status.instances_out == 0 && status.connections == 0
    });
    host.assert_no_panic();
    assert_eq!(status.rejects("panic"), 0, "{status:?}");
    status
}

/// The path of a request that asks `guest` for `amount` of something. The query has that length.
fn asking(guest: &str, amount: usize) -> String {
    format!("/{guest}?{}", "x".repeat(amount))
}

/// Code that puts the length of the query into `$amount`, which it declares. The guest's name has
/// to have four letters.
const AMOUNT: &str = "
    (local $amount i32)
    (local.set $amount (i32.sub (call $get_uri #0 #0) #6))";

/// Grows page by page to the requested number of pages, and writes to each. Traps if it gets no
/// more.
fn growing() -> String {
    let grow = "
    (loop $more
      (if (i32.lt_u (memory.size) (local.get $amount))
        (then
          (if (i32.eq (memory.grow #1) #-1) (then (unreachable)))
          (i32.store8 (i32.sub (i32.mul (memory.size) #65536) #1) #1)
          (br $more))))
    (call $int (memory.size))";
    Probe::new(&format!("{AMOUNT} {grow}")).wat()
}

/// Computes for some hundred milliseconds. On a busy machine, the clock that stops it may be late
/// by some ten.
const COMPUTE: &str = "
    (local $left i32)
    (local.set $left #200000000)
    (loop $again
      (i32.store #4096 (i32.add (i32.load #4096) (local.get $left)))
      (br_if $again (local.tee $left (i32.sub (local.get $left) #1))))";

/// The memory limit itself: one byte less and one byte more than each number of pages.
#[test]
fn memory_max_until_it_is_enough() {
    const WANTED: usize = 8;
    let budgets = (1..=WANTED + 1).flat_map(|pages| {
        let exact = pages * PAGE;
        [exact - 1, exact, exact + 1]
    });
    let mut enough = None;
    // The smallest limit is one page.
    for budget in budgets.filter(|budget| *budget >= PAGE) {
        let host = Host::with("good.wat", HELLO)
            .file("grow.wat", growing())
            .args(["--memory-max", &budget.to_string()])
            .start();
        host.settled();
        let answer = host.get(&asking("grow", WANTED));
        match budget / PAGE {
            pages if pages < PAGES_MIN => answer.assert_problem(503),
            pages if pages < WANTED => answer.assert_problem(500),
            _ => {
                assert_eq!(answer.text(), format!("{WANTED}\n"), "{budget} bytes");
                enough = enough.or(Some(budget));
            }
        }
        assert_whole(&host);
    }
    assert_eq!(enough, Some(WANTED * PAGE));
}

/// A fixed limit, and requests that need 0, 1, 2 pages and so on.
#[test]
fn memory_page_by_page() {
    const PAGES_MAX: usize = 16;
    let budget = (PAGES_MAX * PAGE).to_string();
    for isolation in hostile::ISOLATIONS {
        let host = Host::with("good.wat", HELLO)
            .file("grow.wat", growing())
            .args(["--memory-max", &budget, "--isolation", isolation])
            .start();
        for pages in 0..PAGES_MAX + 4 {
            let answer = host.get(&asking("grow", pages));
            if pages <= PAGES_MAX {
                let has = pages.max(PAGES_MIN);
                assert_eq!(answer.text(), format!("{has}\n"), "{isolation}");
            } else {
                answer.assert_problem(500);
            }
            let status = assert_whole(&host);
            assert_eq!(status.rejects("trap"), pages.saturating_sub(PAGES_MAX) as u64);
        }
    }
}

/// Budgets in milliseconds. They double, from one that is never enough to one that always is.
fn times() -> impl Iterator<Item = (u32, String)> {
    (0..15).map(|step| (1 << step, format!("{}ms", 1 << step)))
}

/// A guest that computes, one that sleeps, and one with start-up code that computes.
fn spending() -> crate::host::Setup {
    let sleeping = hostile::text("sleep").replace("3600000000000", "100000000");
    Host::with("good.wat", HELLO)
        .file("compute.wat", Probe::new(COMPUTE).wat())
        .file("sleep.wat", sleeping)
        .file("begin.wat", Probe::new("").start(COMPUTE).wat())
}

/// Sends a request that is either answered or refused with this status. Returns which.
#[track_caller]
fn is_answered(host: &Host, path: &str, refused: u16) -> bool {
    let answer = host.get(path);
    if answer.status != 200 {
        answer.assert_problem(refused);
    }
    answer.status == 200
}

#[test]
fn deadline_until_it_is_enough() {
    for (budget_ms, budget) in times() {
        let host = spending().args(["--deadline", &budget]).start();
        host.settled();
        let ended = [
            is_answered(&host, "/compute", 504),
            is_answered(&host, "/sleep", 504),
            is_answered(&host, "/begin", 503),
        ];
        assert!(budget_ms > 1 || ended == [false; 3], "{ended:?} within a millisecond");
        // The shortest budgets are not always enough for a good request, either.
        until("a good answer", soon(), || is_answered(&host, "/good", 504).then_some(()));
        let status = assert_nothing_left(&host);
        let late = ended[..2].iter().filter(|ended| !**ended).count() as u64;
        assert!(status.rejects("deadline") >= late, "{status:?}");
        assert_eq!(status.rejects("not_loaded"), u64::from(!ended[2]), "{status:?}");
        if ended == [true; 3] {
            return;
        }
    }
    panic!("no budget was enough");
}

#[test]
fn cpu_max_until_it_is_enough() {
    for (budget_ms, budget) in times() {
        let host = spending().args(["--cpu-max", &budget]).start();
        host.settled();
        let ended = [is_answered(&host, "/compute", 504), is_answered(&host, "/begin", 503)];
        assert!(budget_ms > 1 || ended == [false; 2], "{ended:?} within a millisecond");
        until("a good answer", soon(), || is_answered(&host, "/good", 504).then_some(()));
        let status = assert_nothing_left(&host);
        assert!(status.rejects("cpu_time") >= u64::from(!ended[0]), "{status:?}");
        if ended == [true; 2] {
            return;
        }
    }
    panic!("no budget was enough");
}

//! Tests of how much memory loads leave to served guests, and of which loads wait.

use std::time::{Duration, Instant};

use super::{LoadEstimate, LoadMemory, LoadReservation, OVERTAKE_AFTER, PATIENCE};
use crate::guest::engine::budget::Budget;
use crate::guest::engine::load_failure::{FailureCause, LoadFailure};

const MIB: u64 = 1 << 20;

fn file(file_bytes: u64) -> LoadEstimate {
    LoadEstimate { file_bytes, code_bytes: 0 }
}

fn enter(loads: &mut LoadMemory, file_bytes: u64) -> Option<Result<LoadReservation, LoadFailure>> {
    loads.begin_scan();
    loads.reserve_load(1, file(file_bytes), Instant::now())
}

#[track_caller]
fn place(loads: &mut LoadMemory, file_bytes: u64) -> LoadReservation {
    enter(loads, file_bytes).expect("it need not wait").expect("it fits")
}

#[test]
fn a_file_that_would_take_more_than_a_half_is_refused() {
    let mut loads = LoadMemory::new(Budget::new(64 << 20));
    drop(place(&mut loads, 10 * MIB));
    let refused = enter(&mut loads, 11 * MIB).expect("no wait").err().expect("it is too large");
    assert_eq!(refused.cause, FailureCause::File);
    assert!(refused.reason.contains("three times its 11264 KiB"), "{}", refused.reason);
}

#[test]
fn code_is_charged_however_small_its_file_is() {
    let memory = Budget::new(64 << 20);
    let mut loads = LoadMemory::new(memory.clone());
    let mut small = place(&mut loads, 465);
    assert_eq!(memory.used(), 0);
    small.reserve_code(4 * MIB).expect("it fits");
    assert!(memory.used() as u64 >= 8 * MIB, "{}", memory.used());
    // Less code takes no further memory.
    let used = memory.used();
    small.reserve_code(3 * MIB).expect("it has that");
    assert_eq!(memory.used(), used);
    let refused = small.reserve_code(17 * MIB).expect_err("more than a half");
    assert_eq!((refused.cause, small.is_short), (FailureCause::File, false));
    assert!(refused.reason.contains("17408 KiB of code"), "{}", refused.reason);
    drop(small);
    assert_eq!(memory.used(), 0);
}

/// A load without memory for its code gives its reservation back, and begins again later.
#[test]
fn code_that_does_not_fit_is_known_the_next_time() {
    let memory = Budget::new(64 << 20);
    let mut loads = LoadMemory::new(memory.clone());
    let mut first = place(&mut loads, 465);
    first.reserve_code(3 * MIB).expect("it fits");
    let mut second = place(&mut loads, 465);
    let short = second.reserve_code(3 * MIB).expect_err("an eighth is taken");
    assert_eq!((short.cause, second.is_short), (FailureCause::Shortage, true));
    let need = second.need();
    assert_eq!(need.code_bytes, 3 * MIB);
    drop(second);
    let again = |loads: &mut LoadMemory| {
        loads.begin_scan();
        loads.reserve_load(2, need, Instant::now())
    };
    assert!(again(&mut loads).is_none());
    drop(first);
    let mut second = again(&mut loads).expect("no wait").expect("it fits");
    second.reserve_code(3 * MIB).expect("it has that");
}

#[test]
fn guests_that_are_served_keep_their_memory() {
    let memory = Budget::new(64 << 20);
    let mut loads = LoadMemory::new(memory.clone());
    let guests = memory.force_charge(40 << 20);
    // Of 56 MiB that may be taken for anything, 16 are left.
    drop(place(&mut loads, 5 * MIB));
    let shortages = memory.shortages();
    for _ in 0..3 {
        assert!(enter(&mut loads, 6 * MIB).is_none());
    }
    assert_eq!((memory.used(), memory.shortages()), (40 << 20, shortages + 1));
    drop(guests);
    drop(place(&mut loads, 6 * MIB));
    assert_eq!(memory.used(), 0);
    let _guests = memory.force_charge(60 << 20);
    assert!(enter(&mut loads, MIB).is_none());
    loads.begin_scan();
    let late = Instant::now() + PATIENCE;
    let refused =
        loads.reserve_load(1, file(MIB), late).expect("no wait").err().expect("no memory");
    assert_eq!(refused.cause, FailureCause::Shortage);
    assert!(loads.poll_after().is_none());
}

#[test]
fn small_loads_wait_for_nobody_and_large_ones_for_the_first() {
    let memory = Budget::new(64 << 20);
    let mut loads = LoadMemory::new(memory.clone());
    let guests = memory.force_charge(50 << 20);
    let now = Instant::now();
    loads.begin_scan();
    assert!(loads.reserve_load(1, file(6 * MIB), now).is_none());
    // There is enough memory for this one, but it must not overtake.
    assert!(loads.reserve_load(2, file(MIB), now).is_none());
    let mut small =
        loads.reserve_load(3, file(16 << 10), now).expect("no wait").expect("it is small");
    small.reserve_code(64 << 10).expect("it is small");
    assert_eq!(small.reserve_code(MIB).expect_err("one waits").cause, FailureCause::Shortage);
    drop((small, guests));
    loads.begin_scan();
    let first = loads.reserve_load(1, file(6 * MIB), now).expect("no wait").expect("it fits");
    assert!(loads.reserve_load(2, file(MIB), now).is_none(), "the first goes alone");
    drop(first);
    loads.begin_scan();
    drop(loads.reserve_load(2, file(MIB), now).expect("no wait").expect("it fits"));
    assert_eq!(memory.used(), 0);
}

#[test]
fn who_waits_and_is_gone_keeps_nobody_waiting() {
    let memory = Budget::new(64 << 20);
    let mut loads = LoadMemory::new(memory.clone());
    let guests = memory.force_charge(60 << 20);
    assert!(enter(&mut loads, MIB).is_none());
    assert_eq!(loads.poll_after(), Some(Duration::from_millis(100)));
    loads.end_scan();
    assert!(loads.poll_after().is_some());
    loads.begin_scan();
    loads.end_scan();
    assert!(loads.poll_after().is_none());
    drop(guests);
    let mut small = place(&mut loads, 465);
    small.reserve_code(MIB).expect("nobody waits");
}

/// Guests may hold their memory for long. After a while, loads that take much less than the waiting
/// one overtake it; loads that take about as much do not.
#[test]
fn a_much_smaller_load_goes_ahead_of_one_that_waits_for_guests() {
    let memory = Budget::new(64 << 20);
    let mut loads = LoadMemory::new(memory.clone());
    let _guests = memory.force_charge(50 << 20);
    let began = Instant::now();
    let mut look = |after: Duration, smaller: u64| {
        let now = began + after;
        loads.begin_scan();
        let first = loads.reserve_load(1, file(4 * MIB), now);
        if after >= PATIENCE {
            assert_eq!(
                first.and_then(Result::err).map(|it| it.cause),
                Some(FailureCause::Shortage)
            );
            return None;
        }
        assert!(first.is_none());
        loads.reserve_load(2, file(smaller), now).map(|entered| entered.expect("it fits"))
    };
    assert!(look(Duration::ZERO, MIB).is_none());
    assert!(look(OVERTAKE_AFTER / 2, MIB).is_none());
    let shortages = memory.shortages();
    let mut place = look(OVERTAKE_AFTER, MIB).expect("it need not wait any more");
    // A load that has overtaken neither restarts the first one's wait nor waits for it.
    assert!(look(2 * OVERTAKE_AFTER, 2 * MIB).is_none());
    place.reserve_code(MIB).expect("it takes less than a half");
    assert!(place.reserve_code(3 * MIB).is_err(), "as much as the first one takes");
    drop(place);
    assert!(look(3 * OVERTAKE_AFTER, 3 * MIB).is_none());
    let guests = memory.force_charge(5 << 20);
    assert!(look(4 * OVERTAKE_AFTER, MIB).is_none());
    // Each second the first load asks again for ready instances, if there is room for it. No other
    // load does.
    assert_eq!(memory.shortages(), shortages + 3);
    drop(guests);
    let _ahead = look(5 * OVERTAKE_AFTER, MIB).expect("it fits");
    assert!(look(PATIENCE, MIB).is_none());
}

/// A load that waits for another load may wait for long, too, but not for those that overtake it.
#[test]
fn a_much_smaller_load_goes_ahead_of_one_that_waits_for_another_load() {
    let memory = Budget::new(64 << 20);
    let mut loads = LoadMemory::new(memory.clone());
    let mut other = place(&mut loads, MIB);
    let began = Instant::now();
    let look = |loads: &mut LoadMemory, after: Duration| {
        loads.begin_scan();
        // It takes more than all loads may, so it has to run alone.
        let first = loads.reserve_load(1, file(5 * MIB), began + after);
        let first = first.map(|entered| entered.expect("it fits"));
        let second = loads.reserve_load(2, file(MIB), began + after);
        (first, second.map(|entered| entered.expect("it fits")))
    };
    let (first, second) = look(&mut loads, Duration::ZERO);
    assert!(first.is_none() && second.is_none());
    // A load that began earlier is not held up.
    other.reserve_code(MIB).expect("it has its place");
    let (first, second) = look(&mut loads, OVERTAKE_AFTER);
    assert!(first.is_none());
    let second = second.expect("it goes ahead");
    drop(other);
    // Now the first load waits only for the one that has overtaken it.
    let (first, third) = look(&mut loads, 2 * OVERTAKE_AFTER);
    assert!(first.is_none() && third.is_none());
    drop(second);
    let (first, third) = look(&mut loads, PATIENCE * 2);
    let first = first.expect("it goes alone");
    assert!(third.is_none());
    drop(first);
    assert_eq!(memory.used(), 0);
}

/// The same if guests held the memory for a while and then gave it back.
#[test]
fn who_has_waited_for_guests_does_not_wait_for_those_that_went_ahead() {
    let memory = Budget::new(64 << 20);
    let mut loads = LoadMemory::new(memory.clone());
    let guests = memory.force_charge(48 << 20);
    let began = Instant::now();
    let enter = |loads: &mut LoadMemory, id: usize, after: Duration| {
        let entered =
            loads.reserve_load(id, file(if id == 1 { 4 * MIB } else { MIB }), began + after);
        entered.map(|entered| entered.expect("it fits"))
    };
    loads.begin_scan();
    assert!(enter(&mut loads, 1, Duration::ZERO).is_none());
    loads.begin_scan();
    assert!(enter(&mut loads, 1, OVERTAKE_AFTER).is_none());
    let ahead = enter(&mut loads, 2, OVERTAKE_AFTER).expect("it goes ahead");
    drop(guests);
    loads.begin_scan();
    assert!(enter(&mut loads, 1, PATIENCE).is_none(), "it goes alone");
    assert!(enter(&mut loads, 3, PATIENCE).is_none(), "nobody else goes ahead");
    drop(ahead);
    loads.begin_scan();
    drop(enter(&mut loads, 1, PATIENCE + OVERTAKE_AFTER).expect("it goes alone"));
    assert_eq!(memory.used(), 0);
}

#[test]
fn what_is_wanted_for_a_load_that_does_not_wait_any_more_is_there_for_guests() {
    let memory = Budget::new(64 << 20);
    let mut loads = LoadMemory::new(memory.clone());
    let guests = memory.force_charge(60 << 20);
    assert!(enter(&mut loads, MIB).is_none());
    drop(guests);
    let guest = memory.of_guest(1);
    assert!(!guest.has(55 << 20));
    loads.clear();
    assert!(guest.has(55 << 20));
    assert!(loads.poll_after().is_none());
}

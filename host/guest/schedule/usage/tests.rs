//! Tests of the averages.

use super::*;

const SHORT: Duration = Duration::from_micros(5);
const NEAR_A_QUANTUM: Duration = Duration::from_micros(900);

/// A guest whose first calls were short.
fn known() -> Usage {
    let mut usage = Usage::default();
    for _ in 0..AVERAGED {
        note(&mut usage, SHORT, Instant::now());
        usage.note_call(false);
    }
    usage
}

fn measured() -> Usage {
    let mut usage = known();
    usage.count();
    usage.note_ticks(2);
    usage
}

fn note(usage: &mut Usage, used: Duration, now: Instant) {
    usage.count();
    usage.note_slice(used, || now);
}

#[test]
fn a_guest_is_short_until_the_clock_ticks() {
    let mut usage = known();
    for _ in 0..10_000 {
        usage.count();
    }
    assert_eq!(usage.cost_class(), CostClass::Short);
    // One tick in ten thousand calls says nothing.
    usage.note_ticks(1);
    assert_eq!(usage.cost_class(), CostClass::Short);
    for _ in 0..SUSPECT_CALLS {
        usage.count();
    }
    usage.note_ticks(1);
    assert_eq!(usage.cost_class(), CostClass::Measured);
}

#[test]
fn calls_below_a_quantum_wait_for_turns() {
    let (mut usage, now) = (measured(), Instant::now());
    note(&mut usage, NEAR_A_QUANTUM, now);
    assert_eq!(usage.cost_class(), CostClass::Heavy);
    for _ in 0..10_000 {
        note(&mut usage, NEAR_A_QUANTUM, now);
        usage.note_call(false);
        assert_eq!(usage.cost_class(), CostClass::Heavy);
    }
}

/// The average weighs time: three short calls of four do not make the fourth any shorter.
#[test]
fn one_of_four_is_enough() {
    let (mut usage, now) = (measured(), Instant::now());
    for _ in 0..1_000 {
        note(&mut usage, NEAR_A_QUANTUM, now);
        for _ in 0..3 {
            assert_eq!(usage.cost_class(), CostClass::Heavy);
            note(&mut usage, SHORT, now);
        }
    }
}

#[test]
fn who_has_become_short_is_measured_no_more() {
    let (mut usage, now) = (measured(), Instant::now());
    for _ in 0..20 {
        note(&mut usage, NEAR_A_QUANTUM, now);
    }
    for _ in 0..MEASURED_AFTER_HEAVY {
        assert_ne!(usage.cost_class(), CostClass::Short);
        note(&mut usage, SHORT, now);
    }
    assert_eq!(usage.cost_class(), CostClass::Short);
}

#[test]
fn calls_that_outlast_the_quantum_begin_in_the_slow_lane() {
    let mut usage = known();
    let calls = (1..).find(|_| {
        usage.note_call(true);
        usage.cost_class() == CostClass::Long
    });
    assert_eq!(calls, Some(6));
    let calls = (1..).find(|_| {
        usage.note_call(false);
        usage.cost_class() != CostClass::Long
    });
    assert!(calls < Some(3), "{calls:?}");
}

/// A slice of a hundred milliseconds keeps its guest in the slow lane for seconds, even if it is
/// one of a thousand.
#[test]
fn a_slice_without_end_is_a_penalty() {
    let (mut usage, now) = (measured(), Instant::now());
    note(&mut usage, Duration::from_millis(103), now);
    assert_eq!(usage.penalty, Some(now + Duration::from_millis(3200)));
    for _ in 0..1_000 {
        note(&mut usage, SHORT, now);
    }
    assert_eq!(usage.cost_class(), CostClass::Long);
    note(&mut usage, Duration::from_secs(100), now);
    assert_eq!(usage.penalty, Some(now + PENALTY_MAX));
    usage.penalty = Some(now);
    assert_ne!(usage.cost_class(), CostClass::Long);
}

/// Until anything is known of them, calls wait for turns of a whole quantum.
#[test]
fn the_first_calls_are_measured() {
    let (mut usage, now) = (Usage::default(), Instant::now());
    assert_eq!((usage.cost_class(), usage.slice()), (CostClass::New, LONG_CALL));
    note(&mut usage, SHORT, now);
    assert_eq!((usage.cost_class(), usage.slice()), (CostClass::New, SHORT), "it has not ended");
    usage.note_call(false);
    for _ in 1..AVERAGED {
        assert_eq!(usage.cost_class(), CostClass::Measured);
        note(&mut usage, SHORT, now);
        usage.note_call(false);
    }
    assert_eq!(usage.cost_class(), CostClass::Short);
}

/// The first call decides what is expected of the next one.
#[test]
fn who_begins_with_a_long_call_is_long_until_one_is_short() {
    let mut usage = Usage::default();
    usage.note_call(true);
    assert_eq!(usage.cost_class(), CostClass::Long);
    usage.note_call(false);
    assert_ne!(usage.cost_class(), CostClass::Long);
    usage.note_call(true);
    assert_eq!(usage.cost_class(), CostClass::Long, "two of three");
}

/// One long call in a hundred does not send the others to the slow lane, nor does one during which
/// others have had the core.
#[test]
fn one_of_a_hundred_is_not_enough() {
    let mut usage = known();
    for _ in 0..100 {
        usage.note_call(true);
        assert_ne!(usage.cost_class(), CostClass::Long);
        (0..99).for_each(|_| usage.note_call(false));
    }
    let mut usage = Usage { measured_for: 0, ..Usage::default() };
    usage.note_ticks(QUANTUM_TICKS as u32 + 1);
    assert_ne!(usage.cost_class(), CostClass::Long);
}

/// Making an instance is not one of the guest's calls.
#[test]
fn making_an_instance_is_judged_apart() {
    let mut usage = Usage::default();
    usage.note_instantiation(SHORT, false);
    assert_eq!(usage.instantiation_class(), CostClass::Short);
    // Others may have had the core.
    usage.note_instantiation(LONG_CALL, false);
    assert_eq!(usage.instantiation_class(), CostClass::Measured);
    usage.note_instantiation(SHORT, true);
    assert_eq!(usage.instantiation_class(), CostClass::Short);
    usage.note_instantiation(LONG_CALL, false);
    usage.note_instantiation(NEAR_A_QUANTUM, true);
    assert_eq!(usage.instantiation_class(), CostClass::Heavy);
    (0..4).for_each(|_| usage.note_instantiation(2 * LONG_CALL, true));
    assert_eq!(
        (usage.instantiation_class(), usage.cost_class()),
        (CostClass::Long, CostClass::New)
    );
}

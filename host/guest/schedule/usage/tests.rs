//! Tests of the averages.

use super::*;

const SHORT: Duration = Duration::from_micros(5);
const NEAR_A_QUANTUM: Duration = Duration::from_micros(900);

fn measured() -> Usage {
    let mut usage = Usage::default();
    usage.count();
    usage.note_ticks(1);
    usage
}

fn note(usage: &mut Usage, used: Duration, now: Instant) {
    usage.count();
    usage.note_slice(used, || now);
}

#[test]
fn a_guest_is_short_until_the_clock_ticks() {
    let mut usage = Usage::default();
    for _ in 0..10_000 {
        usage.count();
    }
    assert_eq!(usage.length(), Length::Short);
    // One tick in ten thousand calls says nothing.
    usage.note_ticks(1);
    assert_eq!(usage.length(), Length::Short);
    for _ in 0..SUSPECT_CALLS {
        usage.count();
    }
    usage.note_ticks(1);
    assert_eq!(usage.length(), Length::Measured);
}

#[test]
fn calls_below_a_quantum_wait_for_turns() {
    let (mut usage, now) = (measured(), Instant::now());
    note(&mut usage, NEAR_A_QUANTUM, now);
    assert_eq!(usage.length(), Length::Heavy);
    for _ in 0..10_000 {
        note(&mut usage, NEAR_A_QUANTUM, now);
        usage.note_call(false);
        assert_eq!(usage.length(), Length::Heavy);
    }
}

/// Time counts: that most of the calls are short makes none of the others shorter.
#[test]
fn one_of_four_is_enough() {
    let (mut usage, now) = (measured(), Instant::now());
    for _ in 0..1_000 {
        note(&mut usage, NEAR_A_QUANTUM, now);
        for _ in 0..3 {
            assert_eq!(usage.length(), Length::Heavy);
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
        assert_ne!(usage.length(), Length::Short);
        note(&mut usage, SHORT, now);
    }
    assert_eq!(usage.length(), Length::Short);
}

#[test]
fn calls_that_outlast_the_quantum_begin_in_the_slow_lane() {
    let mut usage = Usage::default();
    let calls = (1..).find(|_| {
        usage.note_call(true);
        usage.length() == Length::Long
    });
    assert_eq!(calls, Some(6));
    let calls = (1..).find(|_| {
        usage.note_call(false);
        usage.length() != Length::Long
    });
    assert!(calls < Some(3), "{calls:?}");
}

/// A slice of a hundred milliseconds keeps its guest off the fast lane for seconds, be it one of a
/// thousand.
#[test]
fn a_slice_without_end_is_a_penalty() {
    let (mut usage, now) = (measured(), Instant::now());
    note(&mut usage, Duration::from_millis(103), now);
    assert_eq!(usage.penalty, Some(now + Duration::from_millis(3200)));
    for _ in 0..1_000 {
        note(&mut usage, SHORT, now);
    }
    assert_eq!(usage.length(), Length::Long);
    note(&mut usage, Duration::from_secs(100), now);
    assert_eq!(usage.penalty, Some(now + PENALTY_MAX));
    usage.penalty = Some(now);
    assert_ne!(usage.length(), Length::Long);
}

/// What making an instance takes says nothing of the guest's calls.
#[test]
fn making_an_instance_is_judged_apart() {
    let mut usage = Usage::default();
    usage.note_making(SHORT, false);
    assert_eq!(usage.making(), Length::Short);
    // Others may have had the core.
    usage.note_making(LONG, false);
    assert_eq!(usage.making(), Length::Measured);
    usage.note_making(SHORT, true);
    assert_eq!(usage.making(), Length::Short);
    usage.note_making(LONG, false);
    usage.note_making(NEAR_A_QUANTUM, true);
    assert_eq!(usage.making(), Length::Heavy);
    (0..4).for_each(|_| usage.note_making(2 * LONG, true));
    assert_eq!((usage.making(), usage.length()), (Length::Long, Length::Short));
}

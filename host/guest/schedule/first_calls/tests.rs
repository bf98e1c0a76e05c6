//! Tests of the averages.

use super::*;

fn note(calls: &mut FirstCalls, owner: u64, outcomes: &[bool]) {
    outcomes.iter().for_each(|is_long| calls.note(owner, *is_long));
}

#[test]
fn three_long_ones_in_a_row_are_enough() {
    let mut calls = FirstCalls::default();
    note(&mut calls, 1, &[true; 2]);
    assert!(!calls.are_long(1));
    note(&mut calls, 1, &[true]);
    assert!(calls.are_long(1));
    assert!(!calls.are_long(2), "another owner's are as they were");
}

/// One long guest of sixteen sends no other to the slow lane.
#[test]
fn a_few_of_many_are_not() {
    let mut calls = FirstCalls::default();
    for _ in 0..1_000 {
        note(&mut calls, 1, &[true]);
        note(&mut calls, 1, &[false; 15]);
        assert!(!calls.are_long(1));
    }
}

#[test]
fn short_ones_are_believed_soon_and_forgotten() {
    let mut calls = FirstCalls::default();
    note(&mut calls, 1, &[true; 1_000]);
    let short = (1..).find(|_| {
        note(&mut calls, 1, &[false]);
        !calls.are_long(1)
    });
    assert!(short < Some(12), "{short:?}");
    note(&mut calls, 1, &[false; 100]);
    assert!(calls.0.is_empty(), "{calls:?}");
}

#[test]
fn few_owners_are_remembered() {
    let mut calls = FirstCalls::default();
    for owner in 0..1_000 {
        note(&mut calls, owner, &[true; 3]);
    }
    assert_eq!(calls.0.len(), OWNERS_MAX);
    assert!(calls.are_long(999) && !calls.are_long(0));
}

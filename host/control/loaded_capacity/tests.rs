//! Tests of the order in which guests are unloaded.

use super::{IDLE_COARSE_TICKS, UnloadOrder};

const NOW: u32 = 1_000;
const IDLE: u32 = NOW - IDLE_COARSE_TICKS;

/// Guests by index: the last use, and bytes.
const GUESTS: [(u32, usize); 5] = [
    (NOW - 2, 16 << 10),
    (IDLE, 1 << 20),
    (NOW - 1, 80 << 20),
    (IDLE - 9, 16 << 10),
    (NOW, 90 << 20),
];

#[track_caller]
fn check(is_tight: bool, is_heavy: bool, expected: &[usize]) {
    let guests = GUESTS.iter().enumerate().map(|(id, (used_at, bytes))| (id, *used_at, *bytes));
    assert_eq!(
        UnloadOrder { now_ticks: NOW, unloads_used: is_tight, unloads_largest: is_heavy }
            .of(guests),
        expected
    );
}

#[test]
fn what_is_idle_longest_goes_first() {
    check(false, false, &[3, 1]);
    check(true, false, &[3, 1, 0, 2, 4]);
}

/// A small guest in use is not unloaded if that makes no room.
#[test]
fn of_those_in_use_the_largest_go_for_want_of_memory() {
    check(true, true, &[3, 1, 2, 4, 0]);
}

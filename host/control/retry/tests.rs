//! Tests of when a failed file is tried again.

use std::time::Duration;

use super::{RetryDelays, UNCLEAR_MAX, retry_delays};
use crate::guest::engine::load_failure::FailureCause;

const AT_ONCE: Duration = Duration::ZERO;

fn seconds(after: u64, if_wanted: f64) -> Option<RetryDelays> {
    let if_wanted = Duration::from_secs_f64(if_wanted);
    Some(RetryDelays { after: Duration::from_secs(after), if_wanted })
}

#[test]
fn the_fault_of_a_file_is_final() {
    assert_eq!(retry_delays(FailureCause::File, 0, AT_ONCE), None);
}

#[test]
fn a_shortage_is_tried_for_ever_and_sooner_where_requests_wait() {
    let expected = [(5, 0.25), (10, 0.5), (20, 1.0), (40, 2.0), (80, 4.0), (160, 8.0), (320, 16.0)];
    for (mishaps, (after, if_wanted)) in (0..).zip(expected) {
        assert_eq!(
            retry_delays(FailureCause::Shortage, mishaps, AT_ONCE),
            seconds(after, if_wanted)
        );
    }
    for mishaps in [7, 8, 100, u32::MAX - 1] {
        assert_eq!(retry_delays(FailureCause::Shortage, mishaps, AT_ONCE), seconds(320, 32.0));
    }
}

#[test]
fn what_may_be_the_fault_of_a_file_is_tried_a_few_times() {
    let tries = (0..100)
        .take_while(|mishaps| retry_delays(FailureCause::Unclear, *mishaps, AT_ONCE).is_some());
    assert_eq!(tries.count() as u32, UNCLEAR_MAX - 1);
}

#[test]
fn a_file_that_cannot_be_read_is_tried_for_ever() {
    for mishaps in [6, 100] {
        assert_eq!(retry_delays(FailureCause::Access, mishaps, AT_ONCE), seconds(320, 320.0));
    }
}

/// A load that takes half a minute is not repeated every other second.
#[test]
fn tries_take_a_tenth_of_the_time_or_a_half_where_requests_wait() {
    let took = Duration::from_secs(30);
    assert_eq!(retry_delays(FailureCause::Shortage, 0, took), seconds(300, 30.0));
    assert_eq!(retry_delays(FailureCause::Shortage, 0, took * 100), seconds(320, 320.0));
}

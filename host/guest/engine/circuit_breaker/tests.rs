//! Tests of the pause.

use super::*;

#[test]
fn only_failed_starts_in_a_row_pause() {
    let health = CircuitBreaker::default();
    for _ in 0..3 {
        for _ in 0..FAILURES_MAX - 1 {
            assert_eq!(health.note_failure(), None);
        }
        assert!(!health.note_start());
        assert_eq!(health.admit(), Ok(()));
    }
    for _ in 0..FAILURES_MAX - 1 {
        assert_eq!(health.note_failure(), None);
    }
    assert_eq!(health.note_failure(), Some(PAUSE));
    assert_eq!(health.admit(), Err(Reject::Paused));
    assert!(health.note_start());
    assert_eq!(health.admit(), Ok(()));
}

#[test]
fn a_pause_is_twice_as_long_as_the_one_before() {
    let pauses: Vec<u64> = (0..9).map(|tries| pause(tries).as_secs()).collect();
    assert_eq!(pauses, [1, 2, 4, 8, 16, 32, 64, 64, 64]);
}

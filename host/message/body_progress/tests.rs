//! Tests of bodies that stall, trickle and arrive, with a clock of their own.

use super::*;

const STILL_MAX: Duration = Duration::from_secs(30);
const LOOK: Duration = Duration::from_secs(1);

fn look(progress: &BodyProgress) -> bool {
    progress.check_stall(LOOK, STILL_MAX, || false);
    progress.has_expired()
}

/// This holds however old the worker is, and however late the body is first read.
#[test]
fn the_first_byte_is_waited_for_as_long_as_any_other() {
    let progress = BodyProgress::default();
    for _ in 0..100 {
        assert!(!look(&progress));
    }
    progress.note_pending();
    // The wait may have begun just before the first check.
    for _ in 0..30 {
        assert!(!look(&progress));
    }
    assert!(look(&progress));
}

#[test]
fn what_comes_begins_the_time_anew() {
    let progress = BodyProgress::default();
    for _ in 0..10 {
        progress.note_pending();
        for _ in 0..30 {
            assert!(!look(&progress));
        }
        progress.note_received(1, false);
        // Nobody reads the body, so this is the guest's time.
        for _ in 0..100 {
            assert!(!look(&progress));
        }
    }
}

/// Reading again is no sign of life of the client.
#[test]
fn asking_again_does_not_begin_the_time_anew() {
    let progress = BodyProgress::default();
    for _ in 0..30 {
        progress.note_pending();
        assert!(!look(&progress));
    }
    progress.note_pending();
    assert!(look(&progress));
}

#[test]
fn bytes_that_nobody_has_read_are_not_late() {
    let progress = BodyProgress::default();
    progress.note_pending();
    for _ in 0..100 {
        progress.check_stall(LOOK, STILL_MAX, || true);
    }
    assert!(!progress.has_expired());
}

#[test]
fn a_trickle_is_below_the_least_rate() {
    let progress = BodyProgress::default();
    progress.note_received(240, false);
    progress.note_pending();
    let wait = |seconds| {
        progress.lock().total = Duration::from_secs(seconds);
        progress.activity.fetch_add(1, Ordering::Relaxed);
        look(&progress)
    };
    // One second for the bytes, 30 that it may stall, and one because a check may be late.
    assert!(!wait(31));
    assert!(wait(33));
}

#[test]
fn a_deadline_stands_still_while_the_body_is_waited_for() {
    let progress = Arc::<BodyProgress>::default();
    progress.lock().total = Duration::from_secs(5);
    let now = Instant::now();
    let deadline = Deadline::new(now, Some(progress.clone()));
    assert_eq!(deadline.due(), now + Duration::from_secs(5));
    assert_eq!(Deadline::new(now, None).due(), now);
    // Earlier waits do not count for a deadline that begins later.
    let later = Deadline::after(Duration::ZERO, Some(progress.clone()));
    assert!(later.due() <= Instant::now());
    progress.note_pending();
    assert!(later.due() > Instant::now());
    progress.note_dropped();
    assert!(later.due() < now + Duration::from_secs(5));
}

/// A reader may never read again. The wait ends when bytes arrive, or when they are too late.
#[test]
fn a_deadline_goes_on_once_the_body_has_come_or_is_late() {
    let is_put_off = |progress: &Arc<BodyProgress>| {
        let at = Instant::now() - Duration::from_secs(1);
        Deadline::new(at, Some(progress.clone())).due() > Instant::now()
    };
    let progress = Arc::<BodyProgress>::default();
    progress.register(Waker::noop());
    progress.note_pending();
    assert!(is_put_off(&progress));
    Waker::from(progress.clone()).wake();
    assert!(!is_put_off(&progress), "it has come");
    progress.register(Waker::noop());
    Waker::from(progress.clone()).wake();
    progress.note_pending();
    assert!(!is_put_off(&progress), "it came between the question and the answer");
    progress.register(Waker::noop());
    progress.note_pending();
    assert!(is_put_off(&progress));
    while !look(&progress) {}
    assert!(!is_put_off(&progress), "it is late");
}

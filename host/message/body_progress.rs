//! The progress of a request's body, and deadlines that pause while the host waits for it.
//!
//! Owns what counts as waiting for the client: the time from a read that finds nothing until more
//! arrives or the wait expires, whether or not the arrived bytes are read. Deadlines pause for that
//! time. Knows no connection: the reader of the body reports arrivals, and the reaper calls
//! [`BodyProgress::check_stall`] with the timeout.

use std::pin::{Pin, pin};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Wake, Waker};
use std::time::{Duration, Instant};

use tokio::time::Sleep;

/// The lowest rate for bodies in both directions, in bytes a second, after a grace period as long
/// as the stall timeout. The value is Kestrel's default (MinDataRate).
pub const RATE_MIN: u64 = 240;
/// How often a paused deadline is checked again.
const LOOK_EVERY: Duration = Duration::from_millis(20);

/// The progress of one body. Any thread may read the body; its worker checks the progress.
#[derive(Default)]
pub struct BodyProgress {
    bytes: AtomicU64,
    /// Counts arrivals and the waits that have begun. While it changes, the body is not stalled.
    activity: AtomicU64,
    ended: AtomicBool,
    dropped: AtomicBool,
    expired: AtomicBool,
    wait: Mutex<BodyWait>,
    /// The value of `activity` at the last check, and for how many milliseconds it had been the
    /// same by then.
    activity_seen: AtomicU64,
    stalled_ms: AtomicU64,
}

/// The reader that waits for a body, and the time spent waiting.
#[derive(Default)]
struct BodyWait {
    waker: Option<Waker>,
    /// Whether something has arrived since the last call of [`BodyProgress::register`].
    has_come: bool,
    /// When the current wait began, if there is one.
    since: Option<Instant>,
    /// The duration of all waits before the current one.
    total: Duration,
}

impl BodyProgress {
    /// Notes that a reader is about to poll the body. From now on the body must wake this, which
    /// then wakes `waker`.
    pub fn register(&self, waker: &Waker) {
        let mut wait = self.lock();
        wait.has_come = false;
        wait.waker = Some(waker.clone());
    }

    /// Notes that the poll found nothing, so a wait begins.
    pub fn note_pending(&self) {
        let mut wait = self.lock();
        if wait.has_come {
            return;
        }
        if wait.since.is_none() {
            wait.since = Some(Instant::now());
            self.activity.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Notes that the reader got `bytes` bytes, and whether the body has ended.
    pub fn note_received(&self, bytes: u64, is_end: bool) {
        let mut wait = self.lock();
        wait.waker = None;
        wait.end();
        drop(wait);
        self.activity.fetch_add(1, Ordering::Relaxed);
        self.bytes.fetch_add(bytes, Ordering::Relaxed);
        if is_end {
            self.ended.store(true, Ordering::Relaxed);
        }
    }

    /// Notes that the body was dropped, so it is not read any further.
    pub fn note_dropped(&self) {
        self.note_received(0, false);
        self.dropped.store(true, Ordering::Relaxed);
    }

    /// Whether the reader has got all of the body.
    pub fn has_ended(&self) -> bool {
        self.ended.load(Ordering::Relaxed)
    }

    /// Whether the body is neither read to its end nor dropped.
    pub fn is_open(&self) -> bool {
        !self.has_ended() && !self.dropped.load(Ordering::Relaxed)
    }

    /// Whether the body was given up because it arrived too slowly.
    pub fn has_expired(&self) -> bool {
        self.expired.load(Ordering::Relaxed)
    }

    /// Checks whether the body arrives too slowly while a reader waits for it. If so, the body
    /// expires and the wait ends.
    ///
    /// `since_last` is the time since the last check, `still_max` how long the body may stall.
    /// `has_input` says whether the socket has unread bytes: then the client is not late.
    pub fn check_stall(
        &self,
        since_last: Duration,
        still_max: Duration,
        has_input: impl Fn() -> bool,
    ) {
        // Whoever holds the lock is just noting progress.
        let Ok(mut wait) = self.wait.try_lock() else { return };
        let moves = self.activity.load(Ordering::Relaxed);
        let has_moved = self.activity_seen.swap(moves, Ordering::Relaxed) != moves;
        let Some(since) = wait.since else { return };
        let before = if has_moved { 0 } else { self.stalled_ms.load(Ordering::Relaxed) };
        let passed = if has_moved { 0 } else { since_last.as_millis() as u64 };
        self.stalled_ms.store(before + passed, Ordering::Relaxed);
        let still = Duration::from_millis(before + passed);
        let waited = wait.total + since.elapsed();
        // Progress may be seen late by as much as the time between two checks.
        let waited_max = time_for(self.bytes.load(Ordering::Relaxed), still_max) + since_last;
        let is_still = !has_moved && still >= still_max;
        if (is_still || waited > waited_max) && !has_input() {
            self.expired.store(true, Ordering::Relaxed);
            // End the wait here, because the reader may never poll again.
            wait.end();
            wait.waker.take().inspect(Waker::wake_by_ref);
        }
    }

    /// The duration of all waits together, and whether a reader waits now.
    fn waited(&self) -> (Duration, bool) {
        let wait = self.lock();
        let now = wait.since.map_or(Duration::ZERO, |since| since.elapsed());
        (wait.total + now, wait.since.is_some())
    }

    fn lock(&self) -> MutexGuard<'_, BodyWait> {
        self.wait.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl BodyWait {
    fn end(&mut self) {
        if let Some(since) = self.since.take() {
            self.total += since.elapsed();
        }
    }
}

/// More bytes or the end have arrived. From now on time counts as the guest's, whether it reads the
/// body or not.
impl Wake for BodyProgress {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        let mut wait = self.lock();
        wait.has_come = true;
        wait.end();
        let waker = wait.waker.take();
        drop(wait);
        self.activity.fetch_add(1, Ordering::Relaxed);
        waker.inspect(Waker::wake_by_ref);
    }
}

/// How long `bytes` bytes may take at [`RATE_MIN`], with `still_max` as grace period.
pub fn time_for(bytes: u64, still_max: Duration) -> Duration {
    still_max + Duration::from_secs(bytes / RATE_MIN)
}

/// A deadline that pauses while a reader waits for a request's body.
#[derive(Clone)]
pub struct Deadline {
    at: Instant,
    body: Option<Arc<BodyProgress>>,
    /// The body's waiting time when the deadline was set. Only later waits put it off.
    waited_before: Duration,
}

impl Deadline {
    /// Due at `at`, put off by all waits for the body, earlier ones included.
    pub fn new(at: Instant, body: Option<Arc<BodyProgress>>) -> Self {
        Deadline { at, body, waited_before: Duration::ZERO }
    }

    /// Due in `limit` from now, put off by waits for the body that come later.
    pub fn after(limit: Duration, body: Option<Arc<BodyProgress>>) -> Self {
        let before = body.as_ref().map_or(Duration::ZERO, |body| body.waited().0);
        Deadline { at: Instant::now() + limit, body, waited_before: before }
    }

    /// When to check the deadline again. If that is not in the future, the deadline has passed.
    pub fn due(&self) -> Instant {
        let Some(body) = &self.body else { return self.at };
        let (waited, is_waiting) = body.waited();
        let due = self.at + waited.saturating_sub(self.waited_before);
        if is_waiting { due.max(Instant::now() + LOOK_EVERY) } else { due }
    }

    /// A timer for [`Deadline::poll_passed`].
    pub fn timer(&self) -> Sleep {
        tokio::time::sleep_until(self.due().into())
    }

    /// Ready when the deadline has passed.
    pub fn poll_passed(&self, mut timer: Pin<&mut Sleep>, cx: &mut Context<'_>) -> Poll<()> {
        loop {
            std::task::ready!(timer.as_mut().poll(cx));
            let due = self.due();
            if self.body.is_none() || due <= Instant::now() {
                return Poll::Ready(());
            }
            timer.as_mut().reset(due.into());
        }
    }

    /// Runs a future until it is ready. Returns `None` if the deadline passes before.
    pub async fn within<F: Future>(&self, future: F) -> Option<F::Output> {
        let (mut future, mut timer) = (pin!(future), pin!(self.timer()));
        std::future::poll_fn(|cx| match future.as_mut().poll(cx) {
            Poll::Ready(output) => Poll::Ready(Some(output)),
            Poll::Pending => self.poll_passed(timer.as_mut(), cx).map(|()| None),
        })
        .await
    }
}

#[cfg(test)]
mod tests;

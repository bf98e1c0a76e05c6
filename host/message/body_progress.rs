//! How a request's body gets on, and until when the request has to be answered.
//!
//! Owns what counts as waiting for the client: the time between asking for more of a body and its
//! coming, be it taken or not, or its being too late. A deadline stands still for so long. Knows no
//! connection; whoever reads the body says what comes, and whoever looks at it now and then says
//! how long it may stand still.

use std::pin::{Pin, pin};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Wake, Waker};
use std::time::{Duration, Instant};

use tokio::time::Sleep;

/// Bodies have to move at this rate in both directions, in bytes a second, once they have been
/// waited for as long as they may stand still: the default of Kestrel (MinDataRate).
pub const RATE_MIN: u64 = 240;
/// How often a deadline is looked at that stands still because the body is waited for.
const LOOK_EVERY: Duration = Duration::from_millis(20);

/// How a body gets on. It may be read on any thread, and is looked at by its worker.
#[derive(Default)]
pub struct BodyProgress {
    bytes: AtomicU64,
    /// Counts what came, and the waits that have begun: while it changes, the body does not stand
    /// still.
    activity: AtomicU64,
    ended: AtomicBool,
    dropped: AtomicBool,
    expired: AtomicBool,
    wait: Mutex<BodyWait>,
    /// `moves` at the last look, and for how long it had not changed by then, in milliseconds.
    activity_seen: AtomicU64,
    stalled_ms: AtomicU64,
}

/// Who waits for a body, and for how long it has been waited for.
#[derive(Default)]
struct BodyWait {
    waker: Option<Waker>,
    /// Whether something has come since it was asked.
    has_come: bool,
    since: Option<Instant>,
    /// All waits before this one.
    total: Duration,
}

impl BodyProgress {
    /// Says that somebody is about to ask for more. From then on this is to be woken when more
    /// comes, and wakes whoever has asked.
    pub fn register(&self, waker: &Waker) {
        let mut wait = self.lock();
        wait.has_come = false;
        wait.waker = Some(waker.clone());
    }

    /// Says that what was asked for is not here.
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

    /// Says that so many bytes were handed out, and whether that was all.
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

    /// Says that nobody will ask for more.
    pub fn note_dropped(&self) {
        self.note_received(0, false);
        self.dropped.store(true, Ordering::Relaxed);
    }

    /// Whether all of it was handed out.
    pub fn has_ended(&self) -> bool {
        self.ended.load(Ordering::Relaxed)
    }

    /// Whether it may still be asked for more.
    pub fn is_open(&self) -> bool {
        !self.has_ended() && !self.dropped.load(Ordering::Relaxed)
    }

    /// Whether it has come too slowly.
    pub fn has_expired(&self) -> bool {
        self.expired.load(Ordering::Relaxed)
    }

    /// Looks, so long after the last look, whether the body comes too slowly while it is waited
    /// for, and ends the wait if it does. `has_input` says whether bytes have arrived that nobody
    /// has read yet: then it is not the client who is late.
    pub fn check_stall(
        &self,
        since_last: Duration,
        still_max: Duration,
        has_input: impl Fn() -> bool,
    ) {
        // Who has the lock is about to say something.
        let Ok(mut wait) = self.wait.try_lock() else { return };
        let moves = self.activity.load(Ordering::Relaxed);
        let has_moved = self.activity_seen.swap(moves, Ordering::Relaxed) != moves;
        let Some(since) = wait.since else { return };
        let before = if has_moved { 0 } else { self.stalled_ms.load(Ordering::Relaxed) };
        let passed = if has_moved { 0 } else { since_last.as_millis() as u64 };
        self.stalled_ms.store(before + passed, Ordering::Relaxed);
        let still = Duration::from_millis(before + passed);
        let waited = wait.total + since.elapsed();
        // A look may come late by as much as there is between two of them.
        let waited_max = time_for(self.bytes.load(Ordering::Relaxed), still_max) + since_last;
        let is_still = !has_moved && still >= still_max;
        if (is_still || waited > waited_max) && !has_input() {
            self.expired.store(true, Ordering::Relaxed);
            // It is not waited for any longer, also where nobody asks again.
            wait.end();
            wait.waker.take().inspect(Waker::wake_by_ref);
        }
    }

    /// For how long it has been waited for in all, and whether it is now.
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

/// More has come, or the end: it is the guest's time from now on, whether it asks again or not.
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

/// How long so many bytes may take.
pub fn time_for(bytes: u64, still_max: Duration) -> Duration {
    still_max + Duration::from_secs(bytes / RATE_MIN)
}

/// When something is due, which is put off for as long as a request's body is waited for.
#[derive(Clone)]
pub struct Deadline {
    at: Instant,
    body: Option<Arc<BodyProgress>>,
    /// For how long the body had been waited for when this began.
    waited_before: Duration,
}

impl Deadline {
    /// Due at this time and so much later as the body is waited for in all.
    pub fn new(at: Instant, body: Option<Arc<BodyProgress>>) -> Self {
        Deadline { at, body, waited_before: Duration::ZERO }
    }

    /// Due after so much time from now in which the body is not waited for.
    pub fn after(limit: Duration, body: Option<Arc<BodyProgress>>) -> Self {
        let before = body.as_ref().map_or(Duration::ZERO, |body| body.waited().0);
        Deadline { at: Instant::now() + limit, body, waited_before: before }
    }

    /// When to look again whether it has passed; if that is not later than now, it has.
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

    /// Ready when it has passed.
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

    /// Runs a future until it has ended or this has passed.
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

//! Refuses the requests to a guest whose start-up keeps failing.
//!
//! Owns the count of failed starts in a row and the pause that follows: a circuit breaker (Nygard,
//! Release It!, "Stability Patterns"). Each version of a guest has one, shared by all workers, and
//! written only while starts fail. How calls end does not count: that depends on the requests, and
//! one client could take the guest from all others.

use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use crate::message::Reject;

/// A guest is paused after so many failed starts in a row.
const FAILURES_MAX: u32 = 10;
/// The first pause, which doubles every time, and the longest one.
const PAUSE: Duration = Duration::from_secs(1);
const PAUSE_MAX: Duration = Duration::from_secs(64);

/// The circuit breaker of one guest.
pub struct CircuitBreaker {
    born: Instant,
    /// Failed starts in a row.
    failures: AtomicU32,
    /// When a start may be tried again, in milliseconds since it was made.
    retry_at_ms: AtomicU64,
    /// How many starts were tried since the guest was paused.
    probes: AtomicU32,
}

impl Default for CircuitBreaker {
    fn default() -> Self {
        CircuitBreaker {
            born: Instant::now(),
            failures: AtomicU32::new(0),
            retry_at_ms: AtomicU64::new(0),
            probes: AtomicU32::new(0),
        }
    }
}

impl CircuitBreaker {
    /// Whether a request may go to the guest. While the guest is paused, one may after each pause.
    ///
    /// # Errors
    /// [`Reject::Paused`]: the guest is paused.
    pub fn admit(&self) -> Result<(), Reject> {
        if self.failures.load(Ordering::Relaxed) < FAILURES_MAX {
            return Ok(());
        }
        let (now_ms, again_ms) = (self.now_ms(), self.retry_at_ms.load(Ordering::Acquire));
        if now_ms >= again_ms {
            let tries = self.probes.load(Ordering::Relaxed) + 1;
            let next_ms = now_ms + pause(tries).as_millis() as u64;
            let (success, failure) = (Ordering::AcqRel, Ordering::Relaxed);
            // Of several threads that come here at once, one may try.
            if self.retry_at_ms.compare_exchange(again_ms, next_ms, success, failure).is_ok() {
                self.probes.store(tries, Ordering::Relaxed);
                return Ok(());
            }
        }
        Err(Reject::Paused)
    }

    /// Counts a failed start. Returns the pause if it begins now.
    pub fn note_failure(&self) -> Option<Duration> {
        if self.failures.fetch_add(1, Ordering::Relaxed) + 1 != FAILURES_MAX {
            return None;
        }
        self.probes.store(0, Ordering::Relaxed);
        self.retry_at_ms.store(self.now_ms() + PAUSE.as_millis() as u64, Ordering::Release);
        Some(PAUSE)
    }

    /// Counts a good start. Returns whether the guest had been paused.
    pub fn note_start(&self) -> bool {
        // Usually it is 0, and reading it keeps the cache line shared between the cores.
        self.failures.load(Ordering::Relaxed) != 0
            && self.failures.swap(0, Ordering::Relaxed) >= FAILURES_MAX
    }

    fn now_ms(&self) -> u64 {
        self.born.elapsed().as_millis() as u64
    }
}

/// The pause after so many tries.
fn pause(tries: u32) -> Duration {
    (PAUSE * 2_u32.pow(tries.min(16))).min(PAUSE_MAX)
}

#[cfg(test)]
mod tests;

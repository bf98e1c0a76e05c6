//! Whether a guest whose start-up keeps failing is tried at all.
//!
//! Owns the count of failed starts in a row and the pause that follows from it: a circuit breaker
//! (Nygard, Release It!, "Stability Patterns"). One for each version of a guest, shared by all
//! workers, and written only while starts fail. How a call ends never counts: a request decides
//! that, and one client could take the guest from all others.

use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use crate::message::Reject;

/// So many failed starts without a good one in between, and the guest is paused.
const FAILURES_MAX: u32 = 10;
/// The first pause; each that follows is twice as long as the one before.
const PAUSE: Duration = Duration::from_secs(1);
const PAUSE_MAX: Duration = Duration::from_secs(64);

/// How the starts of a guest's instances have gone of late.
pub struct CircuitBreaker {
    born: Instant,
    /// Failed starts in a row.
    failures: AtomicU32,
    /// When it may be tried again, in milliseconds after it was born.
    retry_at_ms: AtomicU64,
    /// How often it was tried since it was paused.
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
    /// Whether a request may go to the guest. Of a paused guest, one may at the end of each pause.
    ///
    /// # Errors
    /// [`Reject::Paused`].
    pub fn admit(&self) -> Result<(), Reject> {
        if self.failures.load(Ordering::Relaxed) < FAILURES_MAX {
            return Ok(());
        }
        let (now_ms, again_ms) = (self.now_ms(), self.retry_at_ms.load(Ordering::Acquire));
        if now_ms >= again_ms {
            let tries = self.probes.load(Ordering::Relaxed) + 1;
            let next_ms = now_ms + pause(tries).as_millis() as u64;
            let (success, failure) = (Ordering::AcqRel, Ordering::Relaxed);
            // Whoever is first is the one that may.
            if self.retry_at_ms.compare_exchange(again_ms, next_ms, success, failure).is_ok() {
                self.probes.store(tries, Ordering::Relaxed);
                return Ok(());
            }
        }
        Err(Reject::Paused)
    }

    /// Takes note of a start that has failed. How long the guest is paused, if it is from now on.
    pub fn note_failure(&self) -> Option<Duration> {
        if self.failures.fetch_add(1, Ordering::Relaxed) + 1 != FAILURES_MAX {
            return None;
        }
        self.probes.store(0, Ordering::Relaxed);
        self.retry_at_ms.store(self.now_ms() + PAUSE.as_millis() as u64, Ordering::Release);
        Some(PAUSE)
    }

    /// Takes note of a good start. Whether the guest had been paused.
    pub fn note_start(&self) -> bool {
        // Most find it so, and then the line stays shared between the cores.
        self.failures.load(Ordering::Relaxed) != 0
            && self.failures.swap(0, Ordering::Relaxed) >= FAILURES_MAX
    }

    fn now_ms(&self) -> u64 {
        self.born.elapsed().as_millis() as u64
    }
}

/// The pause behind a try.
fn pause(tries: u32) -> Duration {
    (PAUSE * 2_u32.pow(tries.min(16))).min(PAUSE_MAX)
}

#[cfg(test)]
mod tests;

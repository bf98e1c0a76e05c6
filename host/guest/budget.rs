//! The memory of the whole host: how much its guests may have, and how much of it is taken.
//!
//! Owns the ceiling (`--memory-total`) and the sum below it: all instances with their memories at
//! the declared size, bodies that are kept for guests, loaded code, and the pages that the engines'
//! pools keep for instances to come. All threads share one number, which changes where an instance
//! is made or dropped, a memory grows, or a large body is kept; not where an instance is reset.
//! Knows nothing of who is to give way when there is no more.

use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use super::reset::MEMORY_BYTES_MAX;
use crate::message::Reject;

/// How often the log tells that there is no more.
const TOLD_EVERY: Duration = Duration::from_secs(10);

/// The memory that the guests of one process may have, all together.
#[derive(Clone)]
pub struct Budget(Arc<Shared>);

/// On cache lines of its own, so that only those who use it pay for its changes.
#[repr(align(128))]
struct Shared {
    used: AtomicUsize,
    total: usize,
    /// How often there was too little for what could be had.
    shortages: AtomicU64,
    /// When the log was told of it last, in milliseconds since `began`; 0 for never.
    told_ms: AtomicU64,
    began: Instant,
    /// Says how many bytes the engines' pools keep in slots that are free.
    pooled: OnceLock<Measure>,
}

type Measure = Box<dyn Fn() -> usize + Send + Sync>;

/// What memory is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Purpose {
    /// For a memory of a new instance. While it is small, it may take the last eighth: those who
    /// take what they get leave it to those who need little.
    Start,
    /// For what grows.
    Growth,
}

/// Memory that is taken until this is dropped.
pub struct Charge {
    memory: Budget,
    bytes: usize,
}

impl Budget {
    pub fn new(total: usize) -> Self {
        Budget(Arc::new(Shared {
            used: AtomicUsize::new(0),
            total,
            shortages: AtomicU64::new(0),
            told_ms: AtomicU64::new(0),
            began: Instant::now(),
            pooled: OnceLock::new(),
        }))
    }

    /// Has what the engines' pools keep in free slots count as well.
    pub fn count_pooled(&self, measure: impl Fn() -> usize + Send + Sync + 'static) {
        // There is one set of engines to a budget; a second one would not be counted.
        let _ = self.0.pooled.set(Box::new(measure));
    }

    /// For a process that serves nobody.
    pub fn unlimited() -> Self {
        Self::new(usize::MAX)
    }

    /// Takes memory; [`Budget::give`] is to follow.
    ///
    /// # Errors
    /// [`Reject::NoMemory`], and nothing is taken.
    pub fn take(&self, bytes: usize, purpose: Purpose) -> Result<(), Reject> {
        let may_take_all = purpose == Purpose::Start && bytes as u64 <= MEMORY_BYTES_MAX;
        let kept_back = if may_take_all { 0 } else { self.0.total / 8 };
        // To measure takes a lock in every pool, so it is done only where the result may matter:
        // the pools keep an eighth of all at most.
        let is_near = self.used().saturating_add(bytes) > self.0.total / 2;
        let pooled = if is_near { self.pooled() } else { 0 };
        let used_max = (self.0.total - kept_back).saturating_sub(pooled);
        let added = |used: usize| used.checked_add(bytes).filter(|used| *used <= used_max);
        // Added and taken back where it is too much, others would be refused in between.
        let taken = self.0.used.fetch_update(Ordering::Relaxed, Ordering::Relaxed, added);
        taken.map(drop).map_err(|used| {
            self.note_shortage(bytes, used);
            Reject::NoMemory
        })
    }

    /// Gives back what was taken.
    pub fn give(&self, bytes: usize) {
        self.0.used.fetch_sub(bytes, Ordering::Relaxed);
    }

    /// Nothing yet, to be raised.
    pub fn nothing(&self) -> Charge {
        Charge { memory: self.clone(), bytes: 0 }
    }

    /// Takes memory that is in use already, be there enough or not.
    pub fn take_anyway(&self, bytes: usize) -> Charge {
        self.0.used.fetch_add(bytes, Ordering::Relaxed);
        Charge { memory: self.clone(), bytes }
    }

    /// Whether more than a half is taken: then no more than there is should be kept ready.
    pub fn is_tight(&self) -> bool {
        self.used() > self.0.total / 2
    }

    /// How often there was too little so far, for what could be had if others gave theirs back.
    pub fn shortages(&self) -> u64 {
        self.0.shortages.load(Ordering::Relaxed)
    }

    /// Bytes that are taken.
    pub fn used(&self) -> usize {
        self.0.used.load(Ordering::Relaxed)
    }

    /// Bytes that the engines' pools keep beside these.
    pub fn pooled(&self) -> usize {
        self.0.pooled.get().map_or(0, |measure| measure())
    }

    /// The ceiling, in bytes.
    pub fn total(&self) -> usize {
        self.0.total
    }

    #[cold]
    fn note_shortage(&self, bytes: usize, used: usize) {
        if bytes <= self.0.total {
            self.0.shortages.fetch_add(1, Ordering::Relaxed);
        }
        if self.may_tell() {
            tracing::warn!(
                "memory is short: {} of {} KiB are taken (--memory-total), {} more were asked for; \
                 such requests are answered with 503",
                used >> 10,
                self.0.total >> 10,
                bytes.div_ceil(1024)
            );
        }
    }

    /// Takes note that the kernel had nothing left for an instance.
    #[cold]
    pub fn note_refusal(&self, why: &str) {
        if self.may_tell() {
            tracing::warn!(
                "the kernel is short of memory or of mappings: {why}; such requests wait a little \
                 and are then answered with 503"
            );
        }
    }

    /// Whether the log is to be told, which it is not for every request.
    fn may_tell(&self) -> bool {
        let now = self.0.began.elapsed().as_millis() as u64 + 1;
        let told = self.0.told_ms.load(Ordering::Relaxed);
        if told > 0 && now - told.min(now) < TOLD_EVERY.as_millis() as u64 {
            return false;
        }
        // Of several that come here at once, one tells it.
        let (success, failure) = (Ordering::Relaxed, Ordering::Relaxed);
        self.0.told_ms.compare_exchange(told, now, success, failure).is_ok()
    }
}

impl Charge {
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// Takes more, so that it is so much in all; what is taken already stays.
    ///
    /// # Errors
    /// [`Reject::NoMemory`], and it is as before.
    pub fn raise_to(&mut self, bytes: usize) -> Result<(), Reject> {
        self.memory.take(bytes.saturating_sub(self.bytes), Purpose::Growth)?;
        self.bytes = self.bytes.max(bytes);
        Ok(())
    }
}

impl Drop for Charge {
    fn drop(&mut self) {
        self.memory.give(self.bytes);
    }
}

//! A counter without locks.

use std::sync::atomic::{AtomicU64, Ordering};

/// A number that only one thread writes, so it needs no atomic read-modify-write. Any thread may
/// read it.
#[derive(Default)]
pub struct Counter(AtomicU64);

impl Counter {
    /// Adds `n`, wrapping around at the end.
    pub fn add(&self, n: u64) {
        self.0.store(self.get().wrapping_add(n), Ordering::Relaxed);
    }

    /// Subtracts `n`.
    pub fn sub(&self, n: u64) {
        self.0.store(self.get().wrapping_sub(n), Ordering::Relaxed);
    }

    /// Replaces the number by `n`.
    pub fn set(&self, n: u64) {
        self.0.store(n, Ordering::Relaxed);
    }

    /// The number as the writing thread has last stored it.
    pub fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

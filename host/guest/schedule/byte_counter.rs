//! What the bodies that a call moves are worth of CPU time.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// CPU time that a call may take for each byte of a body that it moves, and not be the longer for
/// it. A native handler takes half of that; and bodies that pass from thread to thread take twice
/// the time, and memory that each thread keeps for the other.
const NANOS_PER_BYTE: u64 = 2;

/// Counts the bytes of bodies that one call moves.
#[derive(Clone, Default)]
pub struct ByteCounter(Arc<AtomicU64>);

impl ByteCounter {
    pub fn add(&self, bytes: u64) {
        self.0.fetch_add(bytes, Ordering::Relaxed);
    }

    /// The CPU time that the bytes since the last time are worth.
    pub fn take_cpu_allowance(&self) -> Duration {
        let bytes = self.0.swap(0, Ordering::Relaxed);
        Duration::from_nanos(bytes.saturating_mul(NANOS_PER_BYTE))
    }
}

//! The CPU time that a call may take for the body bytes that it moves.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// CPU time that a call is allowed for each body byte that it moves, and that does not make it a
/// long call. A native handler takes half of that. In the slow lane, passing bodies between threads
/// would take twice the time, and memory that each thread keeps for the other.
const NANOS_PER_BYTE: u64 = 2;

/// Counts the body bytes that one call moves.
#[derive(Clone, Default)]
pub struct ByteCounter(Arc<AtomicU64>);

impl ByteCounter {
    /// Counts bytes that were moved.
    pub fn add(&self, bytes: u64) {
        self.0.fetch_add(bytes, Ordering::Relaxed);
    }

    /// The CPU time that is allowed for the bytes since the last time.
    pub fn take_cpu_allowance(&self) -> Duration {
        let bytes = self.0.swap(0, Ordering::Relaxed);
        Duration::from_nanos(bytes.saturating_mul(NANOS_PER_BYTE))
    }
}

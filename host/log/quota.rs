//! How much one source may write to the log in a second.
//!
//! The log's queue is one for all. Without a bound, a guest that prints all the time, or a client
//! that makes one fail all the time, would fill it, and the lines of others would be lost.

use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::Instant;

/// What one source may write in a second: so many lines, and so many bytes.
pub struct Quota {
    lines_max: usize,
    bytes_max: usize,
    began: Instant,
    /// The second that is counted, since it began.
    second: AtomicU64,
    lines: AtomicUsize,
    bytes: AtomicUsize,
    /// Lines that were not written since the last that was.
    dropped: AtomicUsize,
}

impl Quota {
    pub fn new(lines_max: usize, bytes_max: usize) -> Self {
        Quota {
            lines_max,
            bytes_max,
            began: Instant::now(),
            second: AtomicU64::new(0),
            lines: AtomicUsize::new(0),
            bytes: AtomicUsize::new(0),
            dropped: AtomicUsize::new(0),
        }
    }

    /// Takes a line of so many bytes: how many before it were dropped, or `None` if this one is to
    /// be. Threads that ask at the same time may get a few more.
    pub fn take(&self, bytes: usize) -> Option<usize> {
        self.take_at(self.began.elapsed().as_secs(), bytes)
    }

    fn take_at(&self, now: u64, bytes: usize) -> Option<usize> {
        if self.second.swap(now, Ordering::Relaxed) != now {
            self.lines.store(0, Ordering::Relaxed);
            self.bytes.store(0, Ordering::Relaxed);
        }
        let lines = self.lines.fetch_add(1, Ordering::Relaxed);
        let before = self.bytes.fetch_add(bytes, Ordering::Relaxed);
        if lines >= self.lines_max || before >= self.bytes_max {
            self.dropped.fetch_add(1, Ordering::Relaxed);
            return None;
        }
        Some(self.dropped.swap(0, Ordering::Relaxed))
    }
}

#[cfg(test)]
mod tests;

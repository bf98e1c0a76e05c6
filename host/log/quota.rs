//! Bounds how much one source may write to the log in a second.
//!
//! All sources share the log's queue. Without a bound, a guest that prints all the time, or a
//! client that makes requests fail all the time, would fill it, and other lines would be lost.

use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::Instant;

/// How many lines and bytes one source may write in a second.
pub struct Quota {
    lines_max: usize,
    bytes_max: usize,
    began: Instant,
    /// The second that `lines` and `bytes` count for, from `began`.
    second: AtomicU64,
    lines: AtomicUsize,
    bytes: AtomicUsize,
    /// How many lines were dropped since the last written one.
    dropped: AtomicUsize,
}

impl Quota {
    /// A quota of this many lines and bytes in a second.
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

    /// Asks to write a line of `bytes` bytes. Returns how many lines before it were dropped, or
    /// `None` if this line must be dropped, too. Concurrent threads may get a few lines more.
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

//! How much memory loads may take at once, for the bytes of files and of what they are compiled to,
//! as long as the host has both in hand.
//!
//! Owns who waits for whom: large files for each other, small ones for nobody.

use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use crate::guest::budget::{Budget, Charge};
use crate::guest::child::Cancel;

/// The file, what comes back of it, and the same in the form in which it is kept.
const COPIES: u64 = 3;
/// The part of the memory for guests that large loads take at once, if there are several.
const ROOM_PART: u64 = 8;
/// The part of that up to which a file is small. There are twenty loads at once at the most.
const SMALL_PART: u64 = 32;
/// How often one that waits looks whether it has been cancelled.
const LOOK_EVERY: Duration = Duration::from_millis(100);

/// Room for large loads.
pub struct Room {
    used: Mutex<u64>,
    freed: Condvar,
    memory: Budget,
}

/// What one load takes of it, until this is dropped.
pub struct Place<'a> {
    room: &'a Room,
    bytes: u64,
    _charge: Charge,
}

impl Room {
    pub fn new(memory: Budget) -> Self {
        Room { used: Mutex::new(0), freed: Condvar::new(), memory }
    }

    /// Waits for room for a file of so many bytes, or until its load is cancelled. Blocks. One that
    /// is larger than all there is goes alone.
    pub fn enter(&self, file_bytes: u64, cancel: &Cancel) -> Place<'_> {
        let bytes = file_bytes.saturating_mul(COPIES);
        let max = self.memory.total() as u64 / ROOM_PART;
        let is_small = bytes <= max / SMALL_PART;
        let bytes = if is_small { 0 } else { bytes };
        let mut used = self.lock();
        while !is_small && *used > 0 && *used + bytes > max && !cancel.is_cancelled() {
            let waited = self.freed.wait_timeout(used, LOOK_EVERY);
            used = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
        *used += bytes;
        drop(used);
        let charged = usize::try_from(bytes).unwrap_or(usize::MAX);
        Place { room: self, bytes, _charge: self.memory.take_anyway(charged) }
    }

    fn lock(&self) -> MutexGuard<'_, u64> {
        self.used.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        *self.room.lock() -= self.bytes;
        self.room.freed.notify_all();
    }
}

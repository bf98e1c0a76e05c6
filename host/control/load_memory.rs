//! How much memory loads may take at once, for the bytes of files and of what they are compiled to,
//! as long as the host has both in hand.
//!
//! Owns who waits for whom: large files for each other, small ones for nobody.

use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use crate::guest::allocator::Freed;
use crate::guest::budget::{Budget, Charge};
use crate::guest::child::Cancel;
use crate::guest::failure::Failure;

/// The file, what comes back of it, and the same in the form in which it is kept.
const COPIES: u64 = 3;
/// The part of the memory for guests that large loads take at once, if there are several.
const ROOM_PART: u64 = 8;
/// The part of that up to which a file is small. There are twenty loads at once at the most.
const SMALL_PART: u64 = 32;
/// The part of the memory for guests that one load may take: the rest is for those that are served.
const ONE_PART: u64 = 2;
/// How long one waits for guests to give memory back, and how often it looks, also whether it has
/// been cancelled.
const PATIENCE: Duration = Duration::from_secs(10);
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
    charge: Charge,
}

impl Place<'_> {
    /// Takes memory that the guests leave. Those that are served are not to go without.
    fn take_memory(&mut self, cancel: &Cancel) -> Result<(), Failure> {
        let bytes = usize::try_from(self.bytes).unwrap_or(usize::MAX);
        let began = Instant::now();
        let memory = &self.room.memory;
        let is_modest = bytes <= memory.total() / ROOM_PART as usize;
        let mut wanted = None;
        // The first time, what is kept ready is given up for it.
        let mut is_first = true;
        while bytes > 0 && !((is_first || memory.has(bytes)) && self.charge.raise_to(bytes).is_ok())
        {
            is_first = false;
            if is_modest {
                // No guest grows into what others give back meanwhile.
                wanted.get_or_insert_with(|| memory.want(bytes));
            }
            if began.elapsed() >= PATIENCE || cancel.is_cancelled() {
                return Err(Failure::of_shortage(format!(
                    "to load it takes {} KiB, and the guests that are served leave no more of \
                     --memory-total",
                    bytes >> 10
                )));
            }
            std::thread::sleep(LOOK_EVERY);
        }
        Ok(())
    }
}

impl Room {
    pub fn new(memory: Budget) -> Self {
        Room { used: Mutex::new(0), freed: Condvar::new(), memory }
    }

    /// Waits for room for a file of so many bytes, or until its load is cancelled. Blocks. One that
    /// is larger than all there is for loads goes alone.
    ///
    /// # Errors
    /// It is too large for the memory of this host, or the guests have not left enough of it.
    pub fn enter(&self, file_bytes: u64, cancel: &Cancel) -> Result<Place<'_>, Failure> {
        let bytes = file_bytes.saturating_mul(COPIES);
        let total = self.memory.total() as u64;
        if bytes > total / ONE_PART {
            return Err(Failure::of_file(format!(
                "to load it takes {COPIES} times its {} KiB, which is more than a half of \
                 --memory-total ({} KiB): make it smaller, or raise that",
                file_bytes >> 10,
                total >> 10
            )));
        }
        let max = total / ROOM_PART;
        let is_small = bytes <= max / SMALL_PART;
        let bytes = if is_small { 0 } else { bytes };
        let mut used = self.lock();
        while !is_small && *used > 0 && *used + bytes > max && !cancel.is_cancelled() {
            let waited = self.freed.wait_timeout(used, LOOK_EVERY);
            used = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
        *used += bytes;
        drop(used);
        let mut place = Place { room: self, bytes, charge: self.memory.nothing() };
        place.take_memory(cancel)?;
        Ok(place)
    }

    fn lock(&self) -> MutexGuard<'_, u64> {
        self.used.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        *self.room.lock() -= self.bytes;
        self.room.freed.notify_all();
        drop(Freed(self.charge.bytes()));
    }
}

#[cfg(test)]
mod tests;

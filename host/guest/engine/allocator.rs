//! Freed memory that the allocator keeps. It is charged to nobody, but the process still has it.
//!
//! Owns when it goes back to the kernel. The allocator has a heap for each thread, which only that
//! thread can trim, whichever thread has freed the memory. So a round begins when enough has been
//! freed, and each thread takes part when it gets there. Large bodies are not allocated here
//! (`mapped_buffer.rs`).
#![allow(unsafe_code, reason = "the allocator's own interface is that of a C library; see `tidy`")]

use std::cell::Cell;
use std::sync::atomic::{AtomicU32, AtomicUsize, Ordering};

/// Bytes that have to be freed for a new round.
const ROUND_BYTES: usize = 4 << 20;

static FREED: AtomicUsize = AtomicUsize::new(0);
static ROUND: AtomicU32 = AtomicU32::new(0);
/// How often a busy thread has handed its free memory on to the others.
static QUICK_TRIMS: AtomicU32 = AtomicU32::new(0);

thread_local! {
    /// The round in which this thread has last handed its free memory on or trimmed its heap.
    static DONE: Cell<u32> = const { Cell::new(0) };
    /// The round and the hand-over after which this thread has last trimmed its heap.
    static ALL_DONE: Cell<(u32, u32)> = const { Cell::new((0, 0)) };
}

/// Counts freed bytes. Begins a round when there are enough.
fn note_freed(bytes: usize) {
    if bytes > 0 && FREED.fetch_add(bytes, Ordering::Relaxed).saturating_add(bytes) >= ROUND_BYTES {
        FREED.store(0, Ordering::Relaxed);
        ROUND.fetch_add(1, Ordering::Relaxed);
    }
}

/// Counts so many bytes as freed when it is dropped. Declare it after what holds them.
pub struct FreedNotice(pub usize);

impl Drop for FreedNotice {
    fn drop(&mut self) {
        note_freed(self.0);
    }
}

/// Gives the free memory of this thread's heap, and what others have handed on, back to the kernel,
/// once a round. Returns whether it did. May take long: others may have freed any amount.
pub fn trim_heap() -> bool {
    let rounds = (ROUND.load(Ordering::Relaxed), QUICK_TRIMS.load(Ordering::Relaxed));
    DONE.set(rounds.0);
    let is_due = ALL_DONE.replace(rounds) != rounds;
    if is_due {
        // SAFETY: may be called at any time on any thread, and touches nothing that is in use.
        unsafe { libmimalloc_sys::mi_collect(true) };
    }
    is_due
}

/// For a thread that has no time: hands its free memory on to those that have, once a round.
/// Returns whether it did; the others have to be woken then.
pub fn trim_heap_quickly() -> bool {
    let round = ROUND.load(Ordering::Relaxed);
    let is_due = DONE.replace(round) != round;
    if is_due {
        // SAFETY: as in `trim_heap`.
        unsafe { libmimalloc_sys::mi_collect(false) };
        QUICK_TRIMS.fetch_add(1, Ordering::Relaxed);
    }
    is_due
}

//! What the allocator keeps of memory that has been freed: it would be nobody's, and count for
//! nothing.
//!
//! Owns when it is given back to the kernel. The allocator keeps a heap for each thread, which only
//! that thread can look through, be the memory freed by itself or by another. So a round is called
//! when enough is free, and each thread takes part in it when it gets there. Large bodies are not
//! the allocator's (`mapped_buffer.rs`).
#![allow(unsafe_code, reason = "the allocator's own interface is that of a C library; see `tidy`")]

use std::cell::Cell;
use std::sync::atomic::{AtomicU32, AtomicUsize, Ordering};

/// What has to be freed for a round.
const ROUND_BYTES: usize = 4 << 20;

static FREED: AtomicUsize = AtomicUsize::new(0);
static ROUND: AtomicU32 = AtomicU32::new(0);
/// How often a thread has handed on what it had free.
static QUICK_TRIMS: AtomicU32 = AtomicU32::new(0);

thread_local! {
    /// The rounds that this thread has taken part in, and what it has given back to the kernel.
    static DONE: Cell<u32> = const { Cell::new(0) };
    static ALL_DONE: Cell<(u32, u32)> = const { Cell::new((0, 0)) };
}

/// Says that so many bytes have been freed.
fn note_freed(bytes: usize) {
    if bytes > 0 && FREED.fetch_add(bytes, Ordering::Relaxed).saturating_add(bytes) >= ROUND_BYTES {
        FREED.store(0, Ordering::Relaxed);
        ROUND.fetch_add(1, Ordering::Relaxed);
    }
}

/// Says that so many bytes have been freed when it is dropped, behind them.
pub struct FreedNotice(pub usize);

impl Drop for FreedNotice {
    fn drop(&mut self) {
        note_freed(self.0);
    }
}

/// Gives back what is free in the heap of this thread, and what others have handed on, if it has
/// not done so in this round; whether it had not. That may take long: there is no end to what
/// others have freed in the whole process.
pub fn trim_heap() -> bool {
    let rounds = (ROUND.load(Ordering::Relaxed), QUICK_TRIMS.load(Ordering::Relaxed));
    DONE.set(rounds.0);
    let is_due = ALL_DONE.replace(rounds) != rounds;
    if is_due {
        // SAFETY: it may be called at any time on any thread, and touches nothing that is in use.
        unsafe { libmimalloc_sys::mi_collect(true) };
    }
    is_due
}

/// On a thread that has no time: hands what is free on to those that have, who are to be woken.
pub fn trim_heap_quickly() -> bool {
    let round = ROUND.load(Ordering::Relaxed);
    let is_due = DONE.replace(round) != round;
    if is_due {
        // SAFETY: as above.
        unsafe { libmimalloc_sys::mi_collect(false) };
        QUICK_TRIMS.fetch_add(1, Ordering::Relaxed);
    }
    is_due
}

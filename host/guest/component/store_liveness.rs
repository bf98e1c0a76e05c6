//! What is known of a store to those that outlive it.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

/// Tells whether a store is gone. Everything behind its resources ends with it, and a body ends as
/// if it were complete. So the flag is set before the resources are dropped.
#[derive(Clone, Default)]
pub struct StoreLiveness(Arc<LivenessFlags>);

#[derive(Default)]
struct LivenessFlags {
    is_dropped: AtomicBool,
    polls: AtomicUsize,
}

impl StoreLiveness {
    /// Says that the store is about to be dropped.
    pub fn mark_dropped(&self) {
        self.0.is_dropped.store(true, Ordering::Release);
    }

    /// Whether the store is gone, or about to be.
    pub fn is_dropped(&self) -> bool {
        self.0.is_dropped.load(Ordering::Acquire)
    }

    /// Counts a poll of the body of an answer to one of the guest's own requests.
    pub fn note_poll(&self) {
        self.0.polls.fetch_add(1, Ordering::Relaxed);
    }

    /// How often such bodies have been polled.
    pub fn polls(&self) -> usize {
        self.0.polls.load(Ordering::Relaxed)
    }
}

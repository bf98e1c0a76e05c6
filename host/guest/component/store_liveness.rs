//! What is known of a store by what outlives it.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

/// Tells whether a store is gone. What is behind its resources ends with them, a body as if it were
/// complete; so this is said before they are dropped.
#[derive(Clone, Default)]
pub struct StoreLiveness(Arc<LivenessFlags>);

#[derive(Default)]
struct LivenessFlags {
    is_dropped: AtomicBool,
    polls: AtomicUsize,
}

impl StoreLiveness {
    /// Says that the store is about to go.
    pub fn mark_dropped(&self) {
        self.0.is_dropped.store(true, Ordering::Release);
    }

    pub fn is_dropped(&self) -> bool {
        self.0.is_dropped.load(Ordering::Acquire)
    }

    /// Takes note that a body which a server sends has been asked for more.
    pub fn note_poll(&self) {
        self.0.polls.fetch_add(1, Ordering::Relaxed);
    }

    /// How often one has.
    pub fn polls(&self) -> usize {
        self.0.polls.load(Ordering::Relaxed)
    }
}

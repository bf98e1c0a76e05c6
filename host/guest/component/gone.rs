//! What is known of a store by what outlives it.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

/// Tells whether a store is gone. What is behind its resources ends with them, a body as if it were
/// complete; so this is said before they are dropped.
#[derive(Clone, Default)]
pub struct Gone(Arc<Told>);

#[derive(Default)]
struct Told {
    is_gone: AtomicBool,
    looks: AtomicUsize,
}

impl Gone {
    /// Says that the store is about to go.
    pub fn set(&self) {
        self.0.is_gone.store(true, Ordering::Release);
    }

    pub fn is_gone(&self) -> bool {
        self.0.is_gone.load(Ordering::Acquire)
    }

    /// Takes note that a body which a server sends has been asked for more.
    pub fn look(&self) {
        self.0.looks.fetch_add(1, Ordering::Relaxed);
    }

    /// How often one has.
    pub fn looks(&self) -> usize {
        self.0.looks.load(Ordering::Relaxed)
    }
}

//! Who has the instance slots of one engine: a guest may have three times as many as are free, so
//! that one whose calls wait for long leaves some to others.
//!
//! Owns the count. Slots are few for guests with more than 64 KiB of data, of which each maps an
//! image: `slots.rs` says how many.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

/// As of places for requests (`registry/admit.rs`), after Choudhury and Hahne, "Dynamic queue
/// length thresholds for shared-memory packet switches" (1998).
const TIMES_FREE: usize = 3;

/// The slots of one engine, all workers together.
pub struct Tenants {
    used: AtomicUsize,
    total: usize,
}

/// Instances of one guest.
#[derive(Default)]
pub struct Tenancy(AtomicUsize);

impl Tenants {
    /// `total` is `None` where instances are not pooled.
    pub fn new(total: Option<u32>) -> Arc<Self> {
        let total = total.map_or(usize::MAX, |total| total as usize);
        Arc::new(Tenants { used: AtomicUsize::new(0), total })
    }

    /// Counts an instance of a guest in. Whether there is a slot for it that others can spare.
    pub fn enter(&self, own: &Tenancy) -> bool {
        let own = own.0.fetch_add(1, Ordering::Relaxed) + 1;
        let used = self.used.fetch_add(1, Ordering::Relaxed) + 1;
        self.is_fair(own, used)
    }

    /// Counts one out that was counted in.
    pub fn leave(&self, own: &Tenancy) {
        own.0.fetch_sub(1, Ordering::Relaxed);
        self.used.fetch_sub(1, Ordering::Relaxed);
    }

    /// Whether a guest has as many as it may.
    pub fn has_enough(&self, own: &Tenancy) -> bool {
        let (own, used) = (own.0.load(Ordering::Relaxed), self.used.load(Ordering::Relaxed));
        !self.is_fair(own + 1, used + 1)
    }

    fn is_fair(&self, own: usize, used: usize) -> bool {
        own <= 1 || own <= self.total.saturating_sub(used).saturating_mul(TIMES_FREE)
    }
}

//! Who has the instance slots of one engine: a guest may have three times as many as are free, so
//! that one whose calls wait for long leaves some to others.
//!
//! Owns the count. An instance takes as many slots as it has memories, or more where it has many
//! tables or modules (`records/size.rs`) or comes to have many stacks (`limiter.rs`). Slots are few
//! for guests with more than 64 KiB of data, of which each maps an image: `slots.rs` says how many.

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

/// Slots that instances of one guest have.
#[derive(Default)]
pub struct Tenancy(AtomicUsize);

impl Tenants {
    /// `total` is `None` where instances are not pooled.
    pub fn new(total: Option<u32>) -> Arc<Self> {
        let total = total.map_or(usize::MAX, |total| total as usize);
        Arc::new(Tenants { used: AtomicUsize::new(0), total })
    }

    /// Counts an instance of a guest in that takes so many slots. Whether others can spare them.
    pub fn enter(&self, own: &Tenancy, slots: usize) -> bool {
        let own = own.0.fetch_add(slots, Ordering::Relaxed) + slots;
        let used = self.used.fetch_add(slots, Ordering::Relaxed) + slots;
        self.is_fair(own, used, slots)
    }

    /// Counts one out that was counted in.
    pub fn leave(&self, own: &Tenancy, slots: usize) {
        own.0.fetch_sub(slots, Ordering::Relaxed);
        self.used.fetch_sub(slots, Ordering::Relaxed);
    }

    /// Whether a guest has as many as it may.
    pub fn has_enough(&self, own: &Tenancy, slots: usize) -> bool {
        let (own, used) = (own.0.load(Ordering::Relaxed), self.used.load(Ordering::Relaxed));
        !self.is_fair(own + slots, used + slots, slots)
    }

    /// Its first instance every guest may have.
    fn is_fair(&self, own: usize, used: usize, slots: usize) -> bool {
        own <= slots || own <= self.total.saturating_sub(used).saturating_mul(TIMES_FREE)
    }
}

//! Who has the instance slots of one engine: a guest may have three times as many as are free, and
//! so may all guests of one owner, so that one whose calls wait for long leaves some to others.
//!
//! Owns the count. An instance takes as many slots as it has memories, or more where it has many
//! tables or modules (`records/size.rs`) or comes to have many stacks (`limiter.rs`). Slots are few
//! for guests with more than 64 KiB of data, of which each maps an image: `slots.rs` says how many.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use super::slots::ENGINES;

/// As of places for requests (`registry/admission_gate.rs`), after Choudhury and Hahne, "Dynamic
/// queue length thresholds for shared-memory packet switches" (1998).
const TIMES_FREE: usize = 3;

/// The slots of one engine, all workers together.
pub struct SlotQuota {
    /// The number of the engine.
    engine: usize,
    used: AtomicUsize,
    total: usize,
}

/// Slots that instances of one guest have, or of all guests of one owner.
#[derive(Default)]
pub struct SlotCount(AtomicUsize);

/// A guest, as far as it has slots.
#[derive(Clone, Copy)]
pub struct SlotHolder<'a> {
    pub own: &'a SlotCount,
    /// What its owner has with all its guests, of each engine; nothing of nobody.
    pub owner: Option<&'a [SlotCount; ENGINES]>,
}

impl SlotCount {
    fn get(&self) -> usize {
        self.0.load(Ordering::Relaxed)
    }

    fn add(&self, slots: usize) -> usize {
        self.0.fetch_add(slots, Ordering::Relaxed) + slots
    }

    fn sub(&self, slots: usize) {
        self.0.fetch_sub(slots, Ordering::Relaxed);
    }
}

impl SlotQuota {
    /// `total` is `None` where instances are not pooled.
    pub fn new(engine: usize, total: Option<u32>) -> Arc<Self> {
        let total = total.map_or(usize::MAX, |total| total as usize);
        Arc::new(SlotQuota { engine, used: AtomicUsize::new(0), total })
    }

    /// Counts an instance of a guest in that takes so many slots. Whether others can spare them.
    pub fn take_slots(&self, guest: SlotHolder<'_>, slots: usize) -> bool {
        let own = guest.own.add(slots);
        let owned = self.of_owner(guest).map_or(own, |owner| owner.add(slots));
        let used = self.used.fetch_add(slots, Ordering::Relaxed) + slots;
        self.is_fair(own, owned, used, slots)
    }

    /// Counts one out that was counted in.
    pub fn free_slots(&self, guest: SlotHolder<'_>, slots: usize) {
        guest.own.sub(slots);
        if let Some(owner) = self.of_owner(guest) {
            owner.sub(slots);
        }
        self.used.fetch_sub(slots, Ordering::Relaxed);
    }

    /// Whether a guest has as many as it may if the others of its owner had none: then what they
    /// keep ready is of no use to it.
    pub fn is_at_quota(&self, guest: SlotHolder<'_>, slots: usize) -> bool {
        let own = guest.own.get();
        let used = self.used.load(Ordering::Relaxed);
        !self.is_fair(own + slots, own + slots, used + slots, slots)
    }

    /// What the guests of the same owner have of this engine.
    fn of_owner<'a>(&self, guest: SlotHolder<'a>) -> Option<&'a SlotCount> {
        guest.owner.map(|slots| &slots[self.engine])
    }

    /// Its first instance every guest may have. An owner may have three times what is free, and
    /// each of its guests, where it has several, three times what is left of that.
    fn is_fair(&self, own: usize, owned: usize, used: usize, slots: usize) -> bool {
        let of_owner = self.total.saturating_sub(used).saturating_mul(TIMES_FREE);
        let left = of_owner.saturating_sub(owned).saturating_mul(TIMES_FREE);
        let is_sole = own == owned;
        own <= slots || owned <= of_owner && (is_sole || own <= left)
    }
}

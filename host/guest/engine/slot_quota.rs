//! Shares out the instance slots of one engine. A guest may have three times as many slots as are
//! free, and so may all guests of one owner together. So a guest whose calls wait for long leaves
//! some to others.
//!
//! Owns the count. An instance takes as many slots as it has memories, or more if it has many
//! tables or modules (`records/size.rs`) or many stacks (`limiter.rs`). Slots are scarce for guests
//! with more than 64 KiB of data, since each maps an image: `slots.rs` says how many there are.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use super::slots::ENGINES;

/// The same factor as for places of requests (`registry/admission_gate.rs`), after Choudhury and
/// Hahne, "Dynamic queue length thresholds for shared-memory packet switches" (1998).
const TIMES_FREE: usize = 3;

/// The slots of one engine, over all workers.
pub struct SlotQuota {
    /// The number of the engine.
    engine: usize,
    used: AtomicUsize,
    total: usize,
}

/// Slots of one guest, or of all guests of one owner.
#[derive(Default)]
pub struct SlotCount(AtomicUsize);

/// A guest as a holder of slots.
#[derive(Clone, Copy)]
pub struct SlotHolder<'a> {
    /// The slots of the guest, of the engine that it runs on.
    pub own: &'a SlotCount,
    /// The slots of its owner, by engine; `None` if the guest has no owner.
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
    /// `total` is `None` if the engine has no pool.
    pub fn new(engine: usize, total: Option<u32>) -> Arc<Self> {
        let total = total.map_or(usize::MAX, |total| total as usize);
        Arc::new(SlotQuota { engine, used: AtomicUsize::new(0), total })
    }

    /// Counts the slots of one more instance. Returns whether the guest may have them. They count
    /// even if not: [`SlotQuota::free_slots`] has to follow.
    pub fn take_slots(&self, guest: SlotHolder<'_>, slots: usize) -> bool {
        let own = guest.own.add(slots);
        let owned = self.of_owner(guest).map_or(own, |owner| owner.add(slots));
        let used = self.used.fetch_add(slots, Ordering::Relaxed) + slots;
        self.is_fair(own, owned, used, slots)
    }

    /// Takes back slots that were counted.
    pub fn free_slots(&self, guest: SlotHolder<'_>, slots: usize) {
        guest.own.sub(slots);
        if let Some(owner) = self.of_owner(guest) {
            owner.sub(slots);
        }
        self.used.fetch_sub(slots, Ordering::Relaxed);
    }

    /// Whether a guest may have no more slots, even if the other guests of its owner had none. Then
    /// dropping what others keep ready would not help it.
    pub fn is_at_quota(&self, guest: SlotHolder<'_>, slots: usize) -> bool {
        let own = guest.own.get();
        let used = self.used.load(Ordering::Relaxed);
        !self.is_fair(own + slots, own + slots, used + slots, slots)
    }

    /// The slots that the owner's guests have of this engine.
    fn of_owner<'a>(&self, guest: SlotHolder<'a>) -> Option<&'a SlotCount> {
        guest.owner.map(|slots| &slots[self.engine])
    }

    /// Every guest may have one instance. An owner may have three times as many slots as are free.
    /// If several of its guests have slots, each may have three times what the owner has left of
    /// that.
    fn is_fair(&self, own: usize, owned: usize, used: usize, slots: usize) -> bool {
        let of_owner = self.total.saturating_sub(used).saturating_mul(TIMES_FREE);
        let left = of_owner.saturating_sub(owned).saturating_mul(TIMES_FREE);
        let is_sole = own == owned;
        own <= slots || owned <= of_owner && (is_sole || own <= left)
    }
}

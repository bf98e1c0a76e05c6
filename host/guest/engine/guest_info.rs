//! What each instance of a guest has to know of it.

use std::sync::Arc;

use super::budget::Budget;
use super::circuit_breaker::CircuitBreaker;
use super::slot_quota::{SlotCount, SlotHolder};
use crate::grants::Grants;
use crate::log::Quota;

/// What one guest may write in a second, all its requests together.
const OUTPUT_LINES_MAX: usize = 10_000;
const OUTPUT_BYTES_MAX: usize = 4 << 20;
/// How many of its calls may have their end logged in a second.
const FAILURE_LINES_MAX: usize = 1_000;
const FAILURE_BYTES_MAX: usize = 1 << 20;

/// What each instance of a guest has to know of it, in one piece: every reference costs an atomic
/// operation per fresh instance.
pub struct GuestInfo {
    /// Its file's path below the handler folder, without extension.
    pub name: Box<str>,
    /// What it may use.
    pub grants: Arc<Grants>,
    pub breaker: CircuitBreaker,
    /// The host's memory, of which its instances take theirs.
    pub memory: Budget,
    /// How many instances it has.
    pub instances: SlotCount,
    /// What may be logged in a second: of its words, and of how its calls have ended.
    pub output_quota: Quota,
    pub failure_quota: Quota,
}

impl GuestInfo {
    pub fn new(name: &str, grants: &Arc<Grants>, memory: &Budget) -> Arc<Self> {
        let (grants, memory) = (grants.clone(), memory.of_guest(grants.owner.id));
        let (words_quota, ends_quota) = quotas();
        let health = CircuitBreaker::default();
        let (name, instances) = (name.into(), SlotCount::default());
        Arc::new(GuestInfo {
            name,
            grants,
            breaker: health,
            memory,
            instances,
            output_quota: words_quota,
            failure_quota: ends_quota,
        })
    }

    /// It, as far as its instances take slots.
    pub fn slot_holder(&self) -> SlotHolder<'_> {
        SlotHolder { own: &self.instances, owner: self.memory.owner().map(|owner| &owner.slots) }
    }
}

/// What a guest may have logged: of its words, and of its calls' ends.
fn quotas() -> (Quota, Quota) {
    let words = Quota::new(OUTPUT_LINES_MAX, OUTPUT_BYTES_MAX);
    (words, Quota::new(FAILURE_LINES_MAX, FAILURE_BYTES_MAX))
}

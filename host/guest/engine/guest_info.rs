//! What every instance of a guest needs to know of it.

use std::sync::Arc;

use super::budget::Budget;
use super::circuit_breaker::CircuitBreaker;
use super::slot_quota::{SlotCount, SlotHolder};
use crate::grants::Grants;
use crate::log::Quota;

/// What one guest may log in a second, over all its requests.
const OUTPUT_LINES_MAX: usize = 10_000;
const OUTPUT_BYTES_MAX: usize = 4 << 20;
/// How much may be logged in a second about failed calls of one guest.
const FAILURE_LINES_MAX: usize = 1_000;
const FAILURE_BYTES_MAX: usize = 1 << 20;

/// What every instance of a guest needs to know of it. In one piece, since each reference costs a
/// fresh instance an atomic operation.
pub struct GuestInfo {
    /// The path of the handler's file below the handler folder, without extension.
    pub name: Box<str>,
    /// What the handler may use.
    pub grants: Arc<Grants>,
    /// Pauses the guest if its start-up keeps failing.
    pub breaker: CircuitBreaker,
    /// The host's memory, charged to this guest.
    pub memory: Budget,
    /// The slots that its instances have.
    pub instances: SlotCount,
    /// Bounds what is logged in a second of the guest's own output.
    pub output_quota: Quota,
    /// Bounds what is logged in a second about its failed calls.
    pub failure_quota: Quota,
}

impl GuestInfo {
    /// The info of a new guest. `memory` is the host's.
    pub fn new(name: &str, grants: &Arc<Grants>, memory: &Budget) -> Arc<Self> {
        let (grants, memory) = (grants.clone(), memory.of_guest(grants.owner.id));
        let (output_quota, failure_quota) = quotas();
        let breaker = CircuitBreaker::default();
        let (name, instances) = (name.into(), SlotCount::default());
        Arc::new(GuestInfo {
            name,
            grants,
            breaker,
            memory,
            instances,
            output_quota,
            failure_quota,
        })
    }

    /// The guest as a holder of slots.
    pub fn slot_holder(&self) -> SlotHolder<'_> {
        SlotHolder { own: &self.instances, owner: self.memory.owner().map(|owner| &owner.slots) }
    }
}

/// The quotas for a guest's output and for its failed calls.
fn quotas() -> (Quota, Quota) {
    let output = Quota::new(OUTPUT_LINES_MAX, OUTPUT_BYTES_MAX);
    (output, Quota::new(FAILURE_LINES_MAX, FAILURE_BYTES_MAX))
}

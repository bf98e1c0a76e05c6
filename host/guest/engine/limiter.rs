//! Holds an instance to its limits on memory, and charges it for what it takes of the host.
//!
//! Owns what an instance is charged: its memories and tables at their size, its stack at the most
//! that a guest can use, and the host's own objects. Knows nothing of what the instance does.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use guesthouse_module::limits::TABLE_ELEMENTS_MAX;
use wasmtime::{CallHook, ResourceLimiter};

use super::allocator::FreedNotice;
use super::budget::{Budget, Charge, Purpose};
use super::engines::{INSTANCE_BYTES, RECORD_BYTES, STACK_BYTES};
use super::fault::Fault;
use super::guest_info::GuestInfo;
use super::slot_quota::SlotQuota;
use super::slots::STACKS_PER_SLOT;
use crate::message::Reject;

/// An instance has to free so much beyond what all have before the allocator is told.
const FREED_BYTES_MIN: usize = 256 << 10;
/// Bytes of a table element.
const TABLE_ELEMENT_BYTES: usize = 8;

/// What each instance of a guest costs.
pub struct InstanceCost<'a> {
    /// Counts the slots of its engine.
    pub slot_quota: &'a Arc<SlotQuota>,
    /// How many slots it takes.
    pub slots: usize,
    /// Bytes of its records in the engine.
    pub record_bytes: usize,
}

/// The limits and charges of one store.
pub struct Limiter {
    /// The guest's name and grants.
    pub guest_info: Arc<GuestInfo>,
    item_limits: StoreItemLimits,
    /// The size of its memories, which are charged.
    memory_bytes: usize,
    /// Whether a memory was refused growth because of the guest's own limit.
    pub is_at_limit: bool,
    /// Whether a memory could not grow although it was allowed to.
    pub has_failed_to_grow: bool,
    /// The bytes of the last growth of a memory, in case it fails.
    grown_bytes: usize,
    /// The bytes of the last growth of a table, in case it fails.
    table_grown_bytes: usize,
    /// The slots that its instance has.
    held_slots: Option<(Arc<SlotQuota>, usize)>,
    /// What else is charged: tables, stacks and the host's objects.
    other_bytes: usize,
    /// Its stacks, one for each call into the guest that has not returned.
    stacks: Stacks,
}

/// The stacks of one instance.
#[derive(Default)]
struct Stacks {
    /// Calls into the guest that have not returned, each on its own stack.
    used: usize,
    /// How many stacks this store is charged for: the most that were in use.
    charged: usize,
    prepaid: PrepaidStacks,
}

/// Stacks that a shared instance is charged for before requests come. They stay charged until the
/// instance is gone, as the guest may go on with a request after its response.
#[derive(Clone, Default)]
pub struct PrepaidStacks(Arc<Mutex<Option<Charge>>>);

impl PrepaidStacks {
    /// Charges so many stacks, less those that are charged already.
    ///
    /// # Errors
    /// [`Reject::NoMemory`]: nothing more is charged.
    pub fn charge(&self, stacks: usize, memory: &Budget) -> Result<(), Reject> {
        self.charged().get_or_insert_with(|| memory.empty_charge()).raise_to(stacks * STACK_BYTES)
    }

    fn count(&self) -> usize {
        self.charged().as_ref().map_or(0, |charge| charge.bytes() / STACK_BYTES)
    }

    fn charged(&self) -> MutexGuard<'_, Option<Charge>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// How many items of each kind a store may hold.
#[derive(Clone, Copy, Debug)]
pub struct StoreItemLimits {
    /// Core instances.
    pub instances: usize,
    /// Tables of all its instances.
    pub tables: usize,
    /// Memories of all its instances.
    pub memories: usize,
}

impl Limiter {
    /// The limits of a new store, which is charged nothing yet.
    pub fn new(info: Arc<GuestInfo>, item_limits: StoreItemLimits) -> Self {
        Limiter {
            guest_info: info,
            item_limits,
            memory_bytes: 0,
            is_at_limit: false,
            has_failed_to_grow: false,
            grown_bytes: 0,
            table_grown_bytes: 0,
            held_slots: None,
            other_bytes: 0,
            stacks: Stacks::default(),
        }
    }

    /// Takes the slots of an instance that is about to be made, and charges what every instance
    /// takes, with so many stacks, and the guest's records.
    ///
    /// # Errors
    /// [`Reject::NoInstance`] or [`Reject::NoMemory`], as the error of a host function.
    pub fn charge_instance(
        &mut self,
        cost: InstanceCost<'_>,
        stacks: usize,
    ) -> wasmtime::Result<()> {
        let (quota, slots) = self.held_slots.insert((cost.slot_quota.clone(), cost.slots));
        if !quota.take_slots(self.guest_info.slot_holder(), *slots) {
            return Err(reject_error(Reject::NoInstance));
        }
        self.stacks.charged = stacks;
        let records = cost.record_bytes.saturating_sub(RECORD_BYTES);
        let more = (stacks - 1) * STACK_BYTES + records;
        self.charge_other(INSTANCE_BYTES + more, Purpose::Start)
    }

    /// Follows calls into the guest. In components with several calls at once, many may wait, each
    /// on a stack. A stack beyond those that are charged is charged when its call begins, and every
    /// few stacks take a slot, as another instance would.
    ///
    /// # Errors
    /// [`Reject::NoInstance`] or [`Reject::NoMemory`], as the error of a host function.
    pub fn note_call(&mut self, hook: CallHook) -> wasmtime::Result<()> {
        let stacks = &mut self.stacks;
        match hook {
            CallHook::CallingWasm => stacks.used += 1,
            CallHook::ReturningFromWasm => {
                stacks.used = stacks.used.saturating_sub(1);
                return Ok(());
            }
            CallHook::CallingHost | CallHook::ReturningFromHost => return Ok(()),
        }
        if let Some((quota, slots)) = &mut self.held_slots
            && stacks.used > *slots * STACKS_PER_SLOT as usize
        {
            *slots += 1;
            if !quota.take_slots(self.guest_info.slot_holder(), 1) {
                return Err(reject_error(Reject::NoInstance));
            }
        }
        let charged = stacks.charged + stacks.prepaid.count();
        let more = stacks.used.saturating_sub(charged);
        stacks.charged += more;
        self.charge_other(more * STACK_BYTES, Purpose::Growth)
    }

    /// The count of stacks that are charged in advance, shared with this store.
    pub fn prepaid_stacks(&self) -> PrepaidStacks {
        self.stacks.prepaid.clone()
    }

    fn charge_other(&mut self, bytes: usize, purpose: Purpose) -> wasmtime::Result<()> {
        self.guest_info.memory.try_charge(bytes, purpose).map_err(reject_error)?;
        self.other_bytes += bytes;
        Ok(())
    }

    /// The size of its memories.
    pub fn memory_bytes(&self) -> usize {
        self.memory_bytes
    }
}

impl Drop for Limiter {
    fn drop(&mut self) {
        self.guest_info.memory.uncharge(self.memory_bytes + self.other_bytes);
        // Less than that is soon used again by the next instance.
        let freed = self.other_bytes.saturating_sub(INSTANCE_BYTES);
        if freed > FREED_BYTES_MIN {
            drop(FreedNotice(freed));
        }
        if let Some((quota, slots)) = &self.held_slots {
            quota.free_slots(self.guest_info.slot_holder(), *slots);
        }
    }
}

/// A reject as the error of a host function.
pub fn reject_error(reject: Reject) -> wasmtime::Error {
    wasmtime::Error::new(Fault::Reject(reject))
}

impl ResourceLimiter for Limiter {
    fn memory_growing(
        &mut self,
        current: usize,
        desired: usize,
        maximum: Option<usize>,
    ) -> wasmtime::Result<bool> {
        let more = desired.saturating_sub(current);
        let bytes = self.memory_bytes.saturating_add(more);
        let is_over = maximum.is_some_and(|maximum| desired > maximum);
        if is_over {
            return Ok(false);
        }
        if bytes > self.guest_info.grants.limits.memory_bytes_max {
            self.is_at_limit = true;
            return Ok(false);
        }
        let purpose = if current == 0 { Purpose::Start } else { Purpose::Growth };
        // Few guests expect -1 below their own limit. Most would trap, and be blamed for it.
        let taken = self.guest_info.memory.try_charge(more, purpose);
        taken.map_err(reject_error)?;
        (self.memory_bytes, self.grown_bytes) = (bytes, more);
        Ok(true)
    }

    /// Called only after [`Limiter::memory_growing`] has allowed it. The guest gets -1, and the
    /// charge is taken back.
    fn memory_grow_failed(&mut self, _error: wasmtime::Error) -> wasmtime::Result<()> {
        self.has_failed_to_grow = true;
        let grown = std::mem::take(&mut self.grown_bytes);
        self.memory_bytes -= grown;
        self.guest_info.memory.uncharge(grown);
        Ok(())
    }

    fn table_growing(
        &mut self,
        current: usize,
        desired: usize,
        maximum: Option<usize>,
    ) -> wasmtime::Result<bool> {
        if desired > TABLE_ELEMENTS_MAX || maximum.is_some_and(|maximum| desired > maximum) {
            return Ok(false);
        }
        let more = desired.saturating_sub(current) * TABLE_ELEMENT_BYTES;
        let purpose = if current == 0 { Purpose::Start } else { Purpose::Growth };
        self.charge_other(more, purpose)?;
        self.table_grown_bytes = more;
        Ok(true)
    }

    /// As [`Limiter::memory_grow_failed`].
    fn table_grow_failed(&mut self, _error: wasmtime::Error) -> wasmtime::Result<()> {
        let grown = std::mem::take(&mut self.table_grown_bytes);
        self.other_bytes -= grown;
        self.guest_info.memory.uncharge(grown);
        Ok(())
    }

    fn instances(&self) -> usize {
        self.item_limits.instances
    }

    fn tables(&self) -> usize {
        self.item_limits.tables
    }

    fn memories(&self) -> usize {
        self.item_limits.memories
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The guest may go on with a request after its response.
    #[test]
    fn stacks_stay_charged_until_the_instance_is_gone() {
        let memory = Budget::new(64 << 20);
        let ours = PrepaidStacks::default();
        let of_instance = ours.clone();
        ours.charge(3, &memory).expect("there is room");
        ours.charge(1, &memory).expect("it has that");
        assert_eq!((of_instance.count(), memory.used()), (3, 3 * STACK_BYTES));
        assert!(ours.charge(200, &memory).is_err());
        drop(ours);
        assert_eq!((of_instance.count(), memory.used()), (3, 3 * STACK_BYTES));
        drop(of_instance);
        assert_eq!(memory.used(), 0);
    }
}

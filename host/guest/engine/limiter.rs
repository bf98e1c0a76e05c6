//! What holds an instance to its limits on memory, and to its part of what the host has.
//!
//! Owns what an instance is charged: its memories and tables at their size, its stack at the most
//! that a guest can use of it, and the host's own objects. Knows nothing of what the instance does.

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

/// What an instance has at least, over what all have, to be told of when it is dropped.
const FREED_BYTES_MIN: usize = 256 << 10;
/// Bytes of an element of a table.
const TABLE_ELEMENT_BYTES: usize = 8;

/// What each instance of a guest takes.
pub struct InstanceCost<'a> {
    /// Who has the slots of its engine.
    pub slot_quota: &'a Arc<SlotQuota>,
    /// How many of them it takes.
    pub slots: usize,
    /// Bytes that the engine keeps for it.
    pub record_bytes: usize,
}

/// The limits of one store.
pub struct Limiter {
    /// The guest's name and limits.
    pub guest_info: Arc<GuestInfo>,
    parts: StoreItemLimits,
    /// The size of its memories, which is taken from the host's.
    memory_bytes: usize,
    /// Whether a memory was not to grow past the guest's own limit.
    pub is_at_limit: bool,
    /// Whether one was to grow that could not.
    pub has_failed_to_grow: bool,
    /// What the last growth has added to it, in case that fails.
    grown_bytes: usize,
    /// The same of a table.
    table_grown_bytes: usize,
    /// Where its instance is counted.
    held_slots: Option<(Arc<SlotQuota>, usize)>,
    /// What else it is charged: for its tables, its stacks and the host's objects.
    other_bytes: usize,
    /// Its stacks, where each call that waits may hold one.
    stacks: Stacks,
}

/// The stacks of one instance.
#[derive(Default)]
struct Stacks {
    /// Calls that the host is within, each on one of its own.
    used: usize,
    /// How many of them are charged here, at the most that they have been.
    charged: usize,
    prepaid: PrepaidStacks,
}

/// Stacks of an instance that are charged before its requests are there. They stay charged until it
/// is gone: what a request has begun may go on behind it.
#[derive(Clone, Default)]
pub struct PrepaidStacks(Arc<Mutex<Option<Charge>>>);

impl PrepaidStacks {
    /// Charges so many, as far as they are not.
    ///
    /// # Errors
    /// [`Reject::NoMemory`].
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

/// How many of each a store may hold.
#[derive(Clone, Copy, Debug)]
pub struct StoreItemLimits {
    pub instances: usize,
    pub tables: usize,
    pub memories: usize,
}

impl Limiter {
    pub fn new(about: Arc<GuestInfo>, parts: StoreItemLimits) -> Self {
        Limiter {
            guest_info: about,
            parts,
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

    /// Counts an instance of this guest that is about to be made, and charges it for what every
    /// instance takes, with so many stacks, and for its guest's records.
    ///
    /// # Errors
    /// [`Reject::NoInstance`], [`Reject::NoMemory`] as the error of a host function.
    pub fn charge_instance(
        &mut self,
        cost: InstanceCost<'_>,
        stacks: usize,
    ) -> wasmtime::Result<()> {
        let (tenants, slots) = self.held_slots.insert((cost.slot_quota.clone(), cost.slots));
        if !tenants.take_slots(self.guest_info.slot_holder(), *slots) {
            return Err(reject_error(Reject::NoInstance));
        }
        self.stacks.charged = stacks;
        let records = cost.record_bytes.saturating_sub(RECORD_BYTES);
        let more = (stacks - 1) * STACK_BYTES + records;
        self.charge_other(INSTANCE_BYTES + more, Purpose::Start)
    }

    /// Takes note that the host calls the guest, or that such a call ends. Components that call
    /// each other may have many calls that wait: what such an instance has more of than is charged
    /// is charged when the call begins, and every few take a slot, as another instance would.
    ///
    /// # Errors
    /// [`Reject::NoInstance`], [`Reject::NoMemory`] as the error of a host function.
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
        if let Some((tenants, slots)) = &mut self.held_slots
            && stacks.used > *slots * STACKS_PER_SLOT as usize
        {
            *slots += 1;
            if !tenants.take_slots(self.guest_info.slot_holder(), 1) {
                return Err(reject_error(Reject::NoInstance));
            }
        }
        let charged = stacks.charged + stacks.prepaid.count();
        let more = stacks.used.saturating_sub(charged);
        stacks.charged += more;
        self.charge_other(more * STACK_BYTES, Purpose::Growth)
    }

    /// Where it is counted how many of its stacks are charged elsewhere.
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
        // Less is soon used again by the next instance.
        let freed = self.other_bytes.saturating_sub(INSTANCE_BYTES);
        if freed > FREED_BYTES_MIN {
            drop(FreedNotice(freed));
        }
        if let Some((tenants, slots)) = &self.held_slots {
            tenants.free_slots(self.guest_info.slot_holder(), *slots);
        }
    }
}

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
        // Few guests are ready to get -1 below their limit: most would trap, and be blamed for it.
        let taken = self.guest_info.memory.try_charge(more, purpose);
        taken.map_err(reject_error)?;
        (self.memory_bytes, self.grown_bytes) = (bytes, more);
        Ok(true)
    }

    /// Is called only after [`Limiter::memory_growing`] has allowed it. The guest gets -1; what it
    /// did not get does not count.
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
        self.parts.instances
    }

    fn tables(&self) -> usize {
        self.parts.tables
    }

    fn memories(&self) -> usize {
        self.parts.memories
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What a request has begun may go on behind it.
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

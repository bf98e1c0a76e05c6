//! How a component is charged for what it has the host keep: header fields, the texts of its own
//! requests, and the resources behind its handles.
//!
//! Owns how that is counted. Bytes that a guest has written count until its requests have ended,
//! even if it has dropped them, since nobody tracks which resource holds what. They never count for
//! more than the existing resources could hold. Handles count at their highest number, as far as
//! samples show it.

use wasmtime_wasi_http::FieldMap;

use super::limits::{FIELD_BYTES_MAX, HOSTCALL_FUEL};
use crate::guest::engine::allocator::FreedNotice;
use crate::guest::engine::budget::{Budget, Charge};
use crate::guest::services::header::FIELD_BYTES;
use crate::message::Reject;

/// Bytes that are free of charge: every instance is charged for that much in advance.
const FREE_BYTES: usize = 16 << 10;
/// Charges are multiples of this.
const CHUNK_BYTES: usize = 64 << 10;
/// No resource holds more. Fields take twice their limit. A request also has four texts: three take
/// 64 KiB at most in hyper's types, and a method what one call can pass.
const RESOURCE_BYTES_MAX: usize = 2 * FIELD_BYTES_MAX + 3 * (64 << 10) + HOSTCALL_FUEL;
/// Handles that are free of charge, and what each of the others costs: no resource takes more
/// beside its contents.
const HANDLES_FREE: usize = 32;
const HANDLE_BYTES: usize = 1 << 10;
/// One in so many accesses to the resources counts them.
const RECOUNT_INTERVAL: u32 = 32;

/// What the host keeps for the guest of one store.
#[derive(Default)]
pub struct StoreCharge {
    bytes: usize,
    charge: Option<Charge>,
    handles: Option<Charge>,
    accesses: u32,
}

impl StoreCharge {
    /// Bytes that the guest has written since no resource was left.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// Bytes of it all, with the handles. Dropping many of them takes a while.
    pub fn size(&self) -> usize {
        self.bytes + self.handles.as_ref().map_or(0, Charge::bytes)
    }

    /// Charges bytes before they are kept. `resources` counts the resources that may hold them.
    ///
    /// # Errors
    /// [`Reject::NoMemory`]: nothing more is charged.
    pub fn add(
        &mut self,
        memory: &Budget,
        bytes: usize,
        resources: impl FnOnce() -> usize,
    ) -> Result<(), Reject> {
        self.bytes = self.bytes.saturating_add(bytes);
        let mut over = self.bytes.saturating_sub(FREE_BYTES);
        let charged = self.charge.as_ref().map_or(0, Charge::bytes);
        if over > charged {
            // One more resource is about to be made.
            self.bytes = self.bytes.min((resources() + 1) * RESOURCE_BYTES_MAX);
            over = self.bytes.saturating_sub(FREE_BYTES);
        }
        if over > charged {
            let charge = self.charge.get_or_insert_with(|| memory.empty_charge());
            charge.raise_to(over.next_multiple_of(CHUNK_BYTES))?;
        }
        Ok(())
    }

    /// Whether this access is to count the resources.
    pub fn is_due(&mut self) -> bool {
        self.accesses = self.accesses.wrapping_add(1);
        self.accesses.is_multiple_of(RECOUNT_INTERVAL)
    }

    /// Charges the handles or resources that exist.
    pub fn note_handles(&mut self, memory: &Budget, handles: usize) {
        let bytes = handles.saturating_sub(HANDLES_FREE) * HANDLE_BYTES;
        if bytes > self.handles.as_ref().map_or(0, Charge::bytes) {
            // They exist, so they count even if memory is short.
            let all = memory.force_charge(bytes.next_multiple_of(CHUNK_BYTES));
            self.handles = Some(all);
        }
    }
}

/// Tells the allocator what was freed. The part that was free of charge is soon used again.
impl Drop for StoreCharge {
    fn drop(&mut self) {
        let charged = [&self.charge, &self.handles].into_iter().flatten().map(Charge::bytes);
        drop(FreedNotice(charged.sum()));
    }
}

/// Bytes that a set of fields takes.
pub fn content(fields: &FieldMap) -> usize {
    fields.iter().map(|(name, value)| name.as_str().len() + value.len() + FIELD_BYTES).sum()
}

//! What the host keeps for a component at its word, as it counts: header fields, the texts of
//! requests that it makes, and the resources behind its handles.
//!
//! Owns what of them counts as the host's memory. What a guest has written counts until its
//! requests have ended, even if it has let go of it, since who holds what is not followed; but no
//! more than all resources that there are can hold. Handles count at the most that there have been
//! at once, as far as that is looked up.

use wasmtime_wasi_http::FieldMap;

use super::limits::{FIELD_BYTES_MAX, HOSTCALL_FUEL};
use crate::guest::engine::allocator::FreedNotice;
use crate::guest::engine::budget::{Budget, Charge};
use crate::guest::services::header::FIELD_BYTES;
use crate::message::Reject;

/// Up to here nothing is charged: it is within what each instance is charged for the host's
/// objects.
const FREE_BYTES: usize = 16 << 10;
/// What is charged is a multiple of this.
const CHUNK_BYTES: usize = 64 << 10;
/// No resource holds more: fields take twice their limit, a request has four texts beside them, of
/// which hyper's types take 64 KiB each and a method what one call can pass.
const RESOURCE_BYTES_MAX: usize = 2 * FIELD_BYTES_MAX + 3 * (64 << 10) + HOSTCALL_FUEL;
/// Handles that are not charged, and what others are: no resource takes more beside what is in it.
const HANDLES_FREE: usize = 32;
const HANDLE_BYTES: usize = 1 << 10;
/// Of so many looks at the resources, one counts them.
const RECOUNT_INTERVAL: u32 = 32;

/// What one store's guest has the host keep.
#[derive(Default)]
pub struct StoreCharge {
    bytes: usize,
    charge: Option<Charge>,
    handles: Option<Charge>,
    accesses: u32,
}

impl StoreCharge {
    /// Bytes that have been written since nothing was left.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// What it takes in all, with the resources, to let go of which takes a while.
    pub fn size(&self) -> usize {
        self.bytes + self.handles.as_ref().map_or(0, Charge::bytes)
    }

    /// Counts bytes before they are kept. `resources` counts what may hold them.
    ///
    /// # Errors
    /// [`Reject::NoMemory`].
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
            // One more is about to be made.
            self.bytes = self.bytes.min((resources() + 1) * RESOURCE_BYTES_MAX);
            over = self.bytes.saturating_sub(FREE_BYTES);
        }
        if over > charged {
            let charge = self.charge.get_or_insert_with(|| memory.empty_charge());
            charge.raise_to(over.next_multiple_of(CHUNK_BYTES))?;
        }
        Ok(())
    }

    /// Whether the resources are to be counted now.
    pub fn is_due(&mut self) -> bool {
        self.accesses = self.accesses.wrapping_add(1);
        self.accesses.is_multiple_of(RECOUNT_INTERVAL)
    }

    /// Takes note of how many handles or resources there are.
    pub fn note_handles(&mut self, memory: &Budget, handles: usize) {
        let bytes = handles.saturating_sub(HANDLES_FREE) * HANDLE_BYTES;
        if bytes > self.handles.as_ref().map_or(0, Charge::bytes) {
            // They are there.
            let all = memory.force_charge(bytes.next_multiple_of(CHUNK_BYTES));
            self.handles = Some(all);
        }
    }
}

/// What was free of charge is soon used again.
impl Drop for StoreCharge {
    fn drop(&mut self) {
        let charged = [&self.charge, &self.handles].into_iter().flatten().map(Charge::bytes);
        drop(FreedNotice(charged.sum()));
    }
}

/// Bytes that fields take.
pub fn content(fields: &FieldMap) -> usize {
    fields.iter().map(|(name, value)| name.as_str().len() + value.len() + FIELD_BYTES).sum()
}

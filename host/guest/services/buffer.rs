//! A buffer that the host keeps for a request: a body that a guest reads, writes or changes.
//!
//! Owns what of it is charged: all of its room, once it is larger than a connection's own buffers,
//! until its last bytes have been sent. Charged buffers are mapped from the kernel, and go back to
//! it when they are dropped: an allocator might keep them.

use bytes::Bytes;

use crate::guest::engine::budget::{Budget, Charge};
use crate::guest::engine::mapped_buffer::MappedBuffer;
use crate::guest::schedule::lane;
use crate::message::Reject;

/// Up to this size a buffer is not charged. A request has three of them at most, a connection one
/// response.
const FREE_BYTES_MAX: usize = 16 * 1024;

/// Smaller buffers are dropped on the spot.
const DEFERRED_BYTES_MIN: usize = 1 << 20;

/// Bytes that grow.
#[derive(Default)]
pub struct Buffer {
    /// The bytes, as long as there are few.
    bytes: Vec<u8>,
    /// The bytes, once they are charged. Boxed, as few buffers get so large.
    large: Option<Box<Large>>,
}

/// A buffer that is charged.
struct Large {
    bytes: MappedBuffer,
    len: usize,
    charge: Charge,
}

/// Large buffers are dropped in the slow lane: for 8 MiB the kernel takes some milliseconds. The
/// charge goes after that, so not while others wait for memory.
impl Drop for Large {
    fn drop(&mut self) {
        let freed = (self.bytes.take(), self.charge.take());
        if freed.1.bytes() >= DEFERRED_BYTES_MIN && !freed.1.is_tight() {
            lane::defer_drop_here(freed);
        }
    }
}

impl Buffer {
    /// The number of bytes.
    pub fn len(&self) -> usize {
        self.large.as_ref().map_or(self.bytes.len(), |large| large.len)
    }

    /// Whether there are no bytes.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Appends bytes.
    ///
    /// # Errors
    /// [`Reject::NoMemory`]: nothing is appended.
    pub fn extend(&mut self, memory: &Budget, more: &[u8]) -> Result<(), Reject> {
        let len = self.len() + more.len();
        if len <= FREE_BYTES_MAX {
            self.bytes.extend_from_slice(more);
            return Ok(());
        }
        let large = self.reserve_capacity(memory, len)?;
        large.bytes.as_mut()[large.len..len].copy_from_slice(more);
        large.len = len;
        Ok(())
    }

    /// The mapped buffer, with room for `len` bytes that are charged.
    fn reserve_capacity(&mut self, memory: &Budget, len: usize) -> Result<&mut Large, Reject> {
        let room = self.large.as_ref().map_or(0, |large| large.bytes.as_ref().len());
        if len > room {
            // While the bytes are copied, they exist twice and are charged twice.
            let mut charge = memory.empty_charge();
            charge.raise_to(MappedBuffer::charged_bytes(len))?;
            let mut bytes = MappedBuffer::new(len).ok_or(Reject::NoMemory)?;
            bytes.as_mut()[..self.len()].copy_from_slice(self.as_ref());
            self.large = Some(Box::new(Large { bytes, len: self.len(), charge }));
            self.bytes = Vec::new();
        }
        let large = self.large.as_mut().expect("it was there, or was made just above");
        if len > large.charge.bytes() {
            large.charge.raise_to(MappedBuffer::charged_bytes(len))?;
        }
        Ok(large)
    }

    /// All bytes. They are charged until the last reference is dropped.
    pub fn into_bytes(self) -> Bytes {
        match self.large {
            None => Bytes::from(self.bytes),
            Some(large) => Bytes::from_owner(*large),
        }
    }
}

impl AsRef<[u8]> for Buffer {
    fn as_ref(&self) -> &[u8] {
        self.large.as_deref().map_or(self.bytes.as_slice(), AsRef::as_ref)
    }
}

impl AsRef<[u8]> for Large {
    fn as_ref(&self) -> &[u8] {
        &self.bytes.as_ref()[..self.len]
    }
}

//! Bytes that the host keeps for a request: a body as a guest reads, writes or changes it.
//!
//! Owns what of them counts as the host's memory: all of the room that they take, where it is more
//! than a connection's own buffers. They count until the last of them has been sent. What counts is
//! mapped from the kernel and given back to it: what an allocator is given back it may keep.

use bytes::Bytes;

use crate::guest::engine::budget::{Budget, Charge};
use crate::guest::engine::mapped_buffer::MappedBuffer;
use crate::guest::schedule::lane;
use crate::message::Reject;

/// Up to here they do not count. A request has three such texts at most, a connection one answer.
const FREE_BYTES_MAX: usize = 16 * 1024;

/// What takes less is given back at once.
const DEFERRED_BYTES_MIN: usize = 1 << 20;

/// A text that grows.
#[derive(Default)]
pub struct Buffer {
    /// As long as it is small.
    bytes: Vec<u8>,
    /// Boxed, since most have none.
    large: Option<Box<Large>>,
}

/// A text that counts.
struct Large {
    bytes: MappedBuffer,
    len: usize,
    charge: Charge,
}

/// A large one is given back in the slow lane: for 8 MiB the kernel takes some milliseconds. What
/// it is charged is given back after that, so not where others may wait for it.
impl Drop for Large {
    fn drop(&mut self) {
        let freed = (self.bytes.take(), self.charge.take());
        if freed.1.bytes() >= DEFERRED_BYTES_MIN && !freed.1.is_tight() {
            lane::defer_drop_here(freed);
        }
    }
}

impl Buffer {
    pub fn len(&self) -> usize {
        self.large.as_ref().map_or(self.bytes.len(), |large| large.len)
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Adds bytes.
    ///
    /// # Errors
    /// [`Reject::NoMemory`]: nothing is added.
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

    /// What is mapped, with room for so many bytes that are charged.
    fn reserve_capacity(&mut self, memory: &Budget, len: usize) -> Result<&mut Large, Reject> {
        let room = self.large.as_ref().map_or(0, |large| large.bytes.as_ref().len());
        if len > room {
            // Until the bytes are copied, they are there twice and count twice.
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

    /// The whole text, which counts until it is dropped.
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

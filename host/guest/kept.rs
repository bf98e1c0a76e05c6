//! Bytes that the host keeps for a request: a body as a guest reads, writes or changes it.
//!
//! Owns what of them counts as the host's memory: all of the room that they take, where it is more
//! than a connection's own buffers. They count until the last of them has been sent.

use bytes::Bytes;

use super::budget::{Budget, Charge};
use crate::message::Reject;

/// Up to here they do not count. A request has three such texts at most, a connection one answer.
const FREE_BYTES_MAX: usize = 16 * 1024;

/// A text that grows.
#[derive(Default)]
pub struct Kept {
    bytes: Vec<u8>,
    /// Boxed, since most have none.
    charge: Option<Box<Charge>>,
}

impl Kept {
    pub fn len(&self) -> usize {
        self.bytes.len()
    }

    pub fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }

    /// Adds bytes.
    ///
    /// # Errors
    /// [`Reject::NoMemory`]: nothing is added.
    pub fn extend(&mut self, memory: &Budget, more: &[u8]) -> Result<(), Reject> {
        let len = self.bytes.len() + more.len();
        if len > FREE_BYTES_MAX {
            self.charge(memory, len)?;
        }
        self.bytes.extend_from_slice(more);
        Ok(())
    }

    /// Makes room for so many bytes, and counts it.
    fn charge(&mut self, memory: &Budget, len: usize) -> Result<(), Reject> {
        let charge = self.charge.get_or_insert_with(|| Box::new(memory.nothing()));
        if len <= charge.bytes() {
            return Ok(());
        }
        // By doubling, a text that is written in small pieces is copied twice at the most.
        let room = len.max(self.bytes.capacity() * 2);
        charge.raise_to(room)?;
        self.bytes.reserve_exact(room - self.bytes.len());
        Ok(())
    }

    /// The whole text, which counts until it is dropped.
    pub fn into_bytes(self) -> Bytes {
        if self.charge.is_none() { Bytes::from(self.bytes) } else { Bytes::from_owner(self) }
    }
}

impl AsRef<[u8]> for Kept {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

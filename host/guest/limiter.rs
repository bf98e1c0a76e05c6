//! What holds an instance to its limits on memory, and to its part of what the host has.
//!
//! Owns the sum of an instance's memories, which is taken from the host's budget. Knows nothing of
//! what the instance does.

use std::sync::Arc;

use wasmtime::ResourceLimiter;

use super::About;
use super::budget::Purpose;
use super::call::Fault;
use super::engine::TABLE_ELEMENTS_MAX;

/// The limits of one store.
pub struct Limiter {
    /// The guest's name and limits.
    pub about: Arc<About>,
    parts: Parts,
    /// The size of its memories, which is taken from the host's.
    memory_bytes: usize,
    /// What the last growth has added to it, in case that fails.
    grown_bytes: usize,
}

/// How many of each a store may hold.
#[derive(Clone, Copy, Debug)]
pub struct Parts {
    pub instances: usize,
    pub tables: usize,
    pub memories: usize,
}

impl Limiter {
    pub fn new(about: Arc<About>, parts: Parts) -> Self {
        Limiter { about, parts, memory_bytes: 0, grown_bytes: 0 }
    }

    /// The size of its memories.
    pub fn memory_bytes(&self) -> usize {
        self.memory_bytes
    }
}

impl Drop for Limiter {
    fn drop(&mut self) {
        self.about.memory.give(self.memory_bytes);
    }
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
        if is_over || bytes > self.about.limits.memory_bytes_max {
            return Ok(false);
        }
        let purpose = if current == 0 { Purpose::Start } else { Purpose::Growth };
        // Few guests are ready to get -1 below their limit: most would trap, and be blamed for it.
        let taken = self.about.memory.take(more, purpose);
        taken.map_err(|reject| wasmtime::Error::new(Fault::Reject(reject)))?;
        (self.memory_bytes, self.grown_bytes) = (bytes, more);
        Ok(true)
    }

    /// Is called only after [`Limiter::memory_growing`] has allowed it. The guest gets -1; what it
    /// did not get does not count.
    fn memory_grow_failed(&mut self, _error: wasmtime::Error) -> wasmtime::Result<()> {
        let grown = std::mem::take(&mut self.grown_bytes);
        self.memory_bytes -= grown;
        self.about.memory.give(grown);
        Ok(())
    }

    fn table_growing(
        &mut self,
        _current: usize,
        desired: usize,
        _maximum: Option<usize>,
    ) -> wasmtime::Result<bool> {
        Ok(desired <= TABLE_ELEMENTS_MAX)
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

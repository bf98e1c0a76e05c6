//! How much of a free slot the engines' pools keep: pages that the kernel need not map again for
//! the next instance.
//!
//! Owns these amounts: a part of the memory that guests may have, divided among the slots. Knows
//! nothing of wasmtime.

/// The fraction of `--memory-total` that all free slots of all engines may keep.
const POOLED_PART: usize = 8;
/// Bytes that a slot keeps at most of each kind. Clearing more by hand does not pay.
const MEMORY_BYTES_MAX: usize = 4 << 20;
const TABLE_BYTES_MAX: usize = 64 << 10;
const STACK_BYTES_MAX: usize = 16 << 10;
/// What a slot keeps is a multiple of this.
const PAGE_BYTES: usize = 4 << 10;

/// The slots of one pool, or of several alike.
#[derive(Clone, Copy, Debug)]
pub struct SlotShape {
    /// How many slots may have been in use.
    pub slots: usize,
    /// Tables of each slot.
    pub tables: usize,
    /// Stacks of each slot.
    pub stacks: usize,
    /// Their part of what all pools may keep, in eighths.
    pub eighths: usize,
}

/// Bytes that one slot keeps.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SlotPages {
    /// Of its memory.
    pub memory: usize,
    /// Of each table.
    pub table: usize,
    /// Of each stack.
    pub stack: usize,
}

impl SlotPages {
    /// Divides the part for these slots among them.
    pub fn derive(memory_total: usize, shape: SlotShape) -> Self {
        let each = memory_total / POOLED_PART / 8 * shape.eighths / shape.slots.max(1);
        let whole = |bytes: usize, max: usize| (bytes / PAGE_BYTES * PAGE_BYTES).min(max);
        let stack = whole(each / 8 / shape.stacks.max(1), STACK_BYTES_MAX);
        let table = whole(each / 4 / shape.tables.max(1), TABLE_BYTES_MAX);
        let left = each - stack * shape.stacks - table * shape.tables;
        SlotPages { memory: whole(left, MEMORY_BYTES_MAX), table, stack }
    }
}

#[cfg(test)]
mod tests;

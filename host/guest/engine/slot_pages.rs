//! What the engines' pools keep of a slot that is free: pages that the next instance need not have
//! the kernel map anew.
//!
//! Owns how much that is: a part of the memory that guests may have, divided among the slots. Knows
//! nothing of wasmtime.

/// What all free slots of all engines may keep: a part of `--memory-total`.
const POOLED_PART: usize = 8;
/// What a slot keeps at most of each kind. More than this is not worth clearing by hand.
const MEMORY_BYTES_MAX: usize = 4 << 20;
const TABLE_BYTES_MAX: usize = 64 << 10;
const STACK_BYTES_MAX: usize = 16 << 10;
/// What a slot keeps is a multiple of this.
const PAGE_BYTES: usize = 4 << 10;

/// The slots of one pool, or of several that are alike.
#[derive(Clone, Copy, Debug)]
pub struct SlotShape {
    /// How many can have been in use.
    pub slots: usize,
    /// Of each slot.
    pub tables: usize,
    pub stacks: usize,
    /// The part of what all pools may keep that is for these, in eighths.
    pub eighths: usize,
}

/// Bytes that one slot keeps.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SlotPages {
    pub memory: usize,
    /// Of each table, and of each stack.
    pub table: usize,
    pub stack: usize,
}

impl SlotPages {
    /// Divides the part of these slots among them.
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

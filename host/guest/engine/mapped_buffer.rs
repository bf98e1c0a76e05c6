//! Buffers that are mapped from the kernel. They are for what is too large for an allocator, which
//! keeps memory that is freed.
//!
//! Owns a few free mappings for each thread: mapping and unmapping a page costs more than writing
//! to it. Knows nothing of who is charged.

use std::cell::RefCell;

use memmap2::{MmapMut, MmapOptions};

/// Sizes of which each thread keeps one free mapping: powers of two, up to 512 KiB. Together they
/// take less than 1 MiB, which is not charged.
const SIZE_CLASS_BYTES: std::ops::RangeInclusive<usize> = 32 * 1024..=512 * 1024;
const SIZE_CLASSES: usize = (SIZE_CLASS_BYTES.end().trailing_zeros()
    - SIZE_CLASS_BYTES.start().trailing_zeros()) as usize
    + 1;
/// Larger buffers reserve address space to grow in. Only pages that are written to take memory.
const RESERVED_BYTES_MIN: usize = 8 << 20;
const RESERVED_TIMES: usize = 16;
/// Large buffers are charged in steps of this.
const STEP_BYTES: usize = 64 * 1024;

type FreeMappings = [Option<MmapMut>; SIZE_CLASSES];

thread_local! {
    static FREE: RefCell<FreeMappings> = const { RefCell::new([const { None }; SIZE_CLASSES]) };
}

/// A mapped buffer. It may have room to grow, and its first contents are undefined.
pub struct MappedBuffer(Option<MmapMut>);

impl MappedBuffer {
    /// The memory that is charged for so many bytes.
    pub fn charged_bytes(bytes: usize) -> usize {
        if bytes <= *SIZE_CLASS_BYTES.end() {
            bytes.next_power_of_two().max(*SIZE_CLASS_BYTES.start())
        } else {
            bytes.next_multiple_of(STEP_BYTES)
        }
    }

    /// Takes the mapping out, so that this buffer is empty.
    pub fn take(&mut self) -> MappedBuffer {
        MappedBuffer(self.0.take())
    }

    /// A buffer for at least so many bytes; `None` if the kernel has no memory for it.
    pub fn new(bytes: usize) -> Option<MappedBuffer> {
        let mapped = if bytes <= *SIZE_CLASS_BYTES.end() {
            let room = Self::charged_bytes(bytes);
            let free =
                size_class(room).and_then(|index| FREE.with_borrow_mut(|free| free[index].take()));
            // All of it is written to soon.
            free.or_else(|| MmapOptions::new().len(room).populate().map_anon().ok())
        } else {
            let room = bytes.saturating_mul(RESERVED_TIMES).max(RESERVED_BYTES_MIN);
            MmapOptions::new().len(room).no_reserve_swap().map_anon().ok()
        };
        mapped.map(|mapped| MappedBuffer(Some(mapped)))
    }
}

/// The index of a size among those that are kept free.
fn size_class(room: usize) -> Option<usize> {
    let is_spare = room.is_power_of_two() && SIZE_CLASS_BYTES.contains(&room);
    is_spare.then(|| (room.trailing_zeros() - SIZE_CLASS_BYTES.start().trailing_zeros()) as usize)
}

impl Drop for MappedBuffer {
    fn drop(&mut self) {
        let Some(mapped) = self.0.take() else { return };
        if let Some(index) = size_class(mapped.len()) {
            // While a thread ends, it has no free list any more, and the mapping is dropped.
            let _ = FREE.try_with(|free| free.borrow_mut()[index].get_or_insert(mapped).len());
        }
    }
}

impl AsRef<[u8]> for MappedBuffer {
    fn as_ref(&self) -> &[u8] {
        self.0.as_deref().unwrap_or_default()
    }
}

impl AsMut<[u8]> for MappedBuffer {
    fn as_mut(&mut self) -> &mut [u8] {
        self.0.as_deref_mut().unwrap_or_default()
    }
}

//! Memory that is mapped from the kernel, for what is too large to be left to an allocator: an
//! allocator keeps what it is given back.
//!
//! Owns a few free mappings for each thread: to map a page and to give it back costs more than to
//! write to it. Knows nothing of who is charged.

use std::cell::RefCell;

use memmap2::{MmapMut, MmapOptions};

/// Sizes of which each thread keeps one mapping: powers of two, up to 512 KiB. All of them together
/// are less than 1 MiB, which is not charged to anybody.
const SIZE_CLASS_BYTES: std::ops::RangeInclusive<usize> = 32 * 1024..=512 * 1024;
const SIZE_CLASSES: usize = (SIZE_CLASS_BYTES.end().trailing_zeros()
    - SIZE_CLASS_BYTES.start().trailing_zeros()) as usize
    + 1;
/// What is larger has room to grow in: only the pages that are written to take memory.
const RESERVED_BYTES_MIN: usize = 8 << 20;
const RESERVED_TIMES: usize = 16;
/// In these steps it is charged.
const STEP_BYTES: usize = 64 * 1024;

type FreeMappings = [Option<MmapMut>; SIZE_CLASSES];

thread_local! {
    static FREE: RefCell<FreeMappings> = const { RefCell::new([const { None }; SIZE_CLASSES]) };
}

/// Bytes that nobody else has, with room for more. What they are at first is not said.
pub struct MappedBuffer(Option<MmapMut>);

impl MappedBuffer {
    /// What memory so many bytes of it take.
    pub fn charged_bytes(bytes: usize) -> usize {
        if bytes <= *SIZE_CLASS_BYTES.end() {
            bytes.next_power_of_two().max(*SIZE_CLASS_BYTES.start())
        } else {
            bytes.next_multiple_of(STEP_BYTES)
        }
    }

    /// The bytes, of which nothing is left here.
    pub fn take(&mut self) -> MappedBuffer {
        MappedBuffer(self.0.take())
    }

    /// Room for at least so many bytes; `None` where the kernel has none.
    pub fn new(bytes: usize) -> Option<MappedBuffer> {
        let mapped = if bytes <= *SIZE_CLASS_BYTES.end() {
            let room = Self::charged_bytes(bytes);
            let free =
                size_class(room).and_then(|index| FREE.with_borrow_mut(|free| free[index].take()));
            // All of it is to be written to soon.
            free.or_else(|| MmapOptions::new().len(room).populate().map_anon().ok())
        } else {
            let room = bytes.saturating_mul(RESERVED_TIMES).max(RESERVED_BYTES_MIN);
            MmapOptions::new().len(room).no_reserve_swap().map_anon().ok()
        };
        mapped.map(|mapped| MappedBuffer(Some(mapped)))
    }
}

/// Which of the spare ones has this size.
fn size_class(room: usize) -> Option<usize> {
    let is_spare = room.is_power_of_two() && SIZE_CLASS_BYTES.contains(&room);
    is_spare.then(|| (room.trailing_zeros() - SIZE_CLASS_BYTES.start().trailing_zeros()) as usize)
}

impl Drop for MappedBuffer {
    fn drop(&mut self) {
        let Some(mapped) = self.0.take() else { return };
        if let Some(index) = size_class(mapped.len()) {
            // A thread that ends has nothing to keep it in, and gives it back.
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

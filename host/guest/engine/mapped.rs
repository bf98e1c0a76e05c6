//! Memory that is mapped from the kernel, for what is too large to be left to an allocator: an
//! allocator keeps what it is given back.
//!
//! Owns a few free mappings for each thread: to map a page and to give it back costs more than to
//! write to it. Knows nothing of who is charged.

use std::cell::RefCell;

use memmap2::{MmapMut, MmapOptions};

/// Sizes of which each thread keeps one mapping: powers of two, up to 512 KiB. All of them together
/// are less than 1 MiB, which is not charged to anybody.
const SPARE_BYTES: std::ops::RangeInclusive<usize> = 32 * 1024..=512 * 1024;
const SPARES: usize =
    (SPARE_BYTES.end().trailing_zeros() - SPARE_BYTES.start().trailing_zeros()) as usize + 1;
/// What is larger has room to grow in: only the pages that are written to take memory.
const RESERVED_BYTES_MIN: usize = 8 << 20;
const RESERVED_TIMES: usize = 16;
/// In these steps it is charged.
const STEP_BYTES: usize = 64 * 1024;

type Spares = [Option<MmapMut>; SPARES];

thread_local! {
    static FREE: RefCell<Spares> = const { RefCell::new([const { None }; SPARES]) };
}

/// Bytes that nobody else has, with room for more. What they are at first is not said.
pub struct Mapped(Option<MmapMut>);

impl Mapped {
    /// What memory so many bytes of it take.
    pub fn charge(bytes: usize) -> usize {
        if bytes <= *SPARE_BYTES.end() {
            bytes.next_power_of_two().max(*SPARE_BYTES.start())
        } else {
            bytes.next_multiple_of(STEP_BYTES)
        }
    }

    /// The bytes, of which nothing is left here.
    pub fn take(&mut self) -> Mapped {
        Mapped(self.0.take())
    }

    /// Room for at least so many bytes; `None` where the kernel has none.
    pub fn new(bytes: usize) -> Option<Mapped> {
        let mapped = if bytes <= *SPARE_BYTES.end() {
            let room = Self::charge(bytes);
            let free =
                spare(room).and_then(|index| FREE.with_borrow_mut(|free| free[index].take()));
            // All of it is to be written to soon.
            free.or_else(|| MmapOptions::new().len(room).populate().map_anon().ok())
        } else {
            let room = bytes.saturating_mul(RESERVED_TIMES).max(RESERVED_BYTES_MIN);
            MmapOptions::new().len(room).no_reserve_swap().map_anon().ok()
        };
        mapped.map(|mapped| Mapped(Some(mapped)))
    }
}

/// Which of the spare ones has this size.
fn spare(room: usize) -> Option<usize> {
    let is_spare = room.is_power_of_two() && SPARE_BYTES.contains(&room);
    is_spare.then(|| (room.trailing_zeros() - SPARE_BYTES.start().trailing_zeros()) as usize)
}

impl Drop for Mapped {
    fn drop(&mut self) {
        let Some(mapped) = self.0.take() else { return };
        if let Some(index) = spare(mapped.len()) {
            // A thread that ends has nothing to keep it in, and gives it back.
            let _ = FREE.try_with(|free| free.borrow_mut()[index].get_or_insert(mapped).len());
        }
    }
}

impl AsRef<[u8]> for Mapped {
    fn as_ref(&self) -> &[u8] {
        self.0.as_deref().unwrap_or_default()
    }
}

impl AsMut<[u8]> for Mapped {
    fn as_mut(&mut self) -> &mut [u8] {
        self.0.as_deref_mut().unwrap_or_default()
    }
}

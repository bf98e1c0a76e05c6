//! Which pages of a memory hold anything, as the kernel tells it.
//!
//! Owns the reading of `/proc/self/pagemap` (Linux, Documentation/admin-guide/mm/pagemap.rst). A
//! page of anonymous memory that is neither present nor swapped out has never been written to since
//! it was given back, and reads as zeros.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::sync::LazyLock;

/// Bytes of an entry: one per page.
const ENTRY_BYTES: usize = 8;
/// Bits of an entry that say that the page is swapped out, or present. A page that is being moved
/// counts as swapped.
const TOUCHED: u64 = 0b11 << 62;
/// Pages that are asked for at once.
const PAGES_AT_ONCE: usize = 512;

static PAGEMAP: LazyLock<Option<File>> = LazyLock::new(|| File::open("/proc/self/pagemap").ok());
static PAGE_BYTES: LazyLock<usize> = LazyLock::new(rustix::param::page_size);

/// Calls `visit` for every page of a memory that may hold anything but zeros. `false` where the
/// kernel does not tell; then some may not have been visited.
pub fn for_each_touched(memory: &mut [u8], mut on_page: impl FnMut(&mut [u8])) -> bool {
    let (Some(pagemap), page_bytes) = (&*PAGEMAP, *PAGE_BYTES) else { return false };
    let address = memory.as_ptr() as usize;
    let first = address / page_bytes;
    let last = (address + memory.len()).div_ceil(page_bytes);
    let mut entries = [0; PAGES_AT_ONCE * ENTRY_BYTES];
    for start in (first..last).step_by(PAGES_AT_ONCE) {
        let count = (last - start).min(PAGES_AT_ONCE);
        let entries = &mut entries[..count * ENTRY_BYTES];
        if pagemap.read_exact_at(entries, (start * ENTRY_BYTES) as u64).is_err() {
            return false;
        }
        for (index, entry) in entries.as_chunks::<ENTRY_BYTES>().0.iter().enumerate() {
            if u64::from_ne_bytes(*entry) & TOUCHED != 0 {
                let begin = ((start + index) * page_bytes).saturating_sub(address);
                let end = ((start + index + 1) * page_bytes - address).min(memory.len());
                on_page(&mut memory[begin..end]);
            }
        }
    }
    true
}

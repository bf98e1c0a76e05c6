//! Finds the pages of a memory that hold anything.
//!
//! Owns the reading of `/proc/self/pagemap` (Linux, Documentation/admin-guide/mm/pagemap.rst). A
//! page of anonymous memory that is neither present nor swapped out was not written to since it was
//! given back, and reads as zeros.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::sync::LazyLock;

/// Bytes of an entry. Each page has one.
const ENTRY_BYTES: usize = 8;
/// Bits of an entry: the page is swapped out, or present. A page in migration counts as swapped
/// out.
const TOUCHED: u64 = 0b11 << 62;
/// Pages that are read at once.
const PAGES_AT_ONCE: usize = 512;

static PAGEMAP: LazyLock<Option<File>> = LazyLock::new(|| File::open("/proc/self/pagemap").ok());
static PAGE_BYTES: LazyLock<usize> = LazyLock::new(rustix::param::page_size);

/// Calls `on_page` for every page of a memory that may hold anything but zeros. `false` if the
/// kernel does not tell. Then pages may have been missed.
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

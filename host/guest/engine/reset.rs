//! Resets a used instance to the state in which it was made, if that is provably the same as making
//! a new one, and cheaper.
//!
//! Owns that state, the baseline, and how it is restored. The proof is made from the guest's module
//! (`guesthouse_module::reset`); here it remains to be checked that the memory has not grown.
//! Instances that cannot be reset are made anew.

use wasmtime::{Global, Memory, Store, Val};

use super::pages;

/// Memories up to this size are overwritten whole, without asking for the pages that were written
/// to, if they are likely to be in a cache. Measured: overwriting 128 KiB takes 0.7 us there, and 6
/// us or more from memory; asking takes about 1 us.
const FILL_BYTES_MAX: usize = 128 * 1024;
/// After so many resets an instance is made anew, so that nothing can pile up on the host's side.
pub const RESETS_MAX: u32 = 4096;

/// The state in which every instance of a guest is made.
pub struct Baseline {
    memory_bytes: usize,
    /// The parts of the memory that are not zero, in order, each with its offset.
    parts: Vec<(usize, Box<[u8]>)>,
    globals: Vec<Val>,
}

/// Zeros between two parts that keep them apart. Shorter gaps are stored.
const GAP_BYTES_MIN: usize = 256;

impl Baseline {
    /// Reads the state of an instance that was just made.
    pub fn read<T: 'static>(store: &mut Store<T>, memory: Memory, globals: &[Global]) -> Self {
        let globals = globals.iter().map(|global| global.get(&mut *store)).collect();
        let bytes = memory.data_mut(&mut *store);
        let memory_bytes = bytes.len();
        let mut parts = Vec::new();
        // Pages that were never written to are not read: that would map them.
        let base = bytes.as_ptr() as usize;
        let told = pages::for_each_touched(bytes, |page| {
            add_parts(&mut parts, page.as_ptr() as usize - base, page);
        });
        if !told {
            parts.clear();
            add_parts(&mut parts, 0, bytes);
        }
        Baseline { memory_bytes, parts, globals }
    }

    /// Bytes of memory that the baseline takes.
    pub fn bytes(&self) -> usize {
        self.parts.iter().map(|(_, part)| part.len()).sum()
    }

    /// Restores this state in an instance of the same guest. `is_warm` says that the instance was
    /// used so recently that its memory is likely to be in a cache. Returns `false` if the memory
    /// has grown, or its written pages are unknown: then the instance has to be made anew.
    pub fn restore<T: 'static>(
        &self,
        store: &mut Store<T>,
        memory: Memory,
        globals: &[Global],
        is_warm: bool,
    ) -> bool {
        let bytes = memory.data_mut(&mut *store);
        if bytes.len() != self.memory_bytes {
            return false;
        }
        let can_fill = bytes.len() <= FILL_BYTES_MAX;
        let restored = !(can_fill && is_warm) && self.fill_touched(bytes);
        if !restored && !can_fill {
            return false;
        }
        if !restored {
            self.fill(bytes, 0);
        }
        globals
            .iter()
            .zip(&self.globals)
            .all(|(global, value)| global.set(&mut *store, *value).is_ok())
    }

    /// Restores the pages that may have been written to. `false` if they are not known.
    fn fill_touched(&self, bytes: &mut [u8]) -> bool {
        let base = bytes.as_ptr() as usize;
        pages::for_each_touched(bytes, |page| {
            let offset = page.as_ptr() as usize - base;
            self.fill(page, offset);
        })
    }

    /// Restores a part of a memory, which lies at `offset` in it.
    fn fill(&self, bytes: &mut [u8], offset: usize) {
        let end = offset + bytes.len();
        let first = self.parts.partition_point(|(start, part)| start + part.len() <= offset);
        let mut at = offset;
        for (start, part) in self.parts[first..].iter().take_while(|(start, _)| *start < end) {
            let (from, to) = ((*start).max(offset), (start + part.len()).min(end));
            bytes[at - offset..from - offset].fill(0);
            bytes[from - offset..to - offset].copy_from_slice(&part[from - start..to - start]);
            at = to;
        }
        bytes[at - offset..].fill(0);
    }
}

/// Adds the parts of `bytes` that are not zero. `bytes` lie at `offset` in their memory.
fn add_parts(parts: &mut Vec<(usize, Box<[u8]>)>, offset: usize, bytes: &[u8]) {
    let mut at = 0;
    while let Some(start) = bytes[at..].iter().position(|byte| *byte != 0).map(|skip| at + skip) {
        let mut end = start;
        let mut zeros = 0;
        for (index, byte) in bytes.iter().enumerate().skip(start) {
            if *byte != 0 {
                end = index + 1;
                zeros = 0;
            } else {
                zeros += 1;
                if zeros >= GAP_BYTES_MIN {
                    break;
                }
            }
        }
        parts.push((offset + start, bytes[start..end].into()));
        at = end;
    }
}

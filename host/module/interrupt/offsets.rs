//! Which byte of the original module an instruction of the rewritten one comes from.
//!
//! Owns the map. A trap tells where it happened in the rewritten module; a user has the original.

/// Runs of bytes, by where they begin in the rewritten module.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct OffsetMap {
    runs: Vec<Run>,
    /// Where the functions begin that have no original.
    end: Option<usize>,
}

/// Bytes from `new` up to the next run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Run {
    new: usize,
    old: usize,
    /// Whether they were copied from `old` on; else they were added for the instruction there.
    is_copied: bool,
}

impl OffsetMap {
    /// Says that the bytes from `new` on were copied from `old` on.
    pub fn copied(&mut self, new: usize, old: usize) {
        self.runs.push(Run { new, old, is_copied: true });
    }

    /// Says that the bytes from `new` on were added for the instruction at `old`.
    pub fn added(&mut self, new: usize, old: usize) {
        self.runs.push(Run { new, old, is_copied: false });
    }

    /// Takes over the map of a function that begins at `base`.
    pub fn append(&mut self, function: &OffsetMap, base: usize) {
        let moved = function.runs.iter().map(|run| Run { new: run.new + base, ..*run });
        self.runs.extend(moved);
    }

    /// Says that what begins at `new` and behind it has no original.
    pub fn end(&mut self, new: usize) {
        self.end.get_or_insert(new);
    }

    /// Says that everything lies so many bytes further behind.
    pub fn shift(&mut self, bytes: usize) {
        self.runs.iter_mut().for_each(|run| run.new += bytes);
        self.end = self.end.map(|end| end + bytes);
    }

    /// The offset in the original module of what is at `new` in the rewritten one. `None` where
    /// that was added as a whole, or is no code. A module that was not changed has an empty map,
    /// by which every offset stays as it is.
    pub fn original(&self, new: usize) -> Option<usize> {
        if self.runs.is_empty() && self.end.is_none() {
            return Some(new);
        }
        if self.end.is_some_and(|end| new >= end) {
            return None;
        }
        let behind = self.runs.partition_point(|run| run.new <= new);
        let run = self.runs.get(behind.checked_sub(1)?)?;
        Some(if run.is_copied { run.old + (new - run.new) } else { run.old })
    }
}

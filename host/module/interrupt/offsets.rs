//! Maps code offsets of the rewritten module to those of the original. A trap has an offset in the
//! rewritten module, but the user has the original.

/// Maps offsets of the rewritten module to offsets of the original one.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct OffsetMap {
    /// In ascending order of `new`.
    runs: Vec<Run>,
    /// The offset of the first added function. Everything from here on has no original.
    end: Option<usize>,
}

/// The bytes from `new` up to the next run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Run {
    new: usize,
    old: usize,
    /// Whether the bytes were copied from `old` on. If not, they were added for the instruction at
    /// `old`.
    is_copied: bool,
}

impl OffsetMap {
    /// Records that the bytes from `new` on were copied from `old` on.
    pub fn copied(&mut self, new: usize, old: usize) {
        self.runs.push(Run { new, old, is_copied: true });
    }

    /// Records that the bytes from `new` on were added for the instruction at `old`.
    pub fn added(&mut self, new: usize, old: usize) {
        self.runs.push(Run { new, old, is_copied: false });
    }

    /// Appends the map of a function that begins at `base`.
    pub fn append(&mut self, function: &OffsetMap, base: usize) {
        let moved = function.runs.iter().map(|run| Run { new: run.new + base, ..*run });
        self.runs.extend(moved);
    }

    /// Records that everything from `new` on has no original. Only the first call counts.
    pub fn end(&mut self, new: usize) {
        self.end.get_or_insert(new);
    }

    /// Adds `bytes` to all offsets of the rewritten module.
    pub fn shift(&mut self, bytes: usize) {
        self.runs.iter_mut().for_each(|run| run.new += bytes);
        self.end = self.end.map(|end| end + bytes);
    }

    /// The original offset for the offset `new`. `None` if `new` is in an added function or before
    /// the code. A module that was not changed has an empty map, which maps each offset to itself.
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

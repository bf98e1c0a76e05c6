//! Classes of engines: which engine a guest runs on.

use serde::{Deserialize, Serialize};

/// The class of engine that a guest runs on, chosen at load by the size of its memory image.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Class {
    /// Images are copied: they take no mapping and no file descriptor.
    Small,
    /// Images are mapped copy-on-write.
    Large,
    /// For wasi:http 0.3, with several calls of one instance at once. Images are mapped.
    Concurrent,
}

impl Class {
    /// All classes.
    pub const ALL: [Class; 3] = [Class::Small, Class::Large, Class::Concurrent];
}

/// Initial memory sizes in bytes that have a small engine of their own: the least there is, the
/// least with a stack beside the data, and what Rust's 1 MiB stack amounts to. All other sizes
/// share one more engine. When a slot is reused for another size, its protection is changed, which
/// interrupts every core that runs the host: with 10,000 guests of two sizes in one engine that
/// took a tenth of all CPU time.
const SMALL_SIZES: [u64; 3] = [64 << 10, 128 << 10, 17 * (64 << 10)];
/// The number of small engines.
pub const SMALL_ENGINES: usize = SMALL_SIZES.len() + 1;

/// The small engine for memories that begin with so many bytes.
pub fn small_index(memory_bytes: u64) -> usize {
    SMALL_SIZES.iter().position(|size| *size == memory_bytes).unwrap_or(SMALL_SIZES.len())
}

//! Classes of engines: which one a guest runs on.

use serde::{Deserialize, Serialize};

/// Which engine a guest runs on; chosen at load by the size of its memory image.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Class {
    /// Images are copied: no mapping and no file descriptor per guest.
    Small,
    /// Images are mapped copy-on-write.
    Large,
    /// Components whose calls run beside each other: wasi:http 0.3. Images as in the large class.
    Concurrent,
}

impl Class {
    pub const ALL: [Class; 3] = [Class::Small, Class::Large, Class::Concurrent];
}

/// Sizes of a memory as it begins, in bytes, that have a small engine of their own: the least there
/// is, the least with a stack beside the data, and what Rust's 1 MiB stack comes to. All others
/// share one more. A slot that is used for another size than before has its protection changed,
/// and every core that runs the host is interrupted for that: with 10,000 guests of two sizes in
/// one engine that was a tenth of all CPU time.
const SMALL_SIZES: [u64; 3] = [64 << 10, 128 << 10, 17 * (64 << 10)];
pub const SMALL_ENGINES: usize = SMALL_SIZES.len() + 1;

/// Which of the small engines is for memories that begin with so many bytes.
pub fn small_index(memory_bytes: u64) -> usize {
    SMALL_SIZES.iter().position(|size| *size == memory_bytes).unwrap_or(SMALL_SIZES.len())
}

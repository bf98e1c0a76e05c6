//! Checks whether an answer has one of the bodies that it may have.
//!
//! Compares hashes, so that a check costs next to nothing during a measurement. `bodies.rs` learns
//! the bodies that are not known before.

/// The bodies that the answers of one stream may have, as hashes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct BodyCheck {
    /// One for each path, by the path's number.
    pub each: Vec<u64>,
    /// Those that every path may have.
    pub any: Vec<u64>,
}

impl BodyCheck {
    /// Whether the path with this number may be answered with a body that has this hash.
    pub fn allows(&self, path: usize, hash: u64) -> bool {
        self.each.get(path) == Some(&hash) || self.any.contains(&hash)
    }
}

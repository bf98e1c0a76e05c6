//! Checks whether an answer has one of the bodies that it may have.
//!
//! Compares hashes, so that a check costs next to nothing during a measurement. `bodies.rs` learns
//! the bodies that are not known before.

use std::sync::Arc;

use super::published_versions::PublishedVersions;

/// The bodies that the answers of one stream may have.
#[derive(Clone, Debug)]
pub enum BodyCheck {
    /// The hash of each path's body, by the path's number.
    Each(Vec<u64>),
    /// Those of a file that is replaced during the load, for every path.
    Versions(Arc<PublishedVersions>),
}

impl BodyCheck {
    /// What [`mistake`](Self::mistake) needs of the time when a request is sent.
    pub fn seen(&self) -> u64 {
        match self {
            Self::Each(_) => 0,
            Self::Versions(versions) => versions.seen(),
        }
    }

    /// What is wrong with an answer whose body has this hash, in words that follow the request.
    /// `path` is the number of the path, and `since` is what [`seen`](Self::seen) was when the
    /// request was sent.
    pub fn mistake(&self, path: usize, hash: u64, since: u64) -> Option<&'static str> {
        match self {
            Self::Each(hashes) if hashes.get(path) == Some(&hash) => None,
            Self::Each(_) => Some("had another body"),
            Self::Versions(versions) => versions.mistake(hash, since),
        }
    }
}

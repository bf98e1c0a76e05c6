//! Which files of the folder are being written, as far as events show.
//!
//! Owns how long a file counts as incomplete if its writer does not close it.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use super::stamp;
use crate::source::ContentVersion;

/// How long after the last write a file counts as incomplete if its writer has not closed it.
/// Events get lost, and some writers never close.
pub const UNCLOSED: Duration = Duration::from_secs(2);

/// Recent writes to files, by device and inode.
pub struct Writers {
    /// When each file was last written to, or `None` once its writer has closed it.
    files: HashMap<(u64, u64), Option<Instant>>,
    began: Instant,
}

impl Writers {
    /// No writes are known yet.
    pub fn new() -> Self {
        Writers { files: HashMap::new(), began: Instant::now() }
    }

    /// Notes that a file was written to at this time, or closed by its writer (`None`).
    pub fn note(&mut self, version: ContentVersion, written: Option<Instant>) {
        self.files.insert(stamp::file_id(version), written);
    }

    /// When a file counts as complete; `None` if no write to it is known.
    pub fn whole_at(&self, version: ContentVersion) -> Option<Instant> {
        match self.files.get(&stamp::file_id(version))? {
            Some(written) => Some(*written + UNCLOSED),
            // It was closed, so any time in the past will do.
            None => Some(self.began),
        }
    }

    /// Forgets files that were closed, or that count as complete.
    pub fn forget(&mut self, now: Instant) {
        self.files.retain(|_, written| written.is_some_and(|at| now - at < UNCLOSED));
    }
}

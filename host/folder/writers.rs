//! Who writes to files of the folder, as far as events tell.
//!
//! Owns how long a file that nobody has closed is taken for unfinished.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use super::stamp;
use crate::source::ContentVersion;

/// A file that was written to and whose writer has not closed it is taken for whole after this
/// long: events get lost, and some writers never close.
pub const UNCLOSED: Duration = Duration::from_secs(2);

/// The writers of files, whatever the names of these.
pub struct Writers {
    /// When each file was written to last, or `None` once it has been closed.
    files: HashMap<(u64, u64), Option<Instant>>,
    began: Instant,
}

impl Writers {
    pub fn new() -> Self {
        Writers { files: HashMap::new(), began: Instant::now() }
    }

    /// Takes note that a file was written to just now, or closed by its writer (`None`).
    pub fn note(&mut self, version: ContentVersion, written: Option<Instant>) {
        self.files.insert(stamp::file_id(version), written);
    }

    /// When a file that was written to may be taken for whole; `None` if nothing is known of a
    /// writer.
    pub fn whole_at(&self, version: ContentVersion) -> Option<Instant> {
        match self.files.get(&stamp::file_id(version))? {
            Some(written) => Some(*written + UNCLOSED),
            // Long ago.
            None => Some(self.began),
        }
    }

    /// Forgets those whose files have been decided upon.
    pub fn forget(&mut self, now: Instant) {
        self.files.retain(|_, written| written.is_some_and(|at| now - at < UNCLOSED));
    }
}

//! When to look at the handler folder, and what is known of the writers in it.
//!
//! Owns the debounce, the regular looks and the complaints, each of which is made once. Decides
//! nothing about a handler.

use std::collections::{HashMap, HashSet};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use super::scan::{Scan, Skipped, Stamp, scan};
use super::watch::Watch;
use crate::log::escape;

/// A file that was written to and whose writer has not closed it is taken for whole after this
/// long: events get lost, and some writers never close.
pub const UNCLOSED: Duration = Duration::from_secs(2);
/// After an event, how long it has to be quiet before the folder is looked at.
const QUIET: Duration = Duration::from_millis(10);
/// How long a storm of events may put that off.
const STORM_MAX: Duration = Duration::from_millis(100);
/// Without any event, how long between two looks, at least.
const LOOK_EVERY: Duration = Duration::from_secs(2);
/// And at least so many times what a look takes, which bounds its share of a core to half a
/// percent.
const LOOK_SHARE: u32 = 200;

/// The handler folder as the reload loop sees it.
pub struct Folder {
    pub path: PathBuf,
    watch: Watch,
    look_at: Instant,
    /// When the first event came that no look has followed yet.
    stirred: Option<Instant>,
    /// Files that were written to, whatever their names: when that was last, or `None` once they
    /// have been closed.
    pens: HashMap<(u64, u64), Option<Instant>>,
    skipped: Vec<Skipped>,
    complaint: Option<String>,
    conflict: Option<String>,
    began: Instant,
}

impl Folder {
    /// A folder that has been read just now.
    pub fn new(path: PathBuf, watch: Watch, first: &Scan) -> Self {
        let mut folder = Folder {
            path,
            watch,
            look_at: Instant::now() + LOOK_EVERY,
            stirred: None,
            pens: HashMap::new(),
            skipped: Vec::new(),
            complaint: None,
            conflict: None,
            began: Instant::now(),
        };
        folder.take_note(first);
        folder
    }

    /// When it is to be looked at next.
    pub fn look_at(&self) -> Instant {
        self.look_at
    }

    pub fn look_now(&mut self) {
        self.look_at = Instant::now();
    }

    /// Has it looked at once events have ceased, or have come for long enough.
    pub fn look_soon(&mut self, now: Instant) {
        let first = *self.stirred.get_or_insert(now);
        self.look_at = self.look_at.min(now + QUIET).max((now + QUIET).min(first + STORM_MAX));
    }

    /// Reads the folder. `None` where that is not possible, which says nothing about its files;
    /// where there is no folder, there are no files.
    pub fn look(&mut self) -> Option<Scan> {
        self.stirred = None;
        let began = Instant::now();
        let is_gone = std::fs::metadata(&self.path)
            .is_err_and(|error| error.kind() == std::io::ErrorKind::NotFound);
        let scanned = if is_gone {
            let shown = escape(self.path.to_string_lossy().as_bytes(), 512);
            self.complain(format!("the folder {shown} has gone, and its handlers with it"));
            self.watch.follow(&[]);
            Some(Scan::default())
        } else {
            match scan(&self.path) {
                Ok(scan) => {
                    self.complaint = None;
                    Some(scan)
                }
                Err(error) => {
                    self.complain(format!("{error:#}; the handlers stay as they were"));
                    None
                }
            }
        };
        let took = began.elapsed();
        self.look_at = Instant::now() + LOOK_EVERY.max(took * LOOK_SHARE);
        if let Some(scan) = &scanned {
            self.take_note(scan);
        }
        scanned
    }

    /// Follows the folders that were read, and tells what is new among the files that cannot be
    /// handlers.
    fn take_note(&mut self, scan: &Scan) {
        if self.watch.follow(&scan.folders) {
            // What happened in a new folder before it was watched has to be seen, too.
            self.look_at = Instant::now();
        }
        let known: HashSet<&Path> = self.skipped.iter().map(|it| it.path.as_path()).collect();
        for skipped in scan.skipped.iter().filter(|it| !known.contains(it.path.as_path())) {
            let path = skipped.path.to_string_lossy();
            tracing::warn!("{}: {}", escape(path.as_bytes(), 512), skipped.reason);
        }
        self.skipped.clone_from(&scan.skipped);
    }

    /// Returns when everything has been told that had happened in the folder by now.
    pub fn catch_up(&mut self) {
        self.watch.catch_up();
    }

    /// Forgets the writers of whose files has been decided.
    pub fn forget_pens(&mut self, now: Instant) {
        self.pens.retain(|_, written| written.is_some_and(|at| now - at < UNCLOSED));
    }

    /// Says which routes are claimed twice, unless that has been said; `None` if none are.
    pub fn conflict(&mut self, conflict: Option<String>) {
        if let Some(conflict) = conflict.as_ref().filter(|new| self.conflict.as_ref() != Some(*new))
        {
            tracing::error!("{conflict}; the routes stay as they were");
        }
        self.conflict = conflict;
    }

    /// Says what is wrong, unless that has been said.
    fn complain(&mut self, complaint: String) {
        if self.complaint.as_ref() != Some(&complaint) {
            tracing::error!("{complaint}");
            self.complaint = Some(complaint);
        }
    }

    /// Takes note that a file was written to just now, or closed by its writer (`None`).
    pub fn note_pen(&mut self, file: Stamp, written: Option<Instant>) {
        self.pens.insert(file.file(), written);
    }

    /// When a file that was written to may be taken for whole; `None` if nothing is known of a
    /// writer.
    pub fn whole_at(&self, file: Stamp) -> Option<Instant> {
        match self.pens.get(&file.file())? {
            Some(written) => Some(*written + UNCLOSED),
            // Long ago.
            None => Some(self.began),
        }
    }

    /// A folder has gone, or has come to another place, and its watch is gone too.
    pub fn lost(&mut self, path: &Path, now: Instant) {
        self.watch.forget(path);
        self.look_soon(now);
    }
}

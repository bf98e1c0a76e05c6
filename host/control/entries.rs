//! What the control path knows of each handler: its file, which version of it was seen and tried,
//! and where it stands on the way to being served.
//!
//! Owns the list and the order in which handlers are loaded: those that requests wait for, then new
//! versions of what is served, then the rest. Loads nothing itself.

use std::collections::{HashMap, VecDeque};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Instant;

use slab::Slab;

use super::load_memory::Need;
use super::loaders::Origin;
use crate::config::GrantTable;
use crate::folder::scan::Stamp;
use crate::guest::cache::Key;
use crate::guest::child::Cancel;
use crate::guest::load::FILE_BYTES_MAX;
use crate::guest::load::Size;
use crate::registry::handler::Want;
use crate::registry::route::Pattern;
use crate::registry::{Handler, State};

/// One handler.
pub struct Entry {
    pub handler: Arc<Handler>,
    pub pattern: Pattern,
    pub origin: Origin,
    /// The version of its file that was seen last; none for what is built in.
    pub stamp: Option<Stamp>,
    /// Since when.
    pub seen: Instant,
    pub progress: Progress,
    /// Whether the version that was seen has failed once, soon after it was written.
    pub is_doubted: bool,
    /// How often this version has failed for a reason that is not its own.
    pub mishaps: u32,
    /// When it may be tried again if requests wait for it, where it has failed for such a reason.
    pub retry_if_wanted: Option<Instant>,
    /// Bytes of the code that this version was compiled to; 0 if that is not known.
    pub code_bytes: u64,
    /// Whether it was loaded before, and is not now because it was idle.
    pub is_unloaded: bool,
    /// The contents that are served, and what they take.
    pub served: Option<(Key, Size)>,
    /// Whether the file no longer holds what is served, because it cannot be loaded. Then what is
    /// served could not be had again.
    pub is_outlived: bool,
    /// Whether something happened to its file while it was loaded. A stamp need not tell: the
    /// clock of some file systems is coarse.
    pub is_stirred: bool,
    /// Ends the job that loads it.
    pub running: Option<Cancel>,
    /// What was said last of why this version is not served.
    pub said: Option<String>,
}

/// Where the version that was seen last stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Progress {
    /// It may still be written to; it is looked at again then.
    Settling(Instant),
    /// It waits to be loaded.
    Queued,
    /// It is being loaded, by the job with this number.
    Running(u64),
    /// It has been loaded or has failed, or it waits to be asked for.
    Resting,
}

impl Entry {
    /// What messages call it.
    pub fn file(&self) -> String {
        match &self.origin {
            Origin::File(path) => path.to_string_lossy().into_owned(),
            Origin::BuiltIn(_) => format!("{}.wasm (built in)", self.handler.name),
        }
    }

    /// What it takes to load it.
    pub fn need(&self) -> Need {
        let file_bytes = self.stamp.map_or(0, |stamp| stamp.bytes().min(FILE_BYTES_MAX));
        Need { file_bytes, code_bytes: self.code_bytes }
    }

    /// Whether it is loaded, and nothing is going on with its file.
    pub fn is_settled(&self) -> bool {
        self.served.is_some() && self.progress == Progress::Resting && !self.is_outlived
    }

    /// Whether the very file of which this version was read has been written to since. One that was
    /// moved into its place does not matter: what was read was whole.
    pub fn is_rewritten(&self, read: Option<Stamp>) -> bool {
        let now = self.path().and_then(|path| Stamp::read(path).ok());
        matches!((read, now), (Some(read), Some(now)) if read != now && read.file() == now.file())
    }

    /// Whether the file still is what was loaded, so that its guest can be had again.
    pub fn is_current(&self) -> bool {
        self.path().is_none_or(|path| Stamp::read(path).ok() == self.stamp)
    }

    pub fn path(&self) -> Option<&Path> {
        match &self.origin {
            Origin::File(path) => Some(path),
            Origin::BuiltIn(_) => None,
        }
    }
}

/// A handler to be.
pub struct Newcomer {
    pub name: String,
    pub pattern: Pattern,
    pub origin: Origin,
    pub stamp: Option<Stamp>,
}

/// All handlers, and the queue.
pub struct Entries {
    entries: Slab<Entry>,
    by_path: HashMap<PathBuf, usize>,
    /// May hold ids that need no loading any more.
    wanted: VecDeque<usize>,
    changed: VecDeque<usize>,
    rest: VecDeque<usize>,
    want: Want,
    grants: GrantTable,
}

impl Entries {
    /// `want` is called when a request waits for a handler, `grants` is what each may use.
    pub fn new(want: Want, grants: GrantTable) -> Self {
        Entries {
            entries: Slab::new(),
            by_path: HashMap::new(),
            wanted: VecDeque::new(),
            changed: VecDeque::new(),
            rest: VecDeque::new(),
            want,
            grants,
        }
    }

    /// Takes up a handler, at rest. Returns its id.
    pub fn add(&mut self, newcomer: Newcomer, now: Instant) -> usize {
        let slot = self.entries.vacant_entry();
        let id = slot.key();
        if let Origin::File(path) = &newcomer.origin {
            self.by_path.insert(path.clone(), id);
        }
        let grants = self.grants.of(&newcomer.name);
        slot.insert(Entry {
            handler: Handler::new(id, &newcomer.name, grants, self.want.clone()),
            pattern: newcomer.pattern,
            origin: newcomer.origin,
            stamp: newcomer.stamp,
            seen: now,
            progress: Progress::Resting,
            is_doubted: false,
            mishaps: 0,
            retry_if_wanted: None,
            code_bytes: 0,
            is_unloaded: false,
            served: None,
            is_outlived: false,
            is_stirred: false,
            running: None,
            said: None,
        });
        id
    }

    /// Takes a handler off the list. Its id may be given to another one.
    pub fn remove(&mut self, id: usize) -> Entry {
        let entry = self.entries.remove(id);
        if let Origin::File(path) = &entry.origin {
            self.by_path.remove(path);
        }
        entry
    }

    pub fn get(&mut self, id: usize) -> Option<&mut Entry> {
        self.entries.get_mut(id)
    }

    pub fn id_of(&self, path: &Path) -> Option<usize> {
        self.by_path.get(path).copied()
    }

    pub fn iter(&self) -> impl Iterator<Item = (usize, &Entry)> {
        self.entries.iter()
    }

    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Lets a handler wait to be loaded, where its urgency says.
    pub fn enqueue(&mut self, id: usize, is_wanted: bool) {
        let Some(entry) = self.entries.get_mut(id) else { return };
        entry.progress = Progress::Queued;
        match (is_wanted || entry.handler.is_wanted(), &entry.served) {
            (true, _) => self.wanted.push_back(id),
            (false, Some(_)) => self.changed.push_back(id),
            (false, None) => self.rest.push_back(id),
        }
    }

    /// The next handler to be loaded, with what `enter` has for it, who passes over those that have
    /// to wait. Those that nobody has asked for come last, and only where `with_rest` is given;
    /// otherwise they are left to be asked for.
    pub fn next<T>(
        &mut self,
        with_rest: bool,
        mut enter: impl FnMut(usize, &Entry) -> Option<T>,
    ) -> Option<(usize, T)> {
        if !with_rest {
            self.park();
        }
        for queue in [&mut self.wanted, &mut self.changed, &mut self.rest] {
            let mut at = 0;
            while let Some(&id) = queue.get(at) {
                match self.entries.get(id).filter(|it| it.progress == Progress::Queued) {
                    None => drop(queue.remove(at)),
                    Some(entry) => match enter(id, entry) {
                        None => at += 1,
                        Some(entered) => {
                            queue.remove(at);
                            return Some((id, entered));
                        }
                    },
                }
            }
        }
        None
    }

    /// Leaves those that nobody has asked for to be asked for.
    pub fn park(&mut self) {
        for id in std::mem::take(&mut self.rest) {
            let Some(entry) = self.entries.get_mut(id) else { continue };
            if entry.progress == Progress::Queued && !entry.handler.is_wanted() {
                entry.progress = Progress::Resting;
                entry.handler.set(State::Cold);
            } else if entry.progress == Progress::Queued {
                self.wanted.push_back(id);
            }
        }
    }

    /// Whether nothing waits to be loaded.
    pub fn is_quiet(&self) -> bool {
        self.wanted.is_empty() && self.changed.is_empty() && self.rest.is_empty()
    }
}

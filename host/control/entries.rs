//! What the control path knows of each handler: which version of it was seen and tried, and where
//! it stands on the way to being served.
//!
//! Owns the list and the order in which handlers are loaded: those that requests wait for, then new
//! versions of what is served and those that sets wait for, then the rest. Loads nothing itself.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::time::Instant;

use slab::Slab;

use super::load_memory::LoadEstimate;
use crate::guest::load::cache::CacheKey;
use crate::guest::load::compiler_process::CancelToken;
use crate::guest::load::loader::FILE_BYTES_MAX;
use crate::guest::load::loader::Size;
use crate::registry::handler::LoadRequester;
use crate::registry::{Handler, HandlerState};
use crate::source::HandlerItem;

/// One handler.
pub struct HandlerEntry {
    pub handler: Arc<Handler>,
    /// The number of the source that it is of.
    pub source: usize,
    /// The version of it that was seen last.
    pub item: Arc<HandlerItem>,
    /// Whether its route is published.
    pub is_routed: bool,
    /// Whether it is of a set of which all have to be loaded, and is not yet.
    pub is_awaited: bool,
    pub load_state: LoadState,
    /// Whether the version that was seen has failed once, soon after it was written.
    pub has_failed_early: bool,
    /// How often this version has failed for a reason that is not its own.
    pub transient_failures: u32,
    /// When it may be tried again if requests wait for it, where it has failed for such a reason.
    pub retry_if_wanted: Option<Instant>,
    /// Bytes of the code that this version was compiled to; 0 if that is not known.
    pub code_bytes: u64,
    /// Whether it was loaded before, and is not now because it was idle.
    pub is_unloaded: bool,
    /// The contents that are served, and what they take.
    pub served: Option<(CacheKey, Size)>,
    /// Whether what is served is no longer the version that was seen last, because that cannot be
    /// loaded. Then what is served could not be had again.
    pub is_stale: bool,
    /// Whether its contents may have changed while they were loaded. A version need not tell: the
    /// clock of some file systems is coarse.
    pub is_dirty: bool,
    /// Ends the job that loads it.
    pub running_load: Option<CancelToken>,
    /// What was said last of why this version is not served.
    pub last_error: Option<String>,
}

/// Where the version that was seen last stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LoadState {
    /// It may still be written to; it is looked at again then.
    Settling(Instant),
    /// It waits to be loaded.
    Queued,
    /// It is being loaded, by the job with this number.
    Running(u64),
    /// It has been loaded or has failed, or it waits to be asked for.
    Idle,
}

impl HandlerEntry {
    /// What it takes to load it.
    pub fn need(&self) -> LoadEstimate {
        let file_bytes = self.item.version.bytes().min(FILE_BYTES_MAX);
        LoadEstimate { file_bytes, code_bytes: self.code_bytes }
    }

    /// Whether it is loaded and served, and nothing is going on with it.
    pub fn is_settled(&self) -> bool {
        let is_loaded = self.served.is_some() && self.load_state == LoadState::Idle;
        is_loaded && self.is_routed && !self.is_stale
    }
}

/// All handlers, and the queue.
pub struct Entries {
    entries: Slab<HandlerEntry>,
    /// Those with a route, by their labels, for each source.
    routed: Vec<HashMap<Arc<str>, usize>>,
    /// May hold ids that need no loading any more.
    wanted: VecDeque<usize>,
    changed: VecDeque<usize>,
    background: VecDeque<usize>,
    load_requester: LoadRequester,
}

impl Entries {
    /// Of so many sources. `want` is called when a request waits for a handler.
    pub fn new(want: LoadRequester, sources: usize) -> Self {
        Entries {
            entries: Slab::new(),
            routed: vec![HashMap::new(); sources],
            wanted: VecDeque::new(),
            changed: VecDeque::new(),
            background: VecDeque::new(),
            load_requester: want,
        }
    }

    /// Takes up a handler, at rest and without a route. Returns its id.
    pub fn add(&mut self, source: usize, item: Arc<HandlerItem>) -> usize {
        let slot = self.entries.vacant_entry();
        let id = slot.key();
        slot.insert(HandlerEntry {
            handler: Handler::new(id, &item.name, item.grants.clone(), self.load_requester.clone()),
            source,
            item,
            is_routed: false,
            is_awaited: false,
            load_state: LoadState::Idle,
            has_failed_early: false,
            transient_failures: 0,
            retry_if_wanted: None,
            code_bytes: 0,
            is_unloaded: false,
            served: None,
            is_stale: false,
            is_dirty: false,
            running_load: None,
            last_error: None,
        });
        id
    }

    /// Takes note that a handler has a route.
    pub fn route(&mut self, id: usize) {
        let Some(entry) = self.entries.get_mut(id) else { return };
        entry.is_routed = true;
        self.routed[entry.source].insert(entry.item.label.clone(), id);
    }

    /// Takes a handler off the list. Its id may be given to another one.
    pub fn remove(&mut self, id: usize) -> HandlerEntry {
        let entry = self.entries.remove(id);
        let routed = &mut self.routed[entry.source];
        // Another one may have come in its place.
        if routed.get(&entry.item.label) == Some(&id) {
            routed.remove(&entry.item.label);
        }
        entry
    }

    pub fn get(&mut self, id: usize) -> Option<&mut HandlerEntry> {
        self.entries.get_mut(id)
    }

    /// The version of a handler that was seen last.
    pub fn item(&self, id: usize) -> Option<&Arc<HandlerItem>> {
        self.entries.get(id).map(|entry| &entry.item)
    }

    /// The handler of a source that has a route and is called this.
    pub fn id_of(&self, source: usize, label: &str) -> Option<usize> {
        self.routed[source].get(label).copied()
    }

    /// All handlers of a source that have a route.
    pub fn ids_of(&self, source: usize) -> impl Iterator<Item = usize> {
        self.routed[source].values().copied()
    }

    pub fn iter(&self) -> impl Iterator<Item = (usize, &HandlerEntry)> {
        self.entries.iter()
    }

    /// How many have a route.
    pub fn routes(&self) -> usize {
        self.routed.iter().map(HashMap::len).sum()
    }

    /// Lets a handler wait to be loaded, where its urgency says.
    pub fn enqueue(&mut self, id: usize, is_wanted: bool) {
        let Some(entry) = self.entries.get_mut(id) else { return };
        entry.load_state = LoadState::Queued;
        if is_wanted || entry.handler.is_wanted() {
            self.wanted.push_back(id);
        } else if entry.served.is_some() || entry.is_awaited {
            self.changed.push_back(id);
        } else {
            self.background.push_back(id);
        }
    }

    /// The next handler to be loaded, with what `enter` has for it, who passes over those that have
    /// to wait. Those that nobody has asked for come last, and only where `with_rest` is given;
    /// otherwise they are left to be asked for.
    pub fn next<T>(
        &mut self,
        with_rest: bool,
        mut enter: impl FnMut(usize, &HandlerEntry) -> Option<T>,
    ) -> Option<(usize, T)> {
        if !with_rest {
            self.defer_background();
        }
        for queue in [&mut self.wanted, &mut self.changed, &mut self.background] {
            let mut at = 0;
            while let Some(&id) = queue.get(at) {
                match self.entries.get(id).filter(|it| it.load_state == LoadState::Queued) {
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
    pub fn defer_background(&mut self) {
        for id in std::mem::take(&mut self.background) {
            let Some(entry) = self.entries.get_mut(id) else { continue };
            if entry.load_state == LoadState::Queued && !entry.handler.is_wanted() {
                entry.load_state = LoadState::Idle;
                entry.handler.set(HandlerState::Cold);
            } else if entry.load_state == LoadState::Queued {
                self.wanted.push_back(id);
            }
        }
    }

    /// Whether nothing waits to be loaded.
    pub fn is_quiet(&self) -> bool {
        self.wanted.is_empty() && self.changed.is_empty() && self.background.is_empty()
    }
}

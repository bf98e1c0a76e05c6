//! The control path's list of handlers: which version of each was seen, and how far its loading is.
//!
//! Owns the list and the order in which handlers are loaded: first those that requests wait for,
//! then new versions of served handlers and those that a set waits for, then the rest. Loads
//! nothing itself.

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

/// What the control path knows of one handler.
pub struct HandlerEntry {
    /// The handler, as the request path sees it.
    pub handler: Arc<Handler>,
    /// The index of its source.
    pub source: usize,
    /// The version that was seen last.
    pub item: Arc<HandlerItem>,
    /// Whether its route is published.
    pub is_routed: bool,
    /// Whether a set that is served all or nothing waits for it to be loaded.
    pub is_awaited: bool,
    /// How far the loading of the last seen version is.
    pub load_state: LoadState,
    /// Whether this version has failed once, soon after it was written.
    pub has_failed_early: bool,
    /// How often this version has failed for a reason outside the file.
    pub transient_failures: u32,
    /// After such a failure: when it may be tried again if requests wait for it.
    pub retry_if_wanted: Option<Instant>,
    /// How many bytes of code this version compiles to; 0 if that is not known.
    pub code_bytes: u64,
    /// Whether the guest was unloaded because it was idle.
    pub is_unloaded: bool,
    /// The key of the served contents, and what the guest takes.
    pub served: Option<(CacheKey, Size)>,
    /// Whether an older version is served because the last seen one does not load. The older one
    /// could not be loaded again.
    pub is_stale: bool,
    /// Whether the contents may have changed while they were loaded. The version does not always
    /// show that: the clock of some file systems is coarse.
    pub is_dirty: bool,
    /// Cancels the running load.
    pub running_load: Option<CancelToken>,
    /// The last logged reason why this version is not served.
    pub last_error: Option<String>,
}

/// How far the loading of the last seen version is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LoadState {
    /// It is checked again at this time, because its file may still be written to or because a
    /// load has failed.
    Settling(Instant),
    /// It waits to be loaded.
    Queued,
    /// It is being loaded, by the job with this serial number.
    Running(u64),
    /// It is loaded or has failed, or it waits until a request wants it.
    Idle,
}

impl HandlerEntry {
    /// An estimate of the memory that loading it takes.
    pub fn need(&self) -> LoadEstimate {
        let file_bytes = self.item.version.bytes().min(FILE_BYTES_MAX);
        LoadEstimate { file_bytes, code_bytes: self.code_bytes }
    }

    /// Whether it is loaded and served, and no newer version is on its way.
    pub fn is_settled(&self) -> bool {
        let is_loaded = self.served.is_some() && self.load_state == LoadState::Idle;
        is_loaded && self.is_routed && !self.is_stale
    }
}

/// All handlers, and the queues of those to be loaded.
pub struct Entries {
    entries: Slab<HandlerEntry>,
    /// For each source, the ids of its routed handlers by label.
    routed: Vec<HashMap<Arc<str>, usize>>,
    /// Like the other queues, it may hold ids that no longer need loading.
    wanted: VecDeque<usize>,
    changed: VecDeque<usize>,
    background: VecDeque<usize>,
    load_requester: LoadRequester,
}

impl Entries {
    /// An empty list for this many sources. Handlers call `want` when a request waits for them.
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

    /// Adds a handler, idle and without a route. Returns its id.
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

    /// Notes that a handler's route is published.
    pub fn route(&mut self, id: usize) {
        let Some(entry) = self.entries.get_mut(id) else { return };
        entry.is_routed = true;
        self.routed[entry.source].insert(entry.item.label.clone(), id);
    }

    /// Removes a handler. Its id may be given to another handler.
    pub fn remove(&mut self, id: usize) -> HandlerEntry {
        let entry = self.entries.remove(id);
        let routed = &mut self.routed[entry.source];
        // The label may belong to the handler's successor already.
        if routed.get(&entry.item.label) == Some(&id) {
            routed.remove(&entry.item.label);
        }
        entry
    }

    /// The handler with this id.
    pub fn get(&mut self, id: usize) -> Option<&mut HandlerEntry> {
        self.entries.get_mut(id)
    }

    /// The last seen version of a handler.
    pub fn item(&self, id: usize) -> Option<&Arc<HandlerItem>> {
        self.entries.get(id).map(|entry| &entry.item)
    }

    /// The id of the routed handler of a source with this label.
    pub fn id_of(&self, source: usize, label: &str) -> Option<usize> {
        self.routed[source].get(label).copied()
    }

    /// The ids of all routed handlers of a source.
    pub fn ids_of(&self, source: usize) -> impl Iterator<Item = usize> {
        self.routed[source].values().copied()
    }

    /// All handlers with their ids.
    pub fn iter(&self) -> impl Iterator<Item = (usize, &HandlerEntry)> {
        self.entries.iter()
    }

    /// How many handlers have a route.
    pub fn routes(&self) -> usize {
        self.routed.iter().map(HashMap::len).sum()
    }

    /// Queues a handler to be loaded, by its urgency. `is_wanted` says that requests wait for it.
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

    /// Takes the next handler to be loaded from the queues, with what `enter` returns for it.
    /// Skips handlers for which `enter` returns `None`. Handlers that no request wants come last;
    /// without `with_rest` they stay cold until a request wants them.
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

    /// Takes handlers that no request wants off the queue. They stay cold until a request does.
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

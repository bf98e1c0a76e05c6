//! Applies the set that a source gives to the served routes: what was added, changed and removed.
//!
//! Owns publishing snapshots. A set's changes to the routes take effect together or not at all. If
//! the set says so, none of its handlers is served before all are loaded. Knows a source only by
//! its sets.

use std::collections::HashSet;
use std::time::Instant;

use anyhow::Result;

use super::followed::{SetDiff, snapshot};
use super::reload::Reload;
use crate::guest::engine::load_failure::LoadFailure;
use crate::log::escape;
use crate::registry::{HandlerState, Snapshot};
use crate::source::{Change, HandlerItem, HandlerSet, ItemState};

impl Reload {
    /// Asks the sources what has changed, and applies it.
    pub fn poll_sources(&mut self, now: Instant) {
        for at in 0..self.sources.len() {
            for change in self.sources[at].source.changes(now) {
                match change {
                    Change::Set(set) => self.apply_set(at, set, now),
                    Change::Item(item) => {
                        if let Some(id) = self.entries.id_of(at, &item.label) {
                            self.mark_changed(id, item, now);
                        }
                    }
                }
            }
        }
    }

    /// Applies a new set of the source with index `at`.
    pub fn apply_set(&mut self, at: usize, set: HandlerSet, now: Instant) {
        // A set that is still pending is outdated now.
        self.drop_pending_diff(at);
        let mut gone: HashSet<usize> = self.entries.ids_of(at).collect();
        let mut added_items = Vec::new();
        for item in set.items {
            let known = self.entries.id_of(at, &item.label);
            let known = known.and_then(|id| Some((id, self.entries.item(id)?)));
            let has_changed = |is: &HandlerItem| is.version != item.version;
            // In a set that is served all or nothing, a new version gets a handler of its own.
            let is_same =
                |is: &HandlerItem| is.has_handler_of(&item) && !(set.is_atomic && has_changed(is));
            match known.filter(|(_, is)| is_same(is)) {
                None => added_items.push(item),
                Some((id, is)) => {
                    gone.remove(&id);
                    if has_changed(is) {
                        self.mark_changed(id, item, now);
                    }
                }
            }
        }
        let is_other =
            !added_items.is_empty() || !gone.is_empty() || self.sources[at].native != set.native;
        let changed = if is_other {
            let added = added_items.into_iter().map(|item| self.entries.add(at, item)).collect();
            let next = SetDiff { added, gone: gone.into_iter().collect(), native: set.native };
            self.change_routes(at, next, set.is_atomic, now)
        } else {
            Ok(())
        };
        let refused = changed.err().map(|conflict| format!("{conflict:#}"));
        self.sources[at].refuse(refused);
    }

    fn change_routes(
        &mut self,
        at: usize,
        next: SetDiff,
        is_atomic: bool,
        now: Instant,
    ) -> Result<()> {
        let snapshot = snapshot(&self.entries, &self.sources, Some((at, &next)));
        let snapshot = match snapshot {
            Ok(snapshot) => snapshot,
            Err(conflict) => {
                self.discard(next);
                return Err(conflict);
            }
        };
        if is_atomic && !next.added.is_empty() {
            for id in &next.added {
                if let Some(entry) = self.entries.get(*id) {
                    entry.is_awaited = true;
                }
                self.entries.enqueue(*id, false);
            }
            self.sources[at].pending_diff = Some(next);
        } else {
            self.publish_routes(at, next, snapshot, now);
        }
        Ok(())
    }

    fn publish_routes(&mut self, at: usize, next: SetDiff, snapshot: Snapshot, now: Instant) {
        let SetDiff { added, gone, native } = next;
        self.registry.publish(snapshot);
        self.sources[at].native = native;
        let (came, went) = (added.len(), gone.len());
        let mut lines = Vec::new();
        for id in added {
            self.entries.route(id);
            if let Some(entry) = self.entries.get(id) {
                lines.push((entry.item.label.clone(), "a new route"));
                if entry.served.is_none() {
                    self.debounce(id, now);
                }
            }
        }
        lines.extend(gone.into_iter().map(|id| (self.remove(id), "gone")));
        if came + went > 1 {
            let routes = self.entries.routes();
            tracing::info!("routes: {came} added, {went} removed, {routes} in all");
            return;
        }
        for (label, what) in lines {
            tracing::info!("{}: {what}", escape(label.as_bytes(), 512));
        }
    }

    /// Notes that a handler is loaded. If that completes a pending set, publishes the set.
    pub fn note_loaded(&mut self, id: usize, now: Instant) {
        let Some(entry) = self.entries.get(id) else { return };
        let at = entry.source;
        if !std::mem::take(&mut entry.is_awaited) {
            return;
        }
        let Some(next) = self.sources[at].pending_diff.take() else { return };
        // Handlers that the set shares with the previous one may still be loading, too.
        let retained: Vec<usize> =
            self.entries.ids_of(at).filter(|id| !next.gone.contains(id)).collect();
        let mut all = next.added.iter().chain(&retained);
        if all.any(|id| self.entries.get(*id).is_some_and(|entry| entry.is_awaited)) {
            self.sources[at].pending_diff = Some(next);
            return;
        }
        // Other sources may have changed their routes meanwhile, so check for conflicts again.
        match snapshot(&self.entries, &self.sources, Some((at, &next))) {
            Ok(snapshot) => self.publish_routes(at, next, snapshot, now),
            Err(conflict) => {
                self.discard(next);
                self.sources[at].refuse(Some(format!("{conflict:#}")));
            }
        }
    }

    /// Gives up a set that is served all or nothing, because this handler of it does not load. If
    /// it is the first set, the host ends.
    pub fn give_up(&mut self, id: usize, failure: &LoadFailure) {
        let Some(entry) = self.entries.get(id) else { return };
        let (at, label) = (entry.source, escape(entry.item.label.as_bytes(), 512));
        let reason = &failure.reason;
        if entry.is_routed {
            entry.handler.set(HandlerState::Failed);
            let why = format!("{label}: {reason}; it is served with all of its set or not at all");
            // Sending fails if the host is ending anyway.
            return drop(self.ended.send(why));
        }
        self.drop_pending_diff(at);
        tracing::error!(
            "{label}: {reason}; nothing of the set that it is in is served, and the set before it \
             still is"
        );
    }

    fn drop_pending_diff(&mut self, at: usize) {
        if let Some(next) = self.sources[at].pending_diff.take() {
            self.discard(next);
        }
    }

    fn discard(&mut self, next: SetDiff) {
        for id in next.added {
            self.remove(id);
        }
    }

    /// Asks the source which version of a handler there is now.
    pub fn present(&mut self, id: usize, now: Instant) -> ItemState {
        let Some(entry) = self.entries.get(id) else { return ItemState::Gone };
        self.sources[entry.source].source.present(&entry.item, now)
    }
}

#[cfg(test)]
mod tests;

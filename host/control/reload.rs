//! The reload loop: one thread that follows the sources, loads their handlers and publishes them.
//!
//! Owns when a handler is loaded. `sets.rs` owns which handlers there are, `retry.rs` when a failed
//! one is tried again, `loaded_capacity.rs` when a guest is unloaded. Shares only handlers and
//! snapshots with the request path.

use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender};
use std::time::{Duration, Instant};

use tokio::sync::mpsc::UnboundedSender;

use super::entries::{Entries, HandlerEntry, LoadState};
use super::followed::FollowedSource;
use super::load_memory::LoadMemory;
use super::loaded_capacity::LoadedCapacity;
use super::loaders::{FinishedLoad, LoadJob, LoadOutcome, Loaders};
use crate::guest::load::compiler_process::CancelToken;
use crate::guest::load::loader::Loaded;
use crate::log::escape;
use crate::registry::{HandlerState, Registry};
use crate::source::{HandlerItem, ItemState};

/// An event for the loop.
pub enum ControlEvent {
    /// Requests wait for the handler with this id.
    Wanted(usize),
    /// A source may have changed.
    Changed,
    /// All sources must look for changes now.
    Refresh,
    /// A load has ended.
    Done(FinishedLoad),
    /// The loop must end.
    Stop,
}

/// The state of the loop.
pub struct Reload {
    /// All handlers.
    pub entries: Entries,
    /// Where snapshots are published.
    pub registry: Arc<Registry>,
    /// The sources, by index.
    pub sources: Vec<FollowedSource>,
    /// Receives why the host cannot go on.
    pub ended: UnboundedSender<String>,
    /// Bounds how many guests are loaded.
    pub guest_capacity: LoadedCapacity,
    /// Decides which loads wait for memory.
    load_memory: LoadMemory,
    /// The threads that load guests.
    pub loaders: Loaders,
    events: Receiver<ControlEvent>,
    serial: u64,
    /// Loads since the states of handlers were last logged.
    unlogged_loads: usize,
    /// Handlers to check at a later time.
    pub pending: Vec<(Instant, usize)>,
}

/// What a [`Reload`] is made of; its fields have the same meaning there.
pub struct ReloadParts {
    /// All handlers.
    pub entries: Entries,
    /// Where snapshots are published.
    pub registry: Arc<Registry>,
    /// The sources, by index.
    pub sources: Vec<FollowedSource>,
    /// Receives why the host cannot go on.
    pub ended: UnboundedSender<String>,
    /// Bounds how many guests are loaded.
    pub guest_capacity: LoadedCapacity,
    /// Decides which loads wait for memory.
    pub load_memory: LoadMemory,
    /// The threads that load guests.
    pub loaders: Loaders,
    /// The events of the loop.
    pub events: Receiver<ControlEvent>,
}

impl Reload {
    /// A loop that has not begun to run.
    pub fn new(parts: ReloadParts) -> Self {
        let ReloadParts {
            entries,
            registry,
            sources,
            ended,
            guest_capacity,
            load_memory,
            loaders,
            events,
        } = parts;
        Reload {
            entries,
            registry,
            sources,
            ended,
            guest_capacity,
            load_memory,
            loaders,
            events,
            serial: 0,
            unlogged_loads: 0,
            pending: Vec::new(),
        }
    }

    /// Runs the loop until it gets [`ControlEvent::Stop`].
    pub fn run(mut self) {
        self.run_due();
        loop {
            let timeout = self.wake_at().map(|at| at.saturating_duration_since(Instant::now()));
            let event = match timeout {
                None => self.events.recv().map_err(|_| RecvTimeoutError::Disconnected),
                Some(timeout) => self.events.recv_timeout(timeout),
            };
            let mut events = match event {
                Err(RecvTimeoutError::Disconnected) => return,
                Ok(event) => vec![event],
                Err(RecvTimeoutError::Timeout) => Vec::new(),
            };
            // Take all events that have piled up before acting on any.
            events.extend(self.events.try_iter());
            let is_done = |event: &ControlEvent| matches!(event, ControlEvent::Done(_));
            if events.iter().any(is_done) {
                // Learn first whether anyone has written to what was loaded.
                for followed in &mut self.sources {
                    followed.source.catch_up();
                }
                self.poll_sources(Instant::now());
                events.sort_by_key(is_done);
            }
            for event in events {
                if matches!(event, ControlEvent::Stop) {
                    return;
                }
                self.handle_event(event);
            }
            self.run_due();
        }
    }

    /// Handles one event.
    pub fn handle_event(&mut self, event: ControlEvent) {
        match event {
            ControlEvent::Wanted(id) => self.wanted(id),
            ControlEvent::Refresh => {
                for followed in &mut self.sources {
                    followed.source.refresh();
                }
            }
            ControlEvent::Done(done) => self.finish_load(done),
            // The loop polls the sources anyway, and handles `Stop` itself.
            ControlEvent::Changed | ControlEvent::Stop => {}
        }
    }

    /// When there is something to do even without an event.
    fn wake_at(&self) -> Option<Instant> {
        let look = self.sources.iter().filter_map(|followed| followed.source.wake_at()).min();
        let settled = self.pending.iter().map(|(at, _)| *at).min();
        let place = if self.entries.is_quiet() { None } else { self.loaders.free_thread_at() };
        let now = Instant::now();
        let memory = self.load_memory.poll_after().filter(|_| self.loaders.has_free_thread(now));
        let memory = memory.map(|after| now + after);
        [look, settled, place, memory, self.guest_capacity.wake_at()].into_iter().flatten().min()
    }

    /// Does everything that is due now.
    pub fn run_due(&mut self) {
        let now = Instant::now();
        self.poll_sources(now);
        self.enqueue_due(now);
        self.unload_idle(now);
        self.dispatch(now);
        if self.unlogged_loads > 0 && self.entries.is_quiet() && self.loaders.is_idle() {
            self.log_state_counts();
        }
    }

    fn wanted(&mut self, id: usize) {
        let Some(entry) = self.entries.get(id) else { return };
        match (entry.load_state, entry.handler.state()) {
            // It was unloaded, or never loaded.
            (LoadState::Queued, _) | (LoadState::Idle, HandlerState::Cold) => {
                self.entries.enqueue(id, true);
            }
            // Its state has changed meanwhile. Wake the waiting requests to look again.
            (LoadState::Idle, state) => entry.handler.set(state),
            (LoadState::Settling(_), _) => self.try_sooner(id),
            // It is being loaded already.
            (LoadState::Running(_), _) => {}
        }
    }

    fn mark_changed_now(&mut self, id: usize, now: Instant) {
        let item = match self.present(id, now) {
            ItemState::Other(item) => Some(item),
            ItemState::Same | ItemState::Unknown => self.entries.get(id).map(|it| it.item.clone()),
            ItemState::Gone => None,
        };
        if let Some(item) = item {
            self.mark_changed(id, item, now);
        }
    }

    /// Notes that the contents of a handler have changed, or may have.
    pub fn mark_changed(&mut self, id: usize, item: Arc<HandlerItem>, now: Instant) {
        let Some(entry) = self.entries.get(id) else { return };
        if entry.item.version != item.version {
            // A running load of the previous version is of no use.
            if let Some(running) = &entry.running_load {
                running.cancel();
            }
            entry.item = item;
            entry.has_failed_early = false;
            entry.transient_failures = 0;
            entry.retry_if_wanted = None;
            entry.code_bytes = 0;
            entry.last_error = None;
            if entry.handler.state() == HandlerState::Failed {
                // The failure was of the previous version. Requests may wait for this one.
                entry.handler.set(HandlerState::Cold);
            }
        }
        if matches!(entry.load_state, LoadState::Running(_)) {
            entry.is_dirty = true;
        } else {
            self.debounce(id, now);
        }
    }

    /// Loads a handler once its contents are likely to be completely written.
    pub fn debounce(&mut self, id: usize, now: Instant) {
        let Some(entry) = self.entries.get(id) else { return };
        let due = self.sources[entry.source].source.whole_at(&entry.item, now);
        entry.load_state = LoadState::Settling(due);
        self.pending.push((due.max(now), id));
    }

    /// Queues the pending handlers that are due.
    fn enqueue_due(&mut self, now: Instant) {
        let due: Vec<usize> =
            self.pending.extract_if(.., |(at, _)| *at <= now).map(|(_, id)| id).collect();
        for id in due {
            let Some(entry) = self.entries.get(id) else { continue };
            if !matches!(entry.load_state, LoadState::Settling(at) if at <= now) {
                continue;
            }
            match self.present(id, now) {
                ItemState::Other(item) => self.mark_changed(id, item, now),
                // There is nothing to load.
                ItemState::Gone => {
                    if let Some(entry) = self.entries.get(id) {
                        entry.load_state = LoadState::Idle;
                    }
                }
                ItemState::Same | ItemState::Unknown => self.entries.enqueue(id, false),
            }
        }
    }

    /// Begins loads while there are threads and memory for them.
    fn dispatch(&mut self, now: Instant) {
        while self.loaders.has_free_thread(now) {
            if !self.ensure_capacity(now) {
                return self.load_memory.clear();
            }
            self.load_memory.begin_scan();
            let enter =
                |id, entry: &HandlerEntry| self.load_memory.reserve_load(id, entry.need(), now);
            let Some((id, place)) = self.entries.next(self.guest_capacity.has_headroom(), enter)
            else {
                return self.load_memory.end_scan();
            };
            let Some(entry) = self.entries.get(id) else { continue };
            self.serial += 1;
            entry.load_state = LoadState::Running(self.serial);
            if entry.served.is_none() {
                entry.handler.set(HandlerState::Loading);
            }
            let place = match place {
                Ok(place) => place,
                Err(failure) => {
                    entry.load_state = LoadState::Idle;
                    self.unlogged_loads += 1;
                    self.failed(id, failure, Duration::ZERO, now);
                    continue;
                }
            };
            let job = LoadJob {
                serial: self.serial,
                id,
                name: entry.handler.name.clone(),
                grants: entry.handler.grants.clone(),
                blob: entry.item.blob.clone(),
                served: entry.served.map(|(key, _)| key),
                cancel: CancelToken::default(),
                reservation: place,
            };
            entry.running_load = Some(job.cancel.clone());
            self.loaders.begin(job, now);
        }
        self.guest_capacity.wait_for_a_load();
    }

    fn finish_load(&mut self, done: FinishedLoad) {
        self.loaders.end(done.serial);
        let Some(entry) = self.entries.get(done.id) else { return };
        if entry.load_state != LoadState::Running(done.serial) {
            // The handler was removed meanwhile.
            return;
        }
        entry.load_state = LoadState::Idle;
        entry.running_load = None;
        // Do not log that a guest is loaded again after it was unloaded for lack of memory.
        self.unlogged_loads += usize::from(!std::mem::take(&mut entry.is_unloaded));
        let is_other = done.version != Some(entry.item.version);
        if !is_other {
            entry.code_bytes = done.need.code_bytes;
        }
        let now = Instant::now();
        let source = &self.sources[entry.source].source;
        // If the file was written to while it was read, its contents may be incomplete.
        if !source.was_whole(&entry.item, done.version, now) {
            return self.mark_changed_now(done.id, now);
        }
        match done.outcome {
            LoadOutcome::Loaded(loaded) => self.publish(done.id, *loaded, done.took, now),
            LoadOutcome::Same => {
                entry.has_failed_early = false;
                entry.is_stale = false;
            }
            LoadOutcome::ContentChanged => return self.debounce(done.id, now),
            // The failure was of a version that is no longer the last seen one.
            LoadOutcome::Failed(_) | LoadOutcome::ShortOfMemory
                if done.version.is_some() && is_other => {}
            LoadOutcome::ShortOfMemory => return self.entries.enqueue(done.id, false),
            LoadOutcome::Failed(failure) => return self.failed(done.id, failure, done.took, now),
        }
        let Some(entry) = self.entries.get(done.id) else { return };
        if std::mem::take(&mut entry.is_dirty) || is_other {
            self.debounce(done.id, now);
        }
    }

    fn publish(&mut self, id: usize, loaded: Loaded, took: Duration, now: Instant) {
        let moment = self.registry.coarse_ticks();
        let Some(entry) = self.entries.get(id) else { return };
        let file = escape(entry.item.label.as_bytes(), 512);
        let how = if loaded.compiled { "compiled" } else { "from the cache" };
        let took_ms = took.as_millis();
        let served = entry.served.replace((loaded.key, loaded.size));
        entry.has_failed_early = false;
        entry.is_stale = false;
        entry.transient_failures = 0;
        entry.retry_if_wanted = None;
        entry.handler.touch(moment);
        if served.is_some() {
            tracing::info!("{file}: a new version is served ({how}, {took_ms} ms)");
        } else {
            tracing::debug!("{file}: loaded ({how}, {took_ms} ms)");
        }
        if let Some(why) = &loaded.not_flat {
            tracing::debug!("{file}: served whole, not flat: {why}");
        }
        let before = entry.handler.publish(Arc::new(loaded.guest));
        if let Some(before) = before {
            self.registry.retire(&before);
        }
        self.guest_capacity.note_loaded(loaded.size, served.map(|(_, size)| size));
        self.note_loaded(id, now);
    }

    /// Stops serving a handler that is gone. Returns its label.
    pub fn remove(&mut self, id: usize) -> Arc<str> {
        let entry = self.entries.remove(id);
        if let Some(running) = &entry.running_load {
            running.cancel();
        }
        if let Some((_, size)) = entry.served {
            self.guest_capacity.note_unloaded(size);
        }
        // Requests that wait for this handler can be answered by its successor.
        let successor = self.entries.id_of(entry.source, &entry.item.label);
        let successor = successor.and_then(|id| self.entries.get(id)?.handler.guest().clone());
        let before = match successor {
            Some(guest) => entry.handler.publish(guest),
            None => entry.handler.withdraw(HandlerState::Gone),
        };
        if let Some(guest) = before {
            self.registry.retire(&guest);
        }
        entry.item.label.clone()
    }

    fn log_state_counts(&mut self) {
        self.unlogged_loads = 0;
        let mut counts = [0; HandlerState::ALL.len()];
        for (_, entry) in self.entries.iter().filter(|(_, entry)| entry.is_routed) {
            counts[entry.handler.state() as usize] += 1;
        }
        let named = HandlerState::ALL.iter().zip(counts).filter(|(_, count)| *count > 0);
        let named: Vec<String> =
            named.map(|(state, count)| format!("{count} {}", state.name())).collect();
        tracing::info!("handlers: {}", named.join(", "));
    }
}

/// A function that sends events to the loop, from any thread.
pub fn event_sender(
    events: &Sender<ControlEvent>,
) -> impl Fn(ControlEvent) + Clone + Send + Sync + 'static {
    let events = events.clone();
    // Sending fails if the loop has ended, and then the host ends, too.
    move |event| drop(events.send(event))
}

//! The reload loop: one thread that follows the sources, has their handlers loaded, and publishes
//! what is served.
//!
//! Owns when a handler is loaded; `sets.rs` which handlers there are, `retry.rs` when one that
//! failed is tried again, `room.rs` when a guest is unloaded. Nothing here is shared with the
//! request path but handlers and snapshots.

use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender};
use std::time::{Duration, Instant};

use tokio::sync::mpsc::UnboundedSender;

use super::entries::{Entries, Entry, Progress};
use super::followed::Followed;
use super::load_memory::LoadMemory;
use super::loaders::{Done, Job, Loaders, Outcome};
use super::room::Room;
use crate::guest::load::child::Cancel;
use crate::guest::load::loader::Loaded;
use crate::log::escape;
use crate::registry::{Registry, State};
use crate::source::{Item, Present};

/// What the loop hears of.
pub enum Event {
    /// Requests wait for the handler with this id.
    Wanted(usize),
    /// A source may have changed.
    Changed,
    /// Have all sources look for changes now.
    Refresh,
    Done(Done),
    Stop,
}

/// The state of the loop.
pub struct Reload {
    pub entries: Entries,
    pub registry: Arc<Registry>,
    pub sources: Vec<Followed>,
    /// Is told why the host cannot go on.
    pub ended: UnboundedSender<String>,
    pub room: Room,
    /// Who of those that are to be loaded waits for memory.
    load_memory: LoadMemory,
    pub loaders: Loaders,
    events: Receiver<Event>,
    serial: u64,
    /// Loads since the last line about them.
    unsaid: usize,
    /// When something is to be looked at whose time has not come yet.
    pub pending: Vec<(Instant, usize)>,
}

/// What the loop goes by.
pub struct Parts {
    pub entries: Entries,
    pub registry: Arc<Registry>,
    pub sources: Vec<Followed>,
    pub ended: UnboundedSender<String>,
    pub room: Room,
    pub load_memory: LoadMemory,
    pub loaders: Loaders,
    pub events: Receiver<Event>,
}

impl Reload {
    pub fn new(parts: Parts) -> Self {
        let Parts { entries, registry, sources, ended, room, load_memory, loaders, events } = parts;
        Reload {
            entries,
            registry,
            sources,
            ended,
            room,
            load_memory,
            loaders,
            events,
            serial: 0,
            unsaid: 0,
            pending: Vec::new(),
        }
    }

    /// Runs until it is told to stop.
    pub fn run(mut self) {
        self.act();
        loop {
            let patience = self.wake_at().map(|at| at.saturating_duration_since(Instant::now()));
            let event = match patience {
                None => self.events.recv().map_err(|_| RecvTimeoutError::Disconnected),
                Some(patience) => self.events.recv_timeout(patience),
            };
            let mut heard = match event {
                Err(RecvTimeoutError::Disconnected) => return,
                Ok(event) => vec![event],
                Err(RecvTimeoutError::Timeout) => Vec::new(),
            };
            // What has piled up is heard before anything is done about it.
            heard.extend(self.events.try_iter());
            let is_done = |event: &Event| matches!(event, Event::Done(_));
            if heard.iter().any(is_done) {
                // Above all, whether somebody writes to what was loaded.
                for followed in &mut self.sources {
                    followed.source.catch_up();
                }
                self.follow(Instant::now());
                heard.sort_by_key(is_done);
            }
            for event in heard {
                if matches!(event, Event::Stop) {
                    return;
                }
                self.hear(event);
            }
            self.act();
        }
    }

    /// Takes note of an event.
    pub fn hear(&mut self, event: Event) {
        match event {
            Event::Wanted(id) => self.wanted(id),
            Event::Refresh => {
                for followed in &mut self.sources {
                    followed.source.refresh();
                }
            }
            Event::Done(done) => self.done(done),
            // They are asked before anything else is done.
            Event::Changed | Event::Stop => {}
        }
    }

    /// When there is something to do though nothing is heard.
    fn wake_at(&self) -> Option<Instant> {
        let look = self.sources.iter().filter_map(|followed| followed.source.wake_at()).min();
        let settled = self.pending.iter().map(|(at, _)| *at).min();
        let place = if self.entries.is_quiet() { None } else { self.loaders.room_at() };
        let now = Instant::now();
        let memory = self.load_memory.look_after().filter(|_| self.loaders.has_room(now));
        let memory = memory.map(|after| now + after);
        [look, settled, place, memory, self.room.wake_at()].into_iter().flatten().min()
    }

    /// Does what there is to do now.
    pub fn act(&mut self) {
        let now = Instant::now();
        self.follow(now);
        self.settle(now);
        self.trim(now);
        self.dispatch(now);
        if self.unsaid > 0 && self.entries.is_quiet() && self.loaders.is_idle() {
            self.say_census();
        }
    }

    fn wanted(&mut self, id: usize) {
        let Some(entry) = self.entries.get(id) else { return };
        match (entry.progress, entry.handler.state()) {
            // Unloaded, or never loaded.
            (Progress::Queued, _) | (Progress::Resting, State::Cold) => {
                self.entries.enqueue(id, true);
            }
            // It has changed meanwhile, and whoever waits is to look again.
            (Progress::Resting, state) => entry.handler.set(state),
            (Progress::Settling(_), _) => self.try_sooner(id),
            // Its turn comes by itself.
            (Progress::Running(_), _) => {}
        }
    }

    fn touched_now(&mut self, id: usize, now: Instant) {
        let item = match self.present(id, now) {
            Present::Other(item) => Some(item),
            Present::Same | Present::Unknown => self.entries.get(id).map(|it| it.item.clone()),
            Present::Gone => None,
        };
        if let Some(item) = item {
            self.touched(id, item, now);
        }
    }

    /// Takes note that the contents of a handler have changed, or may have.
    pub fn touched(&mut self, id: usize, item: Arc<Item>, now: Instant) {
        let Some(entry) = self.entries.get(id) else { return };
        if entry.item.version != item.version {
            // What is being made of the version before is of no use.
            if let Some(running) = &entry.running {
                running.cancel();
            }
            entry.item = item;
            entry.is_doubted = false;
            entry.mishaps = 0;
            entry.retry_if_wanted = None;
            entry.code_bytes = 0;
            entry.said = None;
            if entry.handler.state() == State::Failed {
                // That says nothing of this version, for which requests wait.
                entry.handler.set(State::Cold);
            }
        }
        if matches!(entry.progress, Progress::Running(_)) {
            entry.is_stirred = true;
        } else {
            self.let_settle(id, now);
        }
    }

    /// Has a handler loaded once its contents are whole.
    pub fn let_settle(&mut self, id: usize, now: Instant) {
        let Some(entry) = self.entries.get(id) else { return };
        let due = self.sources[entry.source].source.whole_at(&entry.item, now);
        entry.progress = Progress::Settling(due);
        self.pending.push((due.max(now), id));
    }

    /// Queues the handlers whose time has come.
    fn settle(&mut self, now: Instant) {
        let due: Vec<usize> =
            self.pending.extract_if(.., |(at, _)| *at <= now).map(|(_, id)| id).collect();
        for id in due {
            let Some(entry) = self.entries.get(id) else { continue };
            if !matches!(entry.progress, Progress::Settling(at) if at <= now) {
                continue;
            }
            match self.present(id, now) {
                Present::Other(item) => self.touched(id, item, now),
                // There is nothing to load.
                Present::Gone => {
                    if let Some(entry) = self.entries.get(id) {
                        entry.progress = Progress::Resting;
                    }
                }
                Present::Same | Present::Unknown => self.entries.enqueue(id, false),
            }
        }
    }

    /// Hands out jobs while there is room.
    fn dispatch(&mut self, now: Instant) {
        while self.loaders.has_room(now) {
            if !self.has_room(now) {
                return self.load_memory.clear();
            }
            self.load_memory.look_through();
            let enter = |id, entry: &Entry| self.load_memory.enter(id, entry.need(), now);
            let Some((id, place)) = self.entries.next(self.room.is_ample(), enter) else {
                return self.load_memory.end();
            };
            let Some(entry) = self.entries.get(id) else { continue };
            self.serial += 1;
            entry.progress = Progress::Running(self.serial);
            if entry.served.is_none() {
                entry.handler.set(State::Loading);
            }
            let place = match place {
                Ok(place) => place,
                Err(failure) => {
                    entry.progress = Progress::Resting;
                    self.unsaid += 1;
                    self.failed(id, failure, Duration::ZERO, now);
                    continue;
                }
            };
            let job = Job {
                serial: self.serial,
                id,
                name: entry.handler.name.clone(),
                grants: entry.handler.grants.clone(),
                blob: entry.item.blob.clone(),
                served: entry.served.map(|(key, _)| key),
                cancel: Cancel::default(),
                place,
            };
            entry.running = Some(job.cancel.clone());
            self.loaders.begin(job, now);
        }
        self.room.wait_for_a_load();
    }

    fn done(&mut self, done: Done) {
        self.loaders.end(done.serial);
        let Some(entry) = self.entries.get(done.id) else { return };
        if entry.progress != Progress::Running(done.serial) {
            // It was removed meanwhile.
            return;
        }
        entry.progress = Progress::Resting;
        entry.running = None;
        // What comes and goes with the memory it takes is no news.
        self.unsaid += usize::from(!std::mem::take(&mut entry.is_unloaded));
        let is_other = done.version != Some(entry.item.version);
        if !is_other {
            entry.code_bytes = done.need.code_bytes;
        }
        let now = Instant::now();
        let source = &self.sources[entry.source].source;
        // Somebody writes to the very contents that were read, so that they may not be whole.
        if !source.was_whole(&entry.item, done.version, now) {
            return self.touched_now(done.id, now);
        }
        match done.outcome {
            Outcome::Loaded(loaded) => self.publish(done.id, *loaded, done.took, now),
            Outcome::Same => {
                entry.is_doubted = false;
                entry.is_outlived = false;
            }
            Outcome::Moved => return self.let_settle(done.id, now),
            // Another version has come meanwhile, which says nothing about this one.
            Outcome::Failed(_) | Outcome::Short if done.version.is_some() && is_other => {}
            Outcome::Short => return self.entries.enqueue(done.id, false),
            Outcome::Failed(failure) => return self.failed(done.id, failure, done.took, now),
        }
        let Some(entry) = self.entries.get(done.id) else { return };
        if std::mem::take(&mut entry.is_stirred) || is_other {
            self.let_settle(done.id, now);
        }
    }

    fn publish(&mut self, id: usize, loaded: Loaded, took: Duration, now: Instant) {
        let moment = self.registry.moment();
        let Some(entry) = self.entries.get(id) else { return };
        let file = escape(entry.item.label.as_bytes(), 512);
        let how = if loaded.compiled { "compiled" } else { "from the cache" };
        let took_ms = took.as_millis();
        let served = entry.served.replace((loaded.key, loaded.size));
        entry.is_doubted = false;
        entry.is_outlived = false;
        entry.mishaps = 0;
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
        self.room.note_loaded(loaded.size, served.map(|(_, size)| size));
        self.note_loaded(id, now);
    }

    /// Stops serving a handler that is gone. Returns what messages call it.
    pub fn remove(&mut self, id: usize) -> Arc<str> {
        let entry = self.entries.remove(id);
        if let Some(running) = &entry.running {
            running.cancel();
        }
        if let Some((_, size)) = entry.served {
            self.room.note_unloaded(size);
        }
        // Requests may wait for it that the one in its place can answer.
        let successor = self.entries.id_of(entry.source, &entry.item.label);
        let successor = successor.and_then(|id| self.entries.get(id)?.handler.guest().clone());
        let before = match successor {
            Some(guest) => entry.handler.publish(guest),
            None => entry.handler.withdraw(State::Gone),
        };
        if let Some(guest) = before {
            self.registry.retire(&guest);
        }
        entry.item.label.clone()
    }

    fn say_census(&mut self) {
        self.unsaid = 0;
        let mut counts = [0; State::ALL.len()];
        for (_, entry) in self.entries.iter().filter(|(_, entry)| entry.is_routed) {
            counts[entry.handler.state() as usize] += 1;
        }
        let named = State::ALL.iter().zip(counts).filter(|(_, count)| *count > 0);
        let named: Vec<String> =
            named.map(|(state, count)| format!("{count} {}", state.name())).collect();
        tracing::info!("handlers: {}", named.join(", "));
    }
}

/// A sender of events, as the threads around the loop need it.
pub fn teller(events: &Sender<Event>) -> impl Fn(Event) + Clone + Send + Sync + 'static {
    let events = events.clone();
    // The loop has ended, and so does the host.
    move |event| drop(events.send(event))
}

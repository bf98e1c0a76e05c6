//! The reload loop: one thread that follows the handler folder, has its files loaded, and publishes
//! what is served.
//!
//! Owns when a file is whole and when it is loaded; `retry.rs` when one that failed is tried again,
//! `room.rs` when a guest is unloaded. The folder is the truth: an event only says when to look.
//! Nothing here is shared with the request path but handlers and snapshots.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender};
use std::time::{Duration, Instant};

use super::entries::{Entries, Entry, Progress};
use super::folder::{Folder, UNCLOSED};
use super::load_memory::LoadMemory;
use super::loaders::{Done, Job, Loaders, Outcome};
use super::room::Room;
use super::scan::Stamp;
use super::watch::Stir;
use crate::guest::child::Cancel;
use crate::guest::load::Loaded;
use crate::log::escape;
use crate::registry::{Registry, State};

/// A file of which nobody said that it is written is taken for whole when it stays as it is this
/// long.
const SETTLE: Duration = Duration::from_millis(50);

/// What the loop hears of.
pub enum Event {
    /// Requests wait for the handler with this id.
    Wanted(usize),
    /// Something happened in the folder.
    Stirred(Stir),
    /// Look at the folder now.
    Rescan,
    Done(Done),
    Stop,
}

/// The state of the loop.
pub struct Reload {
    pub entries: Entries,
    pub registry: Arc<Registry>,
    /// None for what is built in.
    pub folder: Option<Folder>,
    /// Whether the native twins have routes.
    pub native: bool,
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

impl Reload {
    pub fn new(
        entries: Entries,
        registry: Arc<Registry>,
        folder: Option<Folder>,
        loaders: Loaders,
        events: Receiver<Event>,
        (room, load_memory): (Room, LoadMemory),
    ) -> Self {
        Reload {
            entries,
            registry,
            folder,
            native: false,
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
                if let Some(folder) = &mut self.folder {
                    folder.catch_up();
                }
                heard.extend(self.events.try_iter());
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

    fn hear(&mut self, event: Event) {
        match event {
            Event::Wanted(id) => self.wanted(id),
            Event::Stirred(stir) => self.stirred(stir),
            Event::Rescan => {
                if let Some(folder) = &mut self.folder {
                    folder.look_now();
                }
            }
            Event::Done(done) => self.done(done),
            Event::Stop => {}
        }
    }

    /// When there is something to do though nothing is heard.
    fn wake_at(&self) -> Option<Instant> {
        let look = self.folder.as_ref().map(Folder::look_at);
        let settled = self.pending.iter().map(|(at, _)| *at).min();
        let place = if self.entries.is_quiet() { None } else { self.loaders.room_at() };
        let now = Instant::now();
        let memory = self.load_memory.look_after().filter(|_| self.loaders.has_room(now));
        let memory = memory.map(|after| now + after);
        [look, settled, place, memory, self.room.wake_at()].into_iter().flatten().min()
    }

    fn act(&mut self) {
        let now = Instant::now();
        if self.folder.as_ref().is_some_and(|folder| folder.look_at() <= now) {
            self.look();
        }
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

    fn stirred(&mut self, stir: Stir) {
        let now = Instant::now();
        let Some(folder) = &mut self.folder else { return };
        let (path, written) = match stir {
            Stir::Other => return folder.look_soon(now),
            Stir::Lost(path) => return folder.lost(&path, now),
            Stir::Writing(path) => (path, Some(now)),
            Stir::Written(path) => (path, None),
        };
        let stamp = Stamp::read(&path).ok();
        if let Some(stamp) = stamp {
            folder.note_pen(stamp, written);
        }
        match self.entries.id_of(&path) {
            // A known file needs no look at the whole folder.
            Some(id) => self.touched(id, now, stamp),
            None => folder.look_soon(now),
        }
    }

    fn touched_now(&mut self, id: usize, now: Instant) {
        let stamp = self.entries.get(id).and_then(|entry| Stamp::read(entry.path()?).ok());
        self.touched(id, now, stamp);
    }

    /// Takes note that a file has changed, or may have.
    pub fn touched(&mut self, id: usize, now: Instant, stamp: Option<Stamp>) {
        // Without a stamp there is no such file, which is the next look's matter.
        let (Some(entry), Some(stamp)) = (self.entries.get(id), stamp) else {
            if let Some(folder) = &mut self.folder {
                folder.look_soon(now);
            }
            return;
        };
        if entry.stamp != Some(stamp) {
            // What is being made of the version before is of no use.
            if let Some(running) = &entry.running {
                running.cancel();
            }
            entry.stamp = Some(stamp);
            entry.seen = now;
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

    /// Has a file loaded once it is whole.
    pub fn let_settle(&mut self, id: usize, now: Instant) {
        let (Some(entry), Some(folder)) = (self.entries.get(id), &self.folder) else { return };
        let due = entry.stamp.and_then(|stamp| folder.whole_at(stamp));
        let due = due.unwrap_or_else(|| {
            let is_empty = entry.stamp.is_some_and(|stamp| stamp.is_empty());
            entry.seen + if is_empty { UNCLOSED } else { SETTLE }
        });
        entry.progress = Progress::Settling(due);
        self.pending.push((due.max(now), id));
    }

    /// Queues the files that have been left alone for long enough.
    fn settle(&mut self, now: Instant) {
        let due: Vec<usize> =
            self.pending.extract_if(.., |(at, _)| *at <= now).map(|(_, id)| id).collect();
        for id in due {
            let Some(entry) = self.entries.get(id) else { continue };
            if !matches!(entry.progress, Progress::Settling(at) if at <= now) {
                continue;
            }
            let now_is = entry.path().map(Stamp::read);
            match now_is {
                Some(Ok(stamp)) if entry.stamp != Some(stamp) => {
                    self.touched(id, now, Some(stamp));
                }
                // Without a file there is nothing to load; the next look says so.
                Some(Err(error)) if error.kind() == std::io::ErrorKind::NotFound => {
                    entry.progress = Progress::Resting;
                    if let Some(folder) = &mut self.folder {
                        folder.look_soon(now);
                    }
                }
                _ => self.entries.enqueue(id, false),
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
                origin: entry.origin.clone(),
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
            // Its file was removed meanwhile.
            return;
        }
        entry.progress = Progress::Resting;
        entry.running = None;
        // What comes and goes with the memory it takes is no news.
        self.unsaid += usize::from(!std::mem::take(&mut entry.is_unloaded));
        if done.stamp == entry.stamp {
            entry.code_bytes = done.need.code_bytes;
        }
        let now = Instant::now();
        // Somebody writes to the very file that was read, so that it may not have been whole.
        let open = self.folder.as_ref().zip(entry.stamp);
        let open =
            open.and_then(|(folder, stamp)| folder.whole_at(stamp)).is_some_and(|at| at > now);
        if open || entry.is_rewritten(done.stamp) {
            return self.touched_now(done.id, now);
        }
        match done.outcome {
            Outcome::Loaded(loaded) => self.publish(done.id, *loaded, done.took),
            Outcome::Same => {
                entry.is_doubted = false;
                entry.is_outlived = false;
            }
            Outcome::Moved => return self.let_settle(done.id, now),
            // Another version has come meanwhile, which says nothing about this one.
            Outcome::Failed(_) | Outcome::Short
                if done.stamp.is_some() && done.stamp != entry.stamp => {}
            Outcome::Short => return self.entries.enqueue(done.id, false),
            Outcome::Failed(failure) => return self.failed(done.id, failure, done.took, now),
        }
        let Some(entry) = self.entries.get(done.id) else { return };
        if std::mem::take(&mut entry.is_stirred) || done.stamp != entry.stamp {
            self.let_settle(done.id, now);
        }
    }

    fn publish(&mut self, id: usize, loaded: Loaded, took: Duration) {
        let moment = self.registry.moment();
        let Some(entry) = self.entries.get(id) else { return };
        let file = escape(entry.file().as_bytes(), 512);
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
    }

    /// Stops serving a handler whose file is gone.
    pub fn remove(&mut self, id: usize) -> PathBuf {
        let entry = self.entries.remove(id);
        if let Some(running) = &entry.running {
            running.cancel();
        }
        if let Some((_, size)) = entry.served {
            self.room.note_unloaded(size);
        }
        if let Some(guest) = entry.handler.withdraw(State::Gone) {
            self.registry.retire(&guest);
        }
        entry.path().map(ToOwned::to_owned).unwrap_or_default()
    }

    fn say_census(&mut self) {
        self.unsaid = 0;
        let mut counts = [0; State::ALL.len()];
        for (_, entry) in self.entries.iter() {
            counts[entry.handler.state() as usize] += 1;
        }
        let named = State::ALL.iter().zip(counts).filter(|(_, count)| *count > 0);
        let named: Vec<String> =
            named.map(|(state, count)| format!("{count} {}", state.name())).collect();
        tracing::info!("handlers: {}", named.join(", "));
    }
}

/// A sender of events, as the threads around the loop need it.
pub fn teller(events: &Sender<Event>) -> impl Fn(Event) + Clone + Send + 'static {
    let events = events.clone();
    // The loop has ended, and so does the host.
    move |event| drop(events.send(event))
}

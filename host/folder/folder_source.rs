//! A handler folder as a source: the handlers in it, and when to scan it again.
//!
//! Owns the debounce, the regular scans, when a file is completely written, and the complaints,
//! each logged once. Only a scan says what is in the folder; an event only says when to scan. Must
//! not know what becomes of a file.

use std::collections::{HashMap, HashSet};
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, channel};
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use anyhow::Result;

use super::file_blob::FileBlob;
use super::folder_watcher::{FolderWatcher, FsEvent};
use super::scan::{HandlerFile, Scan, Skipped, scan};
use super::stamp;
use super::writers::{UNCLOSED, Writers};
use crate::config::GrantTable;
use crate::grants::Grants;
use crate::log::escape;
use crate::source::{Change, ContentVersion, HandlerItem, HandlerSet, ItemState, Source, Wake};

/// Without events about its writer, a file counts as complete if it has not changed for this long.
const SETTLE: Duration = Duration::from_millis(50);
/// If a file does not load this soon after it appeared, it may be incomplete after all: a copy may
/// have paused.
const EARLY_FAILURE_WITHIN: Duration = Duration::from_secs(1);
/// How long it has to be quiet after an event before the folder is scanned.
const DEBOUNCE: Duration = Duration::from_millis(10);
/// How long a storm of events may delay the scan.
const DEBOUNCE_MAX: Duration = Duration::from_millis(100);
/// The shortest time between two scans without any event.
const RESCAN_EVERY: Duration = Duration::from_secs(2);
/// That time is also at least this many times the duration of a scan. So scans take at most half a
/// percent of a core.
const RESCAN_TIMES: u32 = 200;

/// The handler folder.
pub struct FolderSource {
    path: PathBuf,
    grants: GrantsByName,
    /// The handlers by label.
    files: HashMap<Arc<str>, TrackedFile>,
    /// `None` before [`Source::begin`].
    following: Option<(FolderWatcher, Receiver<FsEvent>)>,
    rescan_at: Instant,
    /// When the first event since the last scan came.
    first_event_at: Option<Instant>,
    writers: Writers,
    /// Whether the last call of [`Source::changes`] has scanned the folder.
    has_rescanned: bool,
    skipped: Vec<Skipped>,
    complaint: Option<String>,
}

/// The grants of each handler. While anything holds the grants of a name, they stay the same value.
/// So if a file comes back while its handler is still served, it belongs to that handler.
struct GrantsByName {
    table: GrantTable,
    given: HashMap<Box<str>, Weak<Grants>>,
}

impl GrantsByName {
    fn of(&mut self, name: &str) -> Arc<Grants> {
        if let Some(grants) = self.given.get(name).and_then(Weak::upgrade) {
            return grants;
        }
        let grants = self.table.of(name);
        self.given.insert(name.into(), Arc::downgrade(&grants));
        grants
    }

    /// Removes grants that nothing holds.
    fn tidy(&mut self) {
        self.given.retain(|_, grants| grants.strong_count() > 0);
    }
}

/// A file that is a handler.
struct TrackedFile {
    file: Arc<FileBlob>,
    item: Arc<HandlerItem>,
    /// When this version appeared; `None` if it was there at the start.
    seen: Option<Instant>,
}

impl TrackedFile {
    fn new(found: HandlerFile, grants: &mut GrantsByName, seen: Option<Instant>) -> Self {
        let HandlerFile { pattern, path, name, version } = found;
        let file = Arc::new(FileBlob(path));
        let item = HandlerItem {
            label: label(&file.0).into(),
            grants: grants.of(&name),
            name: name.into(),
            pattern,
            version,
            blob: file.clone(),
        };
        TrackedFile { file, item: Arc::new(item), seen }
    }

    /// Notes the version that the file has now.
    fn note(&mut self, version: ContentVersion, now: Instant) {
        if self.item.version != version {
            let HandlerItem { label, name, pattern, grants, blob, .. } = &*self.item;
            let (label, name, pattern) = (label.clone(), name.clone(), pattern.clone());
            let (grants, blob) = (grants.clone(), blob.clone());
            self.item = Arc::new(HandlerItem { label, name, pattern, grants, version, blob });
            self.seen = Some(now);
        }
    }
}

/// The set of these handlers. It is not all or nothing, so a bad file costs only its own route.
fn set(items: Vec<Arc<HandlerItem>>) -> HandlerSet {
    HandlerSet { items, native: Vec::new(), is_atomic: false }
}

/// The name of a file in messages.
fn label(path: &Path) -> std::borrow::Cow<'_, str> {
    path.to_string_lossy()
}

impl FolderSource {
    /// A source for the folder at `path`, whose handlers get their grants from `grants`.
    pub fn new(path: PathBuf, grants: GrantTable) -> Self {
        let (files, following, first_event_at, skipped, complaint) = Default::default();
        FolderSource {
            path,
            grants: GrantsByName { table: grants, given: HashMap::new() },
            files,
            following,
            rescan_at: Instant::now(),
            first_event_at,
            writers: Writers::new(),
            has_rescanned: false,
            skipped,
            complaint,
        }
    }

    /// Schedules a scan for when events have ceased, or have come for [`DEBOUNCE_MAX`].
    fn schedule_rescan(&mut self, now: Instant) {
        let first = *self.first_event_at.get_or_insert(now);
        self.rescan_at =
            self.rescan_at.min(now + DEBOUNCE).max((now + DEBOUNCE).min(first + DEBOUNCE_MAX));
    }

    /// Scans the folder and returns its handlers. `None` if the folder cannot be read, which says
    /// nothing about its files.
    fn rescan(&mut self, now: Instant) -> Option<HandlerSet> {
        let Scan { found, unknown, .. } = self.scan()?;
        let mut before = std::mem::take(&mut self.files);
        let mut items = Vec::new();
        for found in found {
            let known = match before.remove(&*label(&found.path)) {
                Some(mut known) => {
                    known.note(found.version, now);
                    known
                }
                None => TrackedFile::new(found, &mut self.grants, Some(now)),
            };
            items.push(known.item.clone());
            self.files.insert(known.item.label.clone(), known);
        }
        // Files that could not be examined may still be there, so keep them.
        let may_be =
            |known: &TrackedFile| unknown.iter().any(|path| known.file.0.starts_with(path));
        for (label, known) in before.into_iter().filter(|(_, known)| may_be(known)) {
            items.push(known.item.clone());
            self.files.insert(label, known);
        }
        self.grants.tidy();
        Some(set(items))
    }

    /// Reads the folder. A missing folder counts as an empty one.
    fn scan(&mut self) -> Option<Scan> {
        self.first_event_at = None;
        let began = Instant::now();
        let is_gone =
            std::fs::metadata(&self.path).is_err_and(|error| error.kind() == ErrorKind::NotFound);
        let scanned = if is_gone {
            let shown = escape(self.path.to_string_lossy().as_bytes(), 512);
            self.complain(format!("the folder {shown} has gone, and its handlers with it"));
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
        self.rescan_at = Instant::now() + RESCAN_EVERY.max(took * RESCAN_TIMES);
        if let Some(scan) = &scanned {
            self.take_note(scan);
        }
        scanned
    }

    /// Watches the folders that were read, and logs newly skipped files.
    fn take_note(&mut self, scan: &Scan) {
        if let Some((watch, _)) = &mut self.following
            && watch.follow(&scan.folders)
        {
            // Scan again, because a new folder may have changed before it was watched.
            self.rescan_at = Instant::now();
        }
        let known: HashSet<&Path> = self.skipped.iter().map(|it| it.path.as_path()).collect();
        for skipped in scan.skipped.iter().filter(|it| !known.contains(it.path.as_path())) {
            let path = skipped.path.to_string_lossy();
            tracing::warn!("{}: {}", escape(path.as_bytes(), 512), skipped.reason);
        }
        self.skipped.clone_from(&scan.skipped);
    }

    /// Logs a complaint, unless it is the same as the last one.
    fn complain(&mut self, complaint: String) {
        if self.complaint.as_ref() != Some(&complaint) {
            tracing::error!("{complaint}");
            self.complaint = Some(complaint);
        }
    }

    /// Handles an event. Returns the handler's item if the event is about a known handler.
    /// Otherwise schedules a scan of the folder.
    fn handle_fs_event(&mut self, event: FsEvent, now: Instant) -> Option<Arc<HandlerItem>> {
        let (path, written) = match event {
            FsEvent::Writing(path) => (path, Some(now)),
            FsEvent::Written(path) => (path, None),
            FsEvent::Other => {
                self.schedule_rescan(now);
                return None;
            }
            FsEvent::Removed(path) => {
                // If it was a folder, its watch is gone, too.
                if let Some((watch, _)) = &mut self.following {
                    watch.forget(&path);
                }
                self.schedule_rescan(now);
                return None;
            }
        };
        let version = stamp::read(&path).ok();
        if let Some(version) = version {
            self.writers.note(version, written);
        }
        let known = self.files.get_mut(&*label(&path)).filter(|known| known.file.0 == path);
        let known = known.zip(version);
        let Some((known, version)) = known else {
            self.schedule_rescan(now);
            return None;
        };
        known.note(version, now);
        Some(known.item.clone())
    }
}

impl Source for FolderSource {
    fn begin(&mut self, wake: Wake) -> Result<HandlerSet> {
        let (tell, events) = channel();
        let watch = FolderWatcher::new(&self.path, move |event| {
            // Sending fails if the source has been dropped.
            drop(tell.send(event));
            wake();
        });
        self.following = Some((watch, events));
        let scan = scan(&self.path)?;
        self.rescan_at = Instant::now() + RESCAN_EVERY;
        self.take_note(&scan);
        // Files that are there at the start count as completely written.
        let known =
            scan.found.into_iter().map(|found| TrackedFile::new(found, &mut self.grants, None));
        let known: Vec<TrackedFile> = known.collect();
        let items = known.iter().map(|known| known.item.clone()).collect();
        self.files = known.into_iter().map(|it| (it.item.label.clone(), it)).collect();
        Ok(set(items))
    }

    fn changes(&mut self, now: Instant) -> Vec<Change> {
        if std::mem::take(&mut self.has_rescanned) {
            self.writers.forget(now);
        }
        let events: Vec<FsEvent> =
            self.following.iter().flat_map(|(_, events)| events.try_iter()).collect();
        let mut changes: Vec<Change> = events
            .into_iter()
            .filter_map(|event| Some(Change::Item(self.handle_fs_event(event, now)?)))
            .collect();
        if self.rescan_at <= now
            && let Some(set) = self.rescan(now)
        {
            self.has_rescanned = true;
            changes.push(Change::Set(set));
        }
        changes
    }

    fn wake_at(&self) -> Option<Instant> {
        Some(self.rescan_at)
    }

    fn refresh(&mut self) {
        self.rescan_at = Instant::now();
    }

    fn catch_up(&mut self) {
        if let Some((watch, _)) = &mut self.following {
            watch.catch_up();
        }
    }

    fn present(&mut self, item: &HandlerItem, now: Instant) -> ItemState {
        let Some(known) = self.files.get_mut(&item.label) else { return ItemState::Gone };
        match stamp::read(&known.file.0) {
            Ok(version) if version == item.version => ItemState::Same,
            Ok(version) => {
                known.note(version, now);
                ItemState::Other(known.item.clone())
            }
            Err(error) if error.kind() == ErrorKind::NotFound => {
                self.schedule_rescan(now);
                ItemState::Gone
            }
            Err(_) => ItemState::Unknown,
        }
    }

    fn whole_at(&self, item: &HandlerItem, now: Instant) -> Instant {
        let seen = || self.files.get(&item.label)?.seen;
        let left_alone = if item.version.bytes() == 0 { UNCLOSED } else { SETTLE };
        let whole_at = self.writers.whole_at(item.version);
        whole_at.or_else(|| Some(seen()? + left_alone)).unwrap_or(now)
    }

    fn was_whole(&self, item: &HandlerItem, read: Option<ContentVersion>, now: Instant) -> bool {
        if self.writers.whole_at(item.version).is_some_and(|at| at > now) {
            return false;
        }
        let Some(known) = self.files.get(&item.label) else { return true };
        // Another file moved to this path does not matter, because the one that was read is whole.
        let is_rewritten = |read: ContentVersion, is: ContentVersion| {
            read != is && stamp::file_id(read) == stamp::file_id(is)
        };
        let is = stamp::read(&known.file.0).ok();
        !read.zip(is).is_some_and(|(read, is)| is_rewritten(read, is))
    }

    fn doubtful_until(&self, item: &HandlerItem, now: Instant) -> Option<Instant> {
        let doubtful_until = self.files.get(&item.label)?.seen? + EARLY_FAILURE_WITHIN;
        Some(doubtful_until).filter(|until| *until > now)
    }
}

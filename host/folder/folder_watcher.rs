//! Watches the handler folder for changes.
//!
//! Owns the watches: one per folder, on exactly the folders that the last scan has read. So only
//! the scan has to handle links and loops. An event is only a hint: events get lost, and some file
//! systems have none.

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use notify::event::{AccessKind, AccessMode, EventKind, ModifyKind, RenameMode};
use notify::{Event, RecommendedWatcher, RecursiveMode, Watcher};

use super::scan::{ScannedFolder, is_handler};

/// A change in the folder.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum FsEvent {
    /// A process is writing to this file.
    Writing(PathBuf),
    /// This file is probably complete: its writer has closed it, or it was moved here.
    Written(PathBuf),
    /// The file or folder with this name was moved or removed. A folder's watch is gone with it.
    Removed(PathBuf),
    /// Anything else that makes a scan worthwhile.
    Other,
}

/// The watches of one handler folder.
pub struct FolderWatcher {
    /// `None` if the system provides none. Then only regular scans find changes.
    watcher: Option<RecommendedWatcher>,
    folder: PathBuf,
    /// The absolute path of the folder.
    absolute: PathBuf,
    watched: HashMap<PathBuf, ScannedFolder>,
    has_complained: bool,
}

impl FolderWatcher {
    /// A watcher without watches. It calls `tell` on its own thread.
    pub fn new(folder: &Path, tell: impl Fn(FsEvent) + Send + 'static) -> Self {
        let absolute = std::path::absolute(folder).unwrap_or_else(|_| folder.to_owned());
        let (inside, shown) = (absolute.clone(), folder.to_owned());
        let handler = move |event: notify::Result<Event>| {
            // Events have absolute paths; ours begin with the folder as it was given.
            let ours = |path: &PathBuf| {
                path.strip_prefix(&inside).map_or_else(|_| path.clone(), |rest| shown.join(rest))
            };
            match event {
                Ok(event) => translate(&event, ours).into_iter().for_each(&tell),
                Err(_) => tell(FsEvent::Other),
            }
        };
        let mut watch = FolderWatcher {
            watcher: None,
            folder: folder.to_owned(),
            absolute,
            watched: HashMap::new(),
            has_complained: false,
        };
        match notify::recommended_watcher(handler) {
            Ok(watcher) => watch.watcher = Some(watcher),
            Err(error) => watch.complain(&error),
        }
        watch
    }

    /// Watches exactly these folders. Returns whether any of them is new: it may have changed
    /// before it was watched, so it has to be scanned again.
    pub fn follow(&mut self, folders: &[ScannedFolder]) -> bool {
        let wanted: HashMap<&Path, &ScannedFolder> =
            folders.iter().map(|folder| (folder.path.as_path(), folder)).collect();
        let is_gone = |path: &PathBuf, known: &ScannedFolder| {
            wanted.get(path.as_path()).is_none_or(|now| *now != known)
        };
        let gone: Vec<PathBuf> = self
            .watched
            .iter()
            .filter(|(path, known)| is_gone(path, known))
            .map(|(path, _)| path.clone())
            .collect();
        // Do this first, because a renamed folder has one watch under both names.
        for path in gone {
            self.unwatch(&path);
        }
        let mut has_new = false;
        for folder in folders {
            if self.watched.contains_key(&folder.path) {
                continue;
            }
            let absolute = self.absolute(&folder.path);
            let Some(watcher) = &mut self.watcher else { return false };
            match watcher.watch(&absolute, RecursiveMode::NonRecursive) {
                Ok(()) => {
                    has_new = true;
                    self.watched.insert(folder.path.clone(), folder.clone());
                }
                // The folder was deleted since the scan.
                Err(error) if matches!(error.kind, notify::ErrorKind::PathNotFound) => {}
                Err(error) => self.complain(&error),
            }
        }
        has_new
    }

    /// Removes the watches of a folder and all folders in it, so that [`FolderWatcher::follow`]
    /// makes new ones.
    pub fn forget(&mut self, path: &Path) {
        let lost: Vec<PathBuf> =
            self.watched.keys().filter(|watched| watched.starts_with(path)).cloned().collect();
        for path in lost {
            self.unwatch(&path);
        }
    }

    /// Blocks until all events that happened before this call have been reported. The watcher's
    /// thread reads the kernel's pending events before it handles this request.
    pub fn catch_up(&mut self) {
        if let Some(watcher) = &mut self.watcher {
            // The result only says whether the configuration has changed.
            drop(watcher.configure(notify::Config::default()));
        }
    }

    fn unwatch(&mut self, path: &Path) {
        if let Some(gone) = self.watched.remove(path) {
            // A folder has one watch for all its names.
            self.watched.retain(|_, it| (it.device, it.inode) != (gone.device, gone.inode));
        }
        let absolute = self.absolute(path);
        if let Some(watcher) = &mut self.watcher {
            // This fails if the folder was deleted, as its watch is gone then.
            drop(watcher.unwatch(&absolute));
        }
    }

    fn absolute(&self, path: &Path) -> PathBuf {
        path.strip_prefix(&self.folder)
            .map_or_else(|_| path.to_owned(), |it| self.absolute.join(it))
    }

    fn complain(&mut self, error: &notify::Error) {
        if std::mem::replace(&mut self.has_complained, true) {
            return;
        }
        let advice = match error.kind {
            notify::ErrorKind::MaxFilesWatch => {
                "; the kernel's limit is /proc/sys/fs/inotify/max_user_watches"
            }
            _ => "",
        };
        tracing::warn!(
            "changes in the handler folder are seen some seconds late: it cannot be watched \
             ({error}){advice}"
        );
    }
}

/// Translates an event of the system into events about handlers.
fn translate(event: &Event, ours: impl Fn(&PathBuf) -> PathBuf) -> Vec<FsEvent> {
    let files = |made: fn(PathBuf) -> FsEvent| {
        event.paths.iter().filter(|path| is_handler(path)).map(|path| made(ours(path))).collect()
    };
    if event.need_rescan() {
        return vec![FsEvent::Other];
    }
    match event.kind {
        EventKind::Access(AccessKind::Close(AccessMode::Write)) => files(FsEvent::Written),
        // Reading a file does not change it. The host itself does that.
        EventKind::Access(_) => Vec::new(),
        EventKind::Modify(ModifyKind::Data(_)) => files(FsEvent::Writing),
        EventKind::Modify(ModifyKind::Name(RenameMode::To)) => {
            let mut translated: Vec<FsEvent> = files(FsEvent::Written);
            // The path may also be a folder or a link.
            translated.extend(event.paths.iter().map(|path| FsEvent::Removed(ours(path))));
            translated
        }
        EventKind::Modify(ModifyKind::Name(RenameMode::From)) | EventKind::Remove(_) => {
            event.paths.iter().map(|path| FsEvent::Removed(ours(path))).collect()
        }
        // Both ends of the rename have been reported as events of their own.
        EventKind::Modify(ModifyKind::Name(RenameMode::Both)) => Vec::new(),
        _ => vec![FsEvent::Other],
    }
}

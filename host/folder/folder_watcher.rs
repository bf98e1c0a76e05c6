//! Being told that something happens in the handler folder.
//!
//! Owns the watches: one per folder, on exactly the folders that the last scan has read, so that
//! links and loops are the scan's matter alone. What it tells is a hint and never the truth: events
//! get lost, and some file systems have none.

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use notify::event::{AccessKind, AccessMode, EventKind, ModifyKind, RenameMode};
use notify::{Event, RecommendedWatcher, RecursiveMode, Watcher};

use super::scan::{ScannedFolder, is_handler};

/// What has happened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum FsEvent {
    /// Somebody is writing to this file.
    Writing(PathBuf),
    /// This file is whole, as far as one can tell: its writer has closed it, or it was moved here.
    Written(PathBuf),
    /// What has this name was moved or removed. If it was a folder, its watch went with it.
    Removed(PathBuf),
    /// Something else, so that the folder is worth a look.
    Other,
}

/// The watches of one handler folder.
pub struct FolderWatcher {
    /// None where the system gives none; then there are only the regular looks.
    watcher: Option<RecommendedWatcher>,
    folder: PathBuf,
    /// The same, from the root of the file system.
    absolute: PathBuf,
    watched: HashMap<PathBuf, ScannedFolder>,
    has_complained: bool,
}

impl FolderWatcher {
    /// Watches nothing yet. `tell` is called on a thread of the watcher's own.
    pub fn new(folder: &Path, tell: impl Fn(FsEvent) + Send + 'static) -> Self {
        let absolute = std::path::absolute(folder).unwrap_or_else(|_| folder.to_owned());
        let (inside, shown) = (absolute.clone(), folder.to_owned());
        let handler = move |event: notify::Result<Event>| {
            // The paths come from the root; ours begin as the folder was given.
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

    /// Watches exactly these folders. Whether any of them is new: what happened in it before is
    /// not known, so it has to be looked at again.
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
        // First, since a folder that was renamed has one watch under both names.
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
                // Deleted since.
                Err(error) if matches!(error.kind, notify::ErrorKind::PathNotFound) => {}
                Err(error) => self.complain(&error),
            }
        }
        has_new
    }

    /// Watches a folder, and all in it, anew when it is next followed.
    pub fn forget(&mut self, path: &Path) {
        let lost: Vec<PathBuf> =
            self.watched.keys().filter(|watched| watched.starts_with(path)).cloned().collect();
        for path in lost {
            self.unwatch(&path);
        }
    }

    /// Returns when everything has been told that had happened by now. (The watcher's thread reads
    /// what the kernel has for it before it comes to a question that was put to it later.)
    pub fn catch_up(&mut self) {
        if let Some(watcher) = &mut self.watcher {
            // The answer says whether this made a difference.
            drop(watcher.configure(notify::Config::default()));
        }
    }

    fn unwatch(&mut self, path: &Path) {
        if let Some(gone) = self.watched.remove(path) {
            // A folder has one watch, whatever its names.
            self.watched.retain(|_, it| (it.device, it.inode) != (gone.device, gone.inode));
        }
        let absolute = self.absolute(path);
        if let Some(watcher) = &mut self.watcher {
            // There is none any more where the folder was deleted.
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

/// What an event says about handlers.
fn translate(event: &Event, ours: impl Fn(&PathBuf) -> PathBuf) -> Vec<FsEvent> {
    let files = |made: fn(PathBuf) -> FsEvent| {
        event.paths.iter().filter(|path| is_handler(path)).map(|path| made(ours(path))).collect()
    };
    if event.need_rescan() {
        return vec![FsEvent::Other];
    }
    match event.kind {
        EventKind::Access(AccessKind::Close(AccessMode::Write)) => files(FsEvent::Written),
        // To read a file is not to change it; the host itself does so.
        EventKind::Access(_) => Vec::new(),
        EventKind::Modify(ModifyKind::Data(_)) => files(FsEvent::Writing),
        EventKind::Modify(ModifyKind::Name(RenameMode::To)) => {
            let mut told: Vec<FsEvent> = files(FsEvent::Written);
            // It may be a folder, or a link.
            told.extend(event.paths.iter().map(|path| FsEvent::Removed(ours(path))));
            told
        }
        EventKind::Modify(ModifyKind::Name(RenameMode::From)) | EventKind::Remove(_) => {
            event.paths.iter().map(|path| FsEvent::Removed(ours(path))).collect()
        }
        // Both ends of it have been told already.
        EventKind::Modify(ModifyKind::Name(RenameMode::Both)) => Vec::new(),
        _ => vec![FsEvent::Other],
    }
}

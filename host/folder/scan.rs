//! Scans the handler folder: finds the handlers with their routes, and the files that cannot be
//! handlers.
//!
//! Owns the walk and its bounds. Must not open a file, nor know what a guest is. Later steps check
//! whether a file is a module, and whether two files claim one route.

use std::ffi::{OsStr, OsString};
use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, bail};

use super::stamp;
use crate::registry::route::Pattern;
use crate::source::ContentVersion;

/// How many folders deep a file may be.
const DEPTH_MAX: usize = 32;

/// How many names of any kind are read in all. A folder given by mistake (`/`) must not keep the
/// host from starting.
const ENTRIES_MAX: usize = 100_000;

/// The result of a scan.
#[derive(Debug, Default)]
pub struct Scan {
    /// The handlers, sorted by path.
    pub found: Vec<HandlerFile>,
    /// Files and folders that cannot be used, in the order of the walk. Each deserves a line in the
    /// log; none stops the host.
    pub skipped: Vec<Skipped>,
    /// The folders that were read, the top one first.
    pub folders: Vec<ScannedFolder>,
    /// Files and folders that could not be examined. They may still be what they were before.
    pub unknown: Vec<PathBuf>,
}

/// A folder that was read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ScannedFolder {
    /// The path below the handler folder, which is written as it was given.
    pub path: PathBuf,
    /// With the inode, shows whether another folder has taken this path.
    pub device: u64,
    /// The inode number on the device.
    pub inode: u64,
}

/// A file that is a handler.
#[derive(Debug)]
pub struct HandlerFile {
    /// The route that its name defines.
    pub pattern: Pattern,
    /// The path below the handler folder, which is written as it was given.
    pub path: PathBuf,
    /// The handler's name: the path relative to the folder, with `/`, without extension.
    pub name: String,
    /// The version of the file at the time of the scan.
    pub version: ContentVersion,
}

/// A file or folder that seems meant for the host but cannot be used.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Skipped {
    /// The path below the handler folder, which is written as it was given.
    pub path: PathBuf,
    /// Why it cannot be used, and what to do.
    pub reason: String,
}

/// Lists the handlers in `folder` and in its subfolders. Follows links. Silently ignores hidden
/// names and other kinds of files. Blocks on the file system.
///
/// # Errors
/// The folder is missing, is not a folder, or cannot be read.
pub fn scan(folder: &Path) -> anyhow::Result<Scan> {
    const INSTEAD: &str = "name another one (`guesthouse serve DIR`) or run `guesthouse demo`";
    let shown = folder.display();
    let unreadable = || format!("the folder `{shown}` cannot be read: give access, {INSTEAD}");
    match fs::metadata(folder) {
        Ok(metadata) if metadata.is_dir() => {}
        Ok(_) => bail!("`{shown}` is not a folder: put the handlers in a folder, {INSTEAD}"),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            bail!("there is no folder `{shown}`: create it, {INSTEAD}")
        }
        Err(error) => return Err(error).with_context(unreadable),
    }
    let mut walk = Walk::default();
    walk.record_folder(folder);
    let names = walk.names(folder).with_context(unreadable)?;
    walk.inside.push(fs::canonicalize(folder).unwrap_or_else(|_| folder.to_owned()));
    walk.entries(folder, "", names);
    Ok(walk.scan)
}

#[derive(Default)]
struct Walk {
    scan: Scan,
    /// How many names were read so far.
    entries: usize,
    /// The real paths of the folders that the walk is in, to detect links that lead back.
    inside: Vec<PathBuf>,
}

impl Walk {
    /// Records a folder before it is read, so that changes during the read are noticed.
    fn record_folder(&mut self, folder: &Path) {
        if let Ok(about) = fs::metadata(folder) {
            let (device, inode) = (about.dev(), about.ino());
            self.scan.folders.push(ScannedFolder { path: folder.to_owned(), device, inode });
        }
    }

    /// The names in `folder`, sorted, without hidden ones. Above [`ENTRIES_MAX`], only those that
    /// the file system lists first.
    fn names(&mut self, folder: &Path) -> io::Result<Vec<OsString>> {
        let mut names = Vec::new();
        for entry in fs::read_dir(folder)? {
            if self.entries > ENTRIES_MAX {
                break;
            }
            self.entries += 1;
            if self.entries > ENTRIES_MAX {
                self.skip(
                    folder,
                    format!(
                        "there are more than {ENTRIES_MAX} names in the handler folder, and the \
                         ones from here on are not served: move what is no handler elsewhere"
                    ),
                );
                break;
            }
            let name = entry?.file_name();
            if !name.as_encoded_bytes().starts_with(b".") {
                names.push(name);
            }
        }
        names.sort();
        Ok(names)
    }

    /// Walks the entries of `folder`. `prefix` goes before the handlers' names: it is empty at the
    /// top, and else ends with a slash.
    fn entries(&mut self, folder: &Path, prefix: &str, names: Vec<OsString>) {
        for name in names {
            let path = folder.join(&name);
            // This follows links.
            match fs::metadata(&path) {
                Ok(metadata) if metadata.is_dir() => self.folder(&path, prefix, &name),
                Ok(metadata) => self.file(path, prefix, &metadata),
                // A link that leads nowhere counts as a missing file.
                Err(error) if error.kind() != io::ErrorKind::NotFound => {
                    self.unknown(&path, format!("it cannot be read: {error}"));
                }
                Err(error) if is_handler(&path) => {
                    self.skip(&path, format!("it cannot be read: {error}"));
                }
                Err(_) => {}
            }
        }
    }

    fn folder(&mut self, path: &Path, prefix: &str, name: &OsStr) {
        let Some(name) = name.to_str() else {
            return self.skip(path, "its name is not UTF-8: rename the folder".into());
        };
        if self.inside.len() > DEPTH_MAX {
            let reason = format!("it is more than {DEPTH_MAX} folders deep: move it further up");
            return self.skip(path, reason);
        }
        let real = match fs::canonicalize(path) {
            Ok(real) => real,
            Err(error) => {
                return self.unknown(path, format!("the folder cannot be read: {error}"));
            }
        };
        if self.inside.contains(&real) {
            let reason = "it is a link to a folder that it is in: remove the link";
            return self.skip(path, reason.into());
        }
        self.record_folder(path);
        match self.names(path) {
            Ok(names) => {
                self.inside.push(real);
                self.entries(path, &format!("{prefix}{name}/"), names);
                self.inside.pop();
            }
            Err(error) => self.unknown(path, format!("the folder cannot be read: {error}")),
        }
    }

    fn file(&mut self, path: PathBuf, prefix: &str, about: &fs::Metadata) {
        if ending(&path).is_some_and(|it| it.eq_ignore_ascii_case("cwasm")) {
            let reason = "a precompiled module is native code that nothing can check, so it is \
                          never loaded from here: put the .wasm file in its place";
            return self.skip(&path, reason.into());
        }
        if let Some(reason) = misnamed(&path) {
            return self.skip(&path, reason);
        }
        if !is_handler(&path) {
            return;
        }
        if !about.is_file() {
            // Opening a pipe would block forever.
            return self.skip(&path, "it is not a regular file".into());
        }
        let Some(stem) = path.file_stem().and_then(|stem| stem.to_str()) else {
            return self.skip(&path, "its name is not UTF-8: rename the file".into());
        };
        let name = format!("{prefix}{stem}");
        match Pattern::parse(&name) {
            Ok(pattern) => {
                self.scan.found.push(HandlerFile {
                    pattern,
                    path,
                    name,
                    version: stamp::of(about),
                });
            }
            Err(error) => self.skip(&path, error.to_string()),
        }
    }

    fn unknown(&mut self, path: &Path, reason: String) {
        self.scan.unknown.push(path.to_owned());
        self.skip(path, reason);
    }

    fn skip(&mut self, path: &Path, reason: String) {
        self.scan.skipped.push(Skipped { path: path.to_owned(), reason });
    }
}

/// The extensions of handlers.
const ENDINGS: [&str; 2] = ["wasm", "wat"];

/// Whether a file's name has the extension of a handler.
pub fn is_handler(path: &Path) -> bool {
    ending(path).is_some_and(|ending| ENDINGS.contains(&ending))
}

/// If the extension differs from a handler's only by case: why the file is not a handler. Serving
/// it would make it compete with a file of the same name in lower case.
pub fn misnamed(path: &Path) -> Option<String> {
    let ending = ending(path)?;
    let meant = ENDINGS.into_iter().find(|it| ending.eq_ignore_ascii_case(it))?;
    let reason = || format!("it ends in .{ending}, and handlers end in .{meant}: rename it");
    (ending != meant).then(reason)
}

fn ending(path: &Path) -> Option<&str> {
    path.extension().and_then(OsStr::to_str)
}

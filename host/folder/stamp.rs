//! Which version of a file there is, told without reading it.
//!
//! Owns what the marks of such a version mean. They are compared for being equal only, so that it
//! does not matter how right the clock is.

use std::fs::{self, Metadata};
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use crate::source::ContentVersion;

/// The version that a file has by what is known of it.
pub fn of(about: &Metadata) -> ContentVersion {
    // Of the two times, an owner can set that of the contents, and nobody that of the rest.
    let modified = [about.mtime(), about.mtime_nsec()].map(i64::cast_unsigned);
    let changed = [about.ctime(), about.ctime_nsec()].map(i64::cast_unsigned);
    let marks = [about.dev(), about.ino(), modified[0], modified[1], changed[0], changed[1]];
    ContentVersion::new(marks, about.size())
}

/// The version of the file that a path leads to now.
///
/// # Errors
/// There is none, or it cannot be looked at.
pub fn read(path: &Path) -> io::Result<ContentVersion> {
    Ok(of(&fs::metadata(path)?))
}

/// Names the file itself, whatever its name and its contents: its device and its inode.
pub fn file_id(version: ContentVersion) -> (u64, u64) {
    let [device, inode, ..] = version.fingerprint_words();
    (device, inode)
}

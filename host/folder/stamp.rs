//! Determines the version of a file from its metadata, without reading it.
//!
//! Owns what the words of such a fingerprint mean. They are only compared for equality, so a wrong
//! clock does not matter.

use std::fs::{self, Metadata};
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use crate::source::ContentVersion;

/// The version of a file with this metadata.
pub fn of(metadata: &Metadata) -> ContentVersion {
    // A file's owner can set the modification time, but nobody can set the change time.
    let modified = [metadata.mtime(), metadata.mtime_nsec()].map(i64::cast_unsigned);
    let changed = [metadata.ctime(), metadata.ctime_nsec()].map(i64::cast_unsigned);
    let fingerprint =
        [metadata.dev(), metadata.ino(), modified[0], modified[1], changed[0], changed[1]];
    ContentVersion::new(fingerprint, metadata.size())
}

/// The version of the file that is at a path now.
///
/// # Errors
/// There is no file, or its metadata cannot be read.
pub fn read(path: &Path) -> io::Result<ContentVersion> {
    Ok(of(&fs::metadata(path)?))
}

/// The device and inode of the file, which identify it whatever its name and contents are.
pub fn file_id(version: ContentVersion) -> (u64, u64) {
    let [device, inode, ..] = version.fingerprint_words();
    (device, inode)
}

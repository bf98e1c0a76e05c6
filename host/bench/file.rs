//! Reads files that the user has named, whole and within bounds.
//!
//! A file may be a pipe; then reading waits until the pipe ends. Must not know what is in a file.

#[cfg(test)]
mod tests;

use std::fs::File;
use std::io::{self, Read as _};
use std::path::Path;

/// All bytes of a file. Blocks until it ends.
///
/// # Errors
/// The file has more than `bytes_max` bytes, or cannot be read.
pub fn read(path: &Path, bytes_max: u64) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    File::open(path)?.take(bytes_max + 1).read_to_end(&mut bytes)?;
    let len = bytes.len();
    if len as u64 > bytes_max {
        return Err(io::Error::other(format!("it has {len} bytes or more, which is too long")));
    }
    Ok(bytes)
}

/// All of a file as text. Blocks until the file ends.
///
/// # Errors
/// The file has more than `bytes_max` bytes, is not UTF-8, or cannot be read.
pub fn text(path: &Path, bytes_max: u64) -> io::Result<String> {
    String::from_utf8(read(path, bytes_max)?)
        .map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))
}

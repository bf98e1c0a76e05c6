//! Files that the user has named: read whole, within bounds.
//!
//! One of them may be a pipe, and is waited for. Must not know what is in a file.

#[cfg(test)]
mod tests;

use std::fs::File;
use std::io::{self, Read as _};
use std::path::Path;

/// All that comes from a file.
///
/// # Errors
/// There is more than `bytes_max`, or it cannot be read.
pub fn read(path: &Path, bytes_max: u64) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    File::open(path)?.take(bytes_max + 1).read_to_end(&mut bytes)?;
    let len = bytes.len();
    if len as u64 > bytes_max {
        return Err(io::Error::other(format!("it has {len} bytes or more, which is too long")));
    }
    Ok(bytes)
}

/// The same as text.
///
/// # Errors
/// There is more than `bytes_max`, it is not UTF-8, or it cannot be read.
pub fn text(path: &Path, bytes_max: u64) -> io::Result<String> {
    String::from_utf8(read(path, bytes_max)?)
        .map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))
}

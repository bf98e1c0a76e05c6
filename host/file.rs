//! Reads files whose names or contents others control.
//!
//! Owns the bounds: it reads regular files only, no further than their stated length, and never
//! blocks on one. Must not know what is in a file.

use std::fmt;
use std::fs::{File, OpenOptions};
use std::io::{self, Read};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use rustix::fs::OFlags;

/// The kernel's files about itself and its processes are shorter than this on any machine.
const KERNEL_BYTES_MAX: u64 = 64 << 20;

/// Why a file was not read.
#[derive(Debug)]
pub enum FileError {
    /// The system could not open or read it.
    Io(io::Error),
    /// It is a folder, a pipe, a socket or a device.
    NotRegular,
    /// It is longer than the limit: it has this many bytes or more.
    TooLong(u64),
}

impl From<io::Error> for FileError {
    fn from(error: io::Error) -> Self {
        FileError::Io(error)
    }
}

impl std::error::Error for FileError {}

impl fmt::Display for FileError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            FileError::Io(error) => error.fmt(f),
            FileError::NotRegular => f.write_str("not a regular file"),
            FileError::TooLong(len) => write!(f, "it has {len} bytes or more, which is too long"),
        }
    }
}

/// Reads all bytes of a regular file, at most `bytes_max`. Follows links.
///
/// # Errors
/// It is not a regular file, has more than `bytes_max` bytes, or cannot be read.
pub fn read(path: &Path, bytes_max: u64) -> Result<Vec<u8>, FileError> {
    let (file, len) = open(path)?;
    if len > bytes_max {
        return Err(FileError::TooLong(len));
    }
    let mut bytes = Vec::with_capacity(usize::try_from(len).unwrap_or(0));
    // Never read past the stated length. The kernel's own files state a length of zero; some of
    // them have no end, and reading some takes data away that another process waits for.
    file.take(len).read_to_end(&mut bytes)?;
    Ok(bytes)
}

/// The first `LEN` bytes of a regular file; `None` if it is shorter or cannot be read.
pub fn head<const LEN: usize>(path: &Path) -> Option<[u8; LEN]> {
    let (mut file, len) = open(path).ok()?;
    if len < LEN as u64 {
        return None;
    }
    let mut bytes = [0; LEN];
    file.read_exact(&mut bytes).ok()?;
    Some(bytes)
}

/// Reads one of the kernel's text files, below `/proc` or `/sys`.
///
/// # Errors
/// It cannot be read, is not UTF-8, or has more than 64 MiB.
pub fn kernel_text(path: impl AsRef<Path>) -> io::Result<String> {
    let mut text = String::new();
    File::open(path)?.take(KERNEL_BYTES_MAX + 1).read_to_string(&mut text)?;
    if text.len() as u64 > KERNEL_BYTES_MAX {
        return Err(io::Error::other(FileError::TooLong(text.len() as u64)));
    }
    Ok(text)
}

/// Opens a regular file and returns it with its length in bytes.
fn open(path: &Path) -> Result<(File, u64), FileError> {
    // Opening a device can have side effects, so look before opening.
    if !std::fs::metadata(path)?.is_file() {
        return Err(FileError::NotRegular);
    }
    // The path may name another file by now. Opening a pipe would block, and opening a terminal
    // would make it the controlling terminal: these flags prevent both.
    let flags = OFlags::NONBLOCK | OFlags::NOCTTY;
    let file = OpenOptions::new().read(true).custom_flags(flags.bits() as i32).open(path)?;
    let about = file.metadata()?;
    if !about.is_file() {
        return Err(FileError::NotRegular);
    }
    Ok((file, about.len()))
}

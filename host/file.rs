//! Reading files whose name or contents are under the control of others.
//!
//! Owns the bounds: a file is read only if it is a regular one, no further than it says that it
//! reaches, and without ever waiting for it. Must not know what is in a file.

use std::fmt;
use std::fs::{File, OpenOptions};
use std::io::{self, Read};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use rustix::fs::OFlags;

/// What the kernel says about itself and its processes is shorter, on any machine.
const KERNEL_BYTES_MAX: u64 = 64 << 20;

/// Why a file was not read.
#[derive(Debug)]
pub enum FileError {
    Io(io::Error),
    /// A folder, a pipe, a socket or a device.
    NotRegular,
    /// It has more bytes than are read; as many as these, at least.
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

/// All bytes of a regular file. Links are followed.
///
/// # Errors
/// It is not a regular file, has more than `bytes_max` bytes, or cannot be read.
pub fn read(path: &Path, bytes_max: u64) -> Result<Vec<u8>, FileError> {
    let (file, len) = open(path)?;
    if len > bytes_max {
        return Err(FileError::TooLong(len));
    }
    let mut bytes = Vec::with_capacity(usize::try_from(len).unwrap_or(0));
    // No further than it says. The kernel's own files say that they are empty; some of them have
    // no end, and to read one of them takes from it what is there for somebody else.
    file.take(len).read_to_end(&mut bytes)?;
    Ok(bytes)
}

/// The first bytes of a regular file; `None` where there are not so many, or it cannot be read.
pub fn head<const LEN: usize>(path: &Path) -> Option<[u8; LEN]> {
    let (mut file, len) = open(path).ok()?;
    if len < LEN as u64 {
        return None;
    }
    let mut bytes = [0; LEN];
    file.read_exact(&mut bytes).ok()?;
    Some(bytes)
}

/// A text of the kernel's, below `/proc` or `/sys`.
///
/// # Errors
/// There is none, or it is longer than any.
pub fn kernel_text(path: impl AsRef<Path>) -> io::Result<String> {
    let mut text = String::new();
    File::open(path)?.take(KERNEL_BYTES_MAX + 1).read_to_string(&mut text)?;
    if text.len() as u64 > KERNEL_BYTES_MAX {
        return Err(io::Error::other(FileError::TooLong(text.len() as u64)));
    }
    Ok(text)
}

/// Opens a regular file; also says how long it is.
fn open(path: &Path) -> Result<(File, u64), FileError> {
    // To open a device can have an effect.
    if !std::fs::metadata(path)?.is_file() {
        return Err(FileError::NotRegular);
    }
    // Another one may have come in its place: a pipe would be waited for, a terminal taken.
    let flags = OFlags::NONBLOCK | OFlags::NOCTTY;
    let file = OpenOptions::new().read(true).custom_flags(flags.bits() as i32).open(path)?;
    let about = file.metadata()?;
    if !about.is_file() {
        return Err(FileError::NotRegular);
    }
    Ok((file, about.len()))
}

//! Writes many small guests for a demo at full size: all different, and one in a hundred hostile.
//!
//! Owns what is in their folder. `stranger.rs` makes the good ones. Must not know how guests are
//! served.

mod stranger;

use std::fs;
use std::io;
use std::path::Path;

use self::stranger::Stranger;
use anyhow::{Context, Result, bail};

use crate::file::{self, FileError};

include!(concat!(env!("OUT_DIR"), "/hostile_guests.rs"));

/// Raise this whenever the guest of a number changes, so that folders are written again.
const VERSION: u32 = 2;
/// The file that marks a folder as written by [`write()`], and says what is in it. It is hidden,
/// so that no scan takes it for a handler.
const MARKER: &str = ".guesthouse-strangers";
const MARKER_BYTES_MAX: u64 = 4096;
/// The contents of the marker until everything is written.
const UNFINISHED: &str = "unfinished\n";
const GOOD_FOLDER: &str = "stranger";
const HOSTILE_FOLDER: &str = "hostile";
/// The last of this many guests is hostile.
const HOSTILE_EVERY: usize = 100;

/// Writes `count` guests into `folder`, which is created if it is missing. Their names are like
/// `stranger/00042.wasm`. Every hundredth is one of the hostile kinds in turn, such as
/// `hostile/00199-divide.wat`. If the same guests are already there, writes nothing; replaces
/// other guests that this function wrote. Blocks on the file system.
///
/// # Errors
/// The folder contains files that this function did not write, or it cannot be written.
pub fn write(folder: &Path, count: usize) -> Result<()> {
    fs::create_dir_all(folder).with_context(cannot("make the folder", folder))?;
    let marker = folder.join(MARKER);
    let contents = format!("version {VERSION}\nhostile {:016x}\ncount {count}\n", hostile_hash());
    match file::read(&marker, MARKER_BYTES_MAX) {
        Ok(found) if found == contents.as_bytes() => return Ok(()),
        Ok(_) => {}
        Err(FileError::Io(error)) if error.kind() == io::ErrorKind::NotFound => {
            require_empty(folder)?;
        }
        Err(error) => return Err(error).with_context(cannot("read", &marker)),
    }
    // If this is interrupted from here on, the folder is marked as ours but unfinished.
    put(&marker, UNFINISHED.as_bytes())?;
    for name in [GOOD_FOLDER, HOSTILE_FOLDER] {
        renew_folder(&folder.join(name))?;
    }
    for index in 0..count {
        let (name, bytes) = guest(index)?;
        put(&folder.join(name), &bytes)?;
    }
    put(&marker, contents.as_bytes())
}

fn is_hostile(index: usize) -> bool {
    index % HOSTILE_EVERY == HOSTILE_EVERY - 1
}

/// The file of guest number `index`: its name below the folder, and its bytes.
fn guest(index: usize) -> Result<(String, Vec<u8>)> {
    if !is_hostile(index) {
        return Ok((format!("{GOOD_FOLDER}/{index:05}.wasm"), Stranger::new(index).encode()));
    }
    let mut kinds = HOSTILE_GUESTS.iter().cycle();
    let kind = kinds.nth(index / HOSTILE_EVERY);
    let (kind, text) = kind.context("this program was built without hostile handlers")?;
    // The comment makes the file unique. At the front it can never change what follows.
    let text = format!(";; Guest {index:05}.\n{text}");
    Ok((format!("{HOSTILE_FOLDER}/{index:05}-{kind}.wat"), text.into_bytes()))
}

/// A hash over all hostile guests (FNV-1a, which suffices because nobody attacks it).
fn hostile_hash() -> u64 {
    let texts = HOSTILE_GUESTS.iter().flat_map(|(kind, text)| [kind, text]);
    texts.flat_map(|text| text.bytes().chain([0])).fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3)
    })
}

fn require_empty(folder: &Path) -> Result<()> {
    let mut entries = fs::read_dir(folder).with_context(cannot("read the folder", folder))?;
    if entries.next().is_some() {
        bail!(
            "the folder `{}` is not empty, and its files are not handlers that this program wrote: \
             name another folder, which need not exist",
            folder.display()
        );
    }
    Ok(())
}

/// Replaces a folder by an empty one.
fn renew_folder(folder: &Path) -> Result<()> {
    match fs::remove_dir_all(folder) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            Err(error).with_context(cannot("remove the old handlers in", folder))
        }
        _ => fs::create_dir(folder).with_context(cannot("make the folder", folder)),
    }
}

fn put(path: &Path, bytes: &[u8]) -> Result<()> {
    fs::write(path, bytes).with_context(cannot("write", path))
}

fn cannot(what: &str, path: &Path) -> impl FnOnce() -> String {
    move || format!("cannot {what} `{}`", path.display())
}

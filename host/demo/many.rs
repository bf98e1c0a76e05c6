//! Many small guests, for a demo at full size: handlers of strangers, no two alike, and one in a
//! hundred that misbehaves.
//!
//! Owns what is in their folder; `stranger.rs` makes a good one. Must not know how guests are
//! served.

mod stranger;

use std::fs;
use std::io;
use std::path::Path;

use self::stranger::Stranger;
use anyhow::{Context, Result, bail};

use crate::file::{self, FileError};

include!(concat!(env!("OUT_DIR"), "/hostile_guests.rs"));

/// Whoever changes what a number stands for raises this, so that folders are written anew.
const VERSION: u32 = 2;
/// Says that a folder is ours, and what is in it. Hidden, so that it is not taken for a guest.
const MARKER: &str = ".guesthouse-strangers";
const MARKER_BYTES_MAX: u64 = 4096;
/// What the marker says until everything is written.
const UNFINISHED: &str = "unfinished\n";
const GOOD_FOLDER: &str = "stranger";
const HOSTILE_FOLDER: &str = "hostile";
/// The last of so many guests is hostile.
const HOSTILE_EVERY: usize = 100;

/// Writes `count` guests into `folder`, which is made if there is none: `stranger/00042.wasm`, and
/// at every hundredth number one of the hostile kinds in turn, as in `hostile/00199-divide.wat`. If
/// the same guests are there already, nothing is written; others that this function wrote are
/// replaced. Blocks on the file system.
///
/// # Errors
/// The folder holds files of others, or cannot be written.
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
    // What is interrupted from here on is ours still, and not taken for finished.
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
    let (kind, text) = kind.context("this program was built without hostile guests")?;
    // In front, where a comment changes nothing whatever follows it.
    let text = format!(";; Guest {index:05}.\n{text}");
    Ok((format!("{HOSTILE_FOLDER}/{index:05}-{kind}.wat"), text.into_bytes()))
}

/// Changes whenever a hostile guest does (FNV-1a, for want of anything to guard against).
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

/// Leaves an empty folder, whatever was in it.
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

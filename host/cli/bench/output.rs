//! Writes the results of `guesthouse bench` to files and folders.

use std::fs;
use std::path::Path;

use anyhow::{Context as _, bail};

/// Makes a folder for results.
pub fn make_empty(dir: &Path) -> anyhow::Result<()> {
    fs::create_dir_all(dir).with_context(|| format!("cannot make {}", dir.display()))?;
    if fs::read_dir(dir).is_ok_and(|mut entries| entries.next().is_some()) {
        bail!("{} is not empty: name a new folder with --out", dir.display());
    }
    Ok(())
}

/// What `--out` leaves of a run.
pub fn write_run(dir: &Path, text: &str, raw: &str) -> anyhow::Result<()> {
    write(&dir.join("summary.txt"), text)?;
    write(&dir.join("raw.csv"), raw)
}

pub fn write(path: &Path, text: &str) -> anyhow::Result<()> {
    fs::write(path, text).with_context(|| format!("cannot write {}", path.display()))
}

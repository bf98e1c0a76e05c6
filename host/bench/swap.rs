//! Copies versions of a file over one another while a server is measured.
//!
//! As a careful user does: a copy beside the file, and a rename. Owns its thread.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{self, RecvTimeoutError, Sender};
use std::thread::JoinHandle;

use anyhow::Context as _;

use super::process::Server;
use super::suite::Versions;

/// Swaps until it is stopped.
pub struct Swapper {
    stop: Sender<()>,
    thread: JoinHandle<anyhow::Result<u64>>,
}

impl Swapper {
    pub fn start(versions: &Versions, server: Option<&Server>) -> anyhow::Result<Self> {
        let path = target_path(versions, server);
        let versions = versions.clone();
        let (stop, stopped) = mpsc::channel();
        let thread = std::thread::spawn(move || {
            let mut swaps = 0;
            loop {
                replace_file(&versions.files[swaps as usize % 2], &path)?;
                swaps += 1;
                match stopped.recv_timeout(versions.every) {
                    Err(RecvTimeoutError::Timeout) => {}
                    _ => return Ok(swaps),
                }
            }
        });
        Ok(Self { stop, thread })
    }

    /// How many there were.
    pub fn stop(self) -> anyhow::Result<u64> {
        // It may have ended by itself, with an error.
        let _ = self.stop.send(());
        self.thread.join().expect("the swapping thread does not panic")
    }
}

/// Where the versions go: below the folder of the server, or where the path says.
pub fn target_path(versions: &Versions, server: Option<&Server>) -> PathBuf {
    match server {
        Some(server) => server.dir().join(&versions.path),
        None => versions.path.clone(),
    }
}

/// Copies `from` over `to`, which has either all of it or nothing.
pub fn replace_file(from: &Path, to: &Path) -> anyhow::Result<()> {
    let beside = to.with_extension("new");
    fs::copy(from, &beside)
        .with_context(|| format!("cannot copy {} to {}", from.display(), beside.display()))?;
    fs::rename(&beside, to).with_context(|| format!("cannot rename to {}", to.display()))
}

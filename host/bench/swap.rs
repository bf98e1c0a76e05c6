//! Replaces a file with one version after the other while a server is measured.
//!
//! Writes a version beside the file and renames it, as a careful user does. If asked to, writes
//! every second version in place, as `cp` does. Owns the thread that does so.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{self, RecvTimeoutError, Sender};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};

use super::load::Request;
use super::probe;
use super::response::body_hash;
use super::stream::Destination;
use super::suite::{Pace, Version, Versions};
use super::target::Target;

/// A version that is not served within this time never will be.
pub const SERVED_WITHIN: Duration = Duration::from_secs(30);
/// How long the first version may take. It may be in place already, so that nothing changes.
const THERE_WITHIN: Duration = Duration::from_secs(3);
/// The word in a template that becomes the version's number.
const NUMBER: &str = "VERSION";

/// A thread that replaces a file until it is stopped.
pub struct Swapper {
    stop: Sender<()>,
    /// Nobody waits for the last version any more.
    is_over: Arc<AtomicBool>,
    thread: JoinHandle<anyhow::Result<u64>>,
}

impl Swapper {
    /// Starts the thread. `learned` has the hashes of the versions' answers, in the order of the
    /// versions. Only the pace [`Pace::Seen`] needs them.
    pub fn start(
        versions: &Versions,
        target: &Target,
        request: &Request,
        learned: Vec<u64>,
    ) -> Self {
        let path = target_path(versions, target);
        let (versions, request) = (versions.clone(), request.clone());
        let destination = target.destination.clone();
        let (stop, stopped) = mpsc::channel();
        let is_over = Arc::new(AtomicBool::new(false));
        let seen_in_vain = Arc::clone(&is_over);
        let thread = std::thread::spawn(move || {
            let mut swaps: u64 = 0;
            loop {
                let number = swaps as usize % versions.versions.len();
                let is_in_place = versions.in_place && swaps % 2 == 1;
                replace_file(&versions.versions[number], &path, is_in_place)?;
                swaps += 1;
                let pause = match versions.pace {
                    Pace::Every(pause) => pause,
                    Pace::Seen => {
                        let expected = learned.get(number).copied();
                        wait_until_seen(&destination, &request, expected, &seen_in_vain)
                            .with_context(|| format!("swap {swaps}"))?;
                        Duration::ZERO
                    }
                };
                match stopped.recv_timeout(pause) {
                    Err(RecvTimeoutError::Timeout) => {}
                    _ => return Ok(swaps),
                }
            }
        });
        Self { stop, is_over, thread }
    }

    /// Stops the thread, and returns how often it has replaced the file. Blocks until the last
    /// replacement is done.
    ///
    /// # Errors
    /// The file could not be replaced, or a version was not served in time.
    pub fn stop(self) -> anyhow::Result<u64> {
        self.is_over.store(true, Ordering::Relaxed);
        // The thread may have ended by itself, with an error.
        let _ = self.stop.send(());
        self.thread.join().expect("the swapping thread does not panic")
    }
}

/// Waits for an answer whose body has this hash.
fn wait_until_seen(
    destination: &Destination,
    request: &Request,
    expected: Option<u64>,
    stop: &AtomicBool,
) -> anyhow::Result<()> {
    let until = Instant::now() + SERVED_WITHIN;
    let is_new = |it: &probe::ProbeResponse| Some(body_hash(&it.body)) == expected;
    let is_seen = probe::ask_until(destination, request, until, stop, is_new);
    if !is_seen && !stop.load(Ordering::Relaxed) {
        bail!("its version is not served after {SERVED_WITHIN:?}");
    }
    Ok(())
}

/// Puts every version into place once, and returns the hashes of their answers, in the order of the
/// versions. Versions that follow each other have to answer with different bodies.
///
/// # Errors
/// A version is not served in time, or answers with the same body as the one before it.
pub fn learn(
    versions: &Versions,
    target: &Target,
    request: &Request,
    stop: &AtomicBool,
) -> anyhow::Result<Vec<u64>> {
    let path = target_path(versions, target);
    let mut learned: Vec<u64> = Vec::new();
    let first = probe::ask(&target.destination, request, SERVED_WITHIN, stop)?;
    let mut last = body_hash(&first.body);
    // The first version may be in place already, so it comes last.
    let count = versions.versions.len();
    for number in (1..count).chain([0]) {
        replace_file(&versions.versions[number], &path, false)?;
        // The round before may have left this one in place.
        let may_be_there = learned.is_empty();
        let within = if may_be_there { THERE_WITHIN } else { SERVED_WITHIN };
        let until = Instant::now() + within;
        let found = std::cell::Cell::new(last);
        let is_new = |it: &probe::ProbeResponse| {
            found.set(body_hash(&it.body));
            it.status < 400 && found.get() != last
        };
        let is_seen = probe::ask_until(&target.destination, request, until, stop, is_new);
        if !is_seen && !may_be_there {
            bail!(
                "version {number} is not served after {within:?}, or answers what the one before \
                 it does: is `{NUMBER}` in the template?"
            );
        }
        last = found.get();
        learned.push(last);
    }
    learned.rotate_right(1);
    Ok(learned)
}

/// The path of the file that is replaced. If this program has started the server, a relative path
/// begins at the server's folder.
pub fn target_path(versions: &Versions, target: &Target) -> PathBuf {
    match target.server {
        Some(server) => server.dir().join(&versions.path),
        None => versions.path.clone(),
    }
}

/// Replaces the file `to` with a version. A rename replaces it at once, so that a reader sees all
/// of the old version or all of the new one. With `in_place`, the file is written over instead.
///
/// # Errors
/// The version cannot be read, or the file cannot be written.
pub fn replace_file(version: &Version, to: &Path, in_place: bool) -> anyhow::Result<()> {
    let content = match version {
        Version::File(path) => fs::read(path),
        Version::Template { path, number } => fs::read_to_string(path)
            .map(|text| text.replace(NUMBER, &format!("{number:05}")).into_bytes()),
    };
    let content = content.with_context(|| format!("cannot read {}", version.path().display()))?;
    let named = || format!("cannot write {}", to.display());
    if in_place {
        return fs::write(to, &content).with_context(named);
    }
    let beside = to.with_extension("new");
    fs::write(&beside, &content).with_context(named)?;
    fs::rename(&beside, to).with_context(named)
}

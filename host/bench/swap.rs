//! Puts versions of a file over one another while a server is measured.
//!
//! As a careful user does, by a copy beside the file and a rename; or in place in turn with that,
//! as `cp` does. Owns its thread.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicBool;
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

/// A version that is not served by then never will be.
pub const SERVED_WITHIN: Duration = Duration::from_secs(30);
/// What stands for a version's number in a template.
const NUMBER: &str = "VERSION";

/// Swaps until it is stopped.
pub struct Swapper {
    stop: Sender<()>,
    thread: JoinHandle<anyhow::Result<u64>>,
}

impl Swapper {
    /// Begins to swap. `learned` are the hashes of what the versions answer, which a pace of
    /// [`Pace::Seen`] needs.
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
                        wait_until_seen(&destination, &request, expected)
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
        Self { stop, thread }
    }

    /// How many there were.
    pub fn stop(self) -> anyhow::Result<u64> {
        // It may have ended by itself, with an error.
        let _ = self.stop.send(());
        self.thread.join().expect("the swapping thread does not panic")
    }
}

/// Waits for an answer whose body has this hash.
fn wait_until_seen(
    destination: &Destination,
    request: &Request,
    expected: Option<u64>,
) -> anyhow::Result<()> {
    let never = AtomicBool::new(false);
    let until = Instant::now() + SERVED_WITHIN;
    let is_new = |it: &probe::ProbeResponse| Some(body_hash(&it.body)) == expected;
    if !probe::ask_until(destination, request, until, &never, is_new) {
        bail!("its version is not served after {SERVED_WITHIN:?}");
    }
    Ok(())
}

/// Has every version served once: the hashes of what they answer, in their order. No two that
/// follow each other answer the same.
///
/// # Errors
/// A version is not served.
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
    // The first may be what is there already, so it comes last.
    let count = versions.versions.len();
    for number in (1..count).chain([0]) {
        replace_file(&versions.versions[number], &path, false)?;
        let until = Instant::now() + SERVED_WITHIN;
        let found = std::cell::Cell::new(last);
        let is_new = |it: &probe::ProbeResponse| {
            found.set(body_hash(&it.body));
            it.status < 400 && found.get() != last
        };
        if !probe::ask_until(&target.destination, request, until, stop, is_new) {
            bail!("version {number} is not served after {SERVED_WITHIN:?}");
        }
        last = found.get();
        learned.push(last);
    }
    learned.rotate_right(1);
    Ok(learned)
}

/// Where the versions go: below the folder of the server, or where the path says.
pub fn target_path(versions: &Versions, target: &Target) -> PathBuf {
    match target.server {
        Some(server) => server.dir().join(&versions.path),
        None => versions.path.clone(),
    }
}

/// Puts a version over `to`: at once, so that the file has either all of it or nothing; or in
/// place.
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

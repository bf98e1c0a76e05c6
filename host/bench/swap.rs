//! Replaces a file with one version after the other while a server is measured.
//!
//! Writes a version beside the file and renames it, as a careful user does. If asked to, writes
//! every second version in place, as `cp` does. Owns the thread that does so.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, Sender};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};

use super::probe;
use super::published_versions::PublishedVersions;
use super::reading::{Errors, Reading};
use super::response::body_hash;
use super::stream::Destination;
use super::suite::{Pace, Stream, Version, Versions};
use super::target::Target;

/// A version that is not served within this time never will be.
pub const SERVED_WITHIN: Duration = Duration::from_secs(30);
/// How often a swapper that is to stop looks whether it has been interrupted.
const LOOK_EVERY: Duration = Duration::from_millis(5);
/// The word in a template that becomes the version's number.
const NUMBER: &str = "VERSION";

/// A thread that replaces a file until it is stopped.
pub struct Swapper {
    stop: Sender<()>,
    /// Nobody waits for any version any more.
    is_interrupted: Arc<AtomicBool>,
    /// How often the file has been replaced.
    swaps: Arc<AtomicU64>,
    thread: JoinHandle<anyhow::Result<Reading>>,
}

impl Swapper {
    /// Starts the thread. Only the pace [`Pace::Seen`] needs `published`.
    pub fn start(
        versions: &Versions,
        target: &Target,
        stream: &Stream,
        published: Option<Arc<PublishedVersions>>,
    ) -> Self {
        let (stop, stopped) = mpsc::channel();
        let (is_interrupted, swaps) =
            (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
        let swapping = Swapping {
            path: target_path(versions, target),
            versions: versions.clone(),
            stream: stream.clone(),
            destination: target.destination.clone(),
            published,
            is_interrupted: Arc::clone(&is_interrupted),
            swaps: Arc::clone(&swaps),
        };
        let thread = std::thread::spawn(move || swapping.run(&stopped));
        Self { stop, is_interrupted, swaps, thread }
    }

    /// How often the file has been replaced.
    pub fn swaps(&self) -> u64 {
        self.swaps.load(Ordering::Relaxed)
    }

    /// Stops the thread. Returns the failures of its own requests. Blocks until the last
    /// replacement is done, and until it is seen if the answers of versions are known: whoever asks
    /// next finds a server that has no version still to publish. Once it `is_over`, because the
    /// user has interrupted all this or the server has ended, nothing is waited for.
    ///
    /// # Errors
    /// The file could not be replaced, or a version was not served in time.
    pub fn stop(self, is_over: impl Fn() -> bool) -> anyhow::Result<Reading> {
        // The thread may have ended by itself, with an error.
        let _ = self.stop.send(());
        while !self.thread.is_finished() {
            if is_over() {
                self.is_interrupted.store(true, Ordering::Relaxed);
            }
            std::thread::sleep(LOOK_EVERY);
        }
        self.thread.join().expect("the swapping thread does not panic")
    }
}

/// What the thread works on.
struct Swapping {
    versions: Versions,
    /// The file that is replaced.
    path: PathBuf,
    /// What is asked to see whether a version is served, and of whom.
    stream: Stream,
    destination: Destination,
    published: Option<Arc<PublishedVersions>>,
    is_interrupted: Arc<AtomicBool>,
    swaps: Arc<AtomicU64>,
}

impl Swapping {
    fn run(&self, stopped: &Receiver<()>) -> anyhow::Result<Reading> {
        let mut reading = Reading::default();
        loop {
            let swap = self.swaps.load(Ordering::Relaxed);
            let number = swap as usize % self.versions.versions.len();
            if let Some(published) = &self.published {
                published.publish(swap);
            }
            let is_in_place = self.versions.in_place && swap % 2 == 1;
            replace_file(&self.versions.versions[number], &self.path, is_in_place)?;
            self.swaps.store(swap + 1, Ordering::Relaxed);
            let mut see = || match &self.published {
                Some(published) => self.wait_until_seen(published, swap, &mut reading),
                None => Ok(()),
            };
            let pause = match self.versions.pace {
                Pace::Every(pause) => pause,
                Pace::Seen => {
                    see()?;
                    Duration::ZERO
                }
            };
            match stopped.recv_timeout(pause) {
                Err(RecvTimeoutError::Timeout) => {}
                _ => {
                    see()?;
                    return Ok(reading);
                }
            }
        }
    }

    /// Asks until this publication has answered. Whatever else a request comes to is an error, but
    /// for an answer by the version before.
    fn wait_until_seen(
        &self,
        published: &PublishedVersions,
        swap: u64,
        reading: &mut Reading,
    ) -> anyhow::Result<()> {
        let (request, stop) = (&self.stream.request, &*self.is_interrupted);
        let mut since = published.seen();
        let is_seen = |answered| {
            let Some(body) = probe::expected_body(answered, request, reading) else { return false };
            let hash = body_hash(&body);
            if let Some(mistake) = published.mistake(hash, since) {
                let text = format!("{} {} {mistake}", request.method, request.paths[0]);
                reading.fail(Errors { body: 1, ..Errors::default() }, text);
            }
            since = published.seen();
            published.is_answer_of(swap, hash)
        };
        let until = Instant::now() + SERVED_WITHIN;
        let is_seen = probe::ask_until(&self.destination, &self.stream, until, stop, is_seen);
        if !is_seen && !stop.load(Ordering::Relaxed) {
            let (number, failures) = (swap + 1, failures(reading));
            bail!("swap {number}: its version is not served after {SERVED_WITHIN:?}{failures}");
        }
        Ok(())
    }
}

/// Puts every version into place once, and returns the hashes of their answers, in the order of the
/// versions. Versions that follow each other have to answer with different bodies. Requests that
/// fail meanwhile are counted in `reading`.
///
/// # Errors
/// A version is not served in time, or answers with the same body as the one before it.
pub fn learn(
    versions: &Versions,
    target: &Target,
    stream: &Stream,
    reading: &mut Reading,
    stop: &AtomicBool,
) -> anyhow::Result<Vec<u64>> {
    let request = &stream.request;
    let path = target_path(versions, target);
    let first = probe::ask(&target.destination, request, stream.load.timeout, stop)?;
    let mut last = body_hash(&first.body);
    let count = versions.versions.len();
    let mut learned = vec![0; count];
    // The load begins with the first version, so that comes last. It comes first as well if the
    // second is in place already, since the answer has to change each time.
    let is_there = fs::read(&path).ok() == Some(content(&versions.versions[1])?);
    for number in is_there.then_some(0).into_iter().chain(1..count).chain([0]) {
        replace_file(&versions.versions[number], &path, false)?;
        let until = Instant::now() + SERVED_WITHIN;
        let mut found = last;
        let is_new = |answered| {
            if let Some(body) = probe::expected_body(answered, request, reading) {
                found = body_hash(&body);
            }
            found != last
        };
        let is_seen = probe::ask_until(&target.destination, stream, until, stop, is_new);
        if !is_seen {
            bail!(
                "version {number} is not served after {SERVED_WITHIN:?}, or answers what the one \
                 before it does: is `{NUMBER}` in the template?{}",
                failures(reading)
            );
        }
        last = found;
        learned[number] = last;
    }
    Ok(learned)
}

/// The first failure of each kind, in words that follow an error.
pub fn failures(reading: &Reading) -> String {
    reading.examples.iter().map(|(_, text)| format!("; {text}")).collect()
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
    let content = content(version)?;
    let named = || format!("cannot write {}", to.display());
    if in_place {
        return fs::write(to, &content).with_context(named);
    }
    let beside = to.with_extension("new");
    fs::write(&beside, &content).with_context(named)?;
    fs::rename(&beside, to).with_context(named)
}

fn content(version: &Version) -> anyhow::Result<Vec<u8>> {
    let content = match version {
        Version::File(path) => fs::read(path),
        Version::Template { path, number } => fs::read_to_string(path)
            .map(|text| text.replace(NUMBER, &format!("{number:05}")).into_bytes()),
    };
    content.with_context(|| format!("cannot read {}", version.path().display()))
}

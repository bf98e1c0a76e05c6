//! The threads that load guests in the background, a few at a time.
//!
//! Owns how many loads run at once. A load that takes long no longer counts as quick, so that a
//! guest that keeps the compiler busy does not hold up the others.

use std::collections::VecDeque;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use rustix::process::setpriority_process;
use rustix::thread::gettid;

use super::load_memory::{LoadEstimate, LoadReservation};
use crate::grants::Grants;
use crate::guest::Loader;
use crate::guest::engine::allocator;
use crate::guest::engine::engines::prepare_thread;
use crate::guest::engine::load_failure::LoadFailure;
use crate::guest::load::cache::CacheKey;
use crate::guest::load::compiler_process::{Bounds, CancelToken};
use crate::guest::load::link::GuestSpec;
use crate::guest::load::loader::Loaded;
use crate::source::{Blob, BlobError, ContentVersion};

/// After how long a load counts as slow, so that it does not hold up others.
const SLOW_AFTER: Duration = Duration::from_secs(1);
/// How many slow loads may run besides the quick ones. Both bounds together limit the memory of
/// compiler processes, and how many guests it takes to hold up the others with long compilations.
const SLOW_MAX: usize = 16;
/// How often an idle thread trims its heap. Other threads free what it has allocated, but only the
/// thread itself can return that to the kernel.
const TIDY_EVERY: Duration = Duration::from_secs(1);
/// The nice value of loading threads: a third of a worker's weight, because serving comes first.
const NICENESS: i32 = 5;

/// A handler to be loaded.
pub struct LoadJob {
    /// The number of this job, unique in the process.
    pub serial: u64,
    /// The handler's id.
    pub id: usize,
    /// The handler's name.
    pub name: Box<str>,
    /// What the handler may use.
    pub grants: Arc<Grants>,
    /// Reads the contents.
    pub blob: Arc<dyn Blob>,
    /// The key of the served contents, which need not be loaded again.
    pub served: Option<CacheKey>,
    /// Cancels the job.
    pub cancel: CancelToken,
    /// The memory that the job may take.
    pub reservation: LoadReservation,
}

/// The result of a job.
pub struct FinishedLoad {
    /// The number of the job.
    pub serial: u64,
    /// The handler's id.
    pub id: usize,
    /// The version that was read, if that is known.
    pub version: Option<ContentVersion>,
    /// The memory that the job has needed, as far as that is known.
    pub need: LoadEstimate,
    /// What has become of the job.
    pub outcome: LoadOutcome,
    /// How long the job took.
    pub took: Duration,
}

/// What has become of a job.
pub enum LoadOutcome {
    /// The guest is loaded.
    Loaded(Box<Loaded>),
    /// The contents are the served ones, so nothing was loaded.
    Same,
    /// The contents have changed before or while they were read.
    ContentChanged,
    /// There was too little memory for the code, whose size is known now.
    ShortOfMemory,
    /// The guest could not be loaded.
    Failed(LoadFailure),
}

/// The threads with their queue.
pub struct Loaders {
    queue: Arc<LoadQueue>,
    /// Running jobs: the serial number, and when each began.
    running: Vec<(u64, Instant)>,
    quick_max: usize,
    threads: usize,
}

impl Loaders {
    /// Starts the threads, which call `done` after each job.
    ///
    /// # Errors
    /// Not even one thread can be started.
    pub fn start(
        loader: &Arc<Loader>,
        done: impl Fn(FinishedLoad) + Clone + Send + 'static,
    ) -> Result<Self> {
        let cores = std::thread::available_parallelism().map_or(2, usize::from);
        let quick_max = cores.clamp(2, 4);
        let queue = Arc::new(LoadQueue::default());
        let mut threads = 0;
        while threads < quick_max + SLOW_MAX {
            let (queue, loader) = (queue.clone(), loader.clone());
            let done = done.clone();
            let started = std::thread::Builder::new()
                .name(format!("loader-{threads}"))
                .spawn(move || work(&queue, &loader, &done));
            match started {
                Ok(_) => threads += 1,
                // Fewer threads do if the system allows no more.
                Err(error) if threads > 0 => {
                    tracing::warn!("only {threads} handlers are loaded at once: {error}");
                    break;
                }
                Err(error) => return Err(error).context("could not start a thread for loading"),
            }
        }
        Ok(Loaders { queue, running: Vec::new(), quick_max: quick_max.min(threads), threads })
    }

    /// Takes jobs but never runs them.
    #[cfg(test)]
    pub fn without_threads() -> Self {
        Loaders { queue: Arc::default(), running: Vec::new(), quick_max: 4, threads: 4 }
    }

    /// How many loads are running.
    pub fn count(&self) -> usize {
        self.running.len()
    }

    /// Whether another job may begin.
    pub fn has_free_thread(&self, now: Instant) -> bool {
        let quick = self.running.iter().filter(|(_, began)| now - *began < SLOW_AFTER).count();
        quick < self.quick_max && self.running.len() < self.threads
    }

    /// When another job may begin even if none ends before: when the next one counts as slow.
    pub fn free_thread_at(&self) -> Option<Instant> {
        let turns_slow = |(_, began): &(u64, Instant)| *began + SLOW_AFTER;
        let now = Instant::now();
        self.running.iter().map(turns_slow).filter(|at| *at > now).min()
    }

    /// Begins a job. Call it only if [`Loaders::has_free_thread`].
    pub fn begin(&mut self, job: LoadJob, now: Instant) {
        self.running.push((job.serial, now));
        self.queue.put(job);
    }

    /// Notes that a job has ended.
    pub fn end(&mut self, serial: u64) {
        self.running.retain(|(running, _)| *running != serial);
    }

    /// Whether no load is running.
    pub fn is_idle(&self) -> bool {
        self.running.is_empty()
    }
}

impl Drop for Loaders {
    fn drop(&mut self) {
        self.queue.close();
    }
}

/// Jobs that no thread has taken yet.
#[derive(Default)]
struct LoadQueue {
    waiting: Mutex<QueuedJobs>,
    has_changed: Condvar,
}

#[derive(Default)]
struct QueuedJobs {
    jobs: VecDeque<LoadJob>,
    /// Whether no more jobs come.
    is_closed: bool,
}

impl LoadQueue {
    fn put(&self, job: LoadJob) {
        self.lock().jobs.push_back(job);
        self.has_changed.notify_one();
    }

    fn close(&self) {
        self.lock().is_closed = true;
        self.has_changed.notify_all();
    }

    /// Waits for the next job. Returns `None` once the queue is closed. A thread that `has_loaded`
    /// something trims its heap while it waits.
    fn next(&self, has_loaded: bool) -> Option<LoadJob> {
        let wait_max = if has_loaded { TIDY_EVERY } else { Duration::MAX };
        let mut waiting = self.lock();
        loop {
            if let Some(job) = waiting.jobs.pop_front() {
                return Some(job);
            }
            if waiting.is_closed {
                return None;
            }
            let waited = self.has_changed.wait_timeout(waiting, wait_max);
            let (locked, timeout) = waited.unwrap_or_else(PoisonError::into_inner);
            waiting = locked;
            if timeout.timed_out() && waiting.jobs.is_empty() {
                drop(waiting);
                allocator::trim_heap();
                waiting = self.lock();
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, QueuedJobs> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn work(queue: &LoadQueue, loader: &Loader, done: &impl Fn(FinishedLoad)) {
    prepare_thread();
    if let Err(error) = setpriority_process(Some(gettid()), NICENESS) {
        tracing::debug!("a thread for loading has the priority of the workers: {error}");
    }
    let mut has_loaded = false;
    while let Some(mut job) = queue.next(has_loaded) {
        has_loaded = true;
        let began = Instant::now();
        let (version, outcome) = load(&mut job, loader);
        let (serial, id, need) = (job.serial, job.id, job.reservation.need());
        // Free the reservation first: `done` makes the loop look for loads that wait for memory.
        drop(job);
        done(FinishedLoad { serial, id, version, need, outcome, took: began.elapsed() });
        allocator::trim_heap();
    }
}

fn load(job: &mut LoadJob, loader: &Loader) -> (Option<ContentVersion>, LoadOutcome) {
    let (version, contents) = match job.blob.read(job.reservation.need().file_bytes) {
        Ok(Some(read)) => read,
        Ok(None) => return (None, LoadOutcome::ContentChanged),
        Err(BlobError { version, failure }) => return (version, LoadOutcome::Failed(failure)),
    };
    let key = loader.key(&contents);
    if job.served == Some(key) {
        return (Some(version), LoadOutcome::Same);
    }
    let spec = GuestSpec { id: job.id, name: &job.name, grants: &job.grants };
    let (place, cancel) = (&mut job.reservation, &job.cancel);
    let mut bounds = Bounds { cancel, take: &mut |code_bytes| place.reserve_code(code_bytes) };
    // A panic while an unknown module is linked must cost this guest only.
    let loaded = catch_unwind(AssertUnwindSafe(|| loader.load(&contents, key, &spec, &mut bounds)));
    let outcome = match loaded {
        Ok(Ok(loaded)) => LoadOutcome::Loaded(Box::new(loaded)),
        Ok(Err(_)) if job.reservation.is_short => LoadOutcome::ShortOfMemory,
        Ok(Err(failure)) => LoadOutcome::Failed(failure),
        Err(_) => {
            let reason = "the host failed on it; please report the file as a bug";
            LoadOutcome::Failed(LoadFailure::of_unclear(reason.into()))
        }
    };
    (Some(version), outcome)
}

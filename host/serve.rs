//! Serving: one pinned thread per core, each with its own runtime, listeners and pool of instances.
//!
//! Owns the worker threads from start to end. Only this folder names hyper's server.

mod answer;
mod balancer;
mod clients;
mod connection;
mod counts;
mod exchange;
mod exchanges;
mod flush_queue;
mod forwarding;
mod gates;
mod handover;
mod host_answer;
mod http1;
mod hyper_incoming;
mod hyper_io;
mod inbox;
mod lifecycle;
mod linger;
mod listeners;
mod panic_guard;
mod pipeline;
mod poll_timer;
mod reaper;
mod rejection;
mod respond;
mod routed;
mod router;
mod socket;
mod streaming_body;
mod takeover;
mod upstream;
mod validation;
mod worker;
mod worker_clients;
mod write_buffer;

use std::io;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::mpsc::{Sender, channel};
use std::thread::JoinHandle;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use rustix::process::{Resource, getrlimit, setrlimit};
use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};
use socket2::Socket;
use tokio::sync::mpsc::UnboundedReceiver;
use tokio::sync::watch;

use crate::config::Config;
use crate::guest::engine::engines::{Engines, prepare_thread};
use crate::guest::schedule::Ticker;
use crate::guest::schedule::lane::{Lane, lower_priority};
use crate::message::Reject;
use crate::metrics::Metrics;
use crate::outbound;
use crate::registry::Registry;
use balancer::{AcceptedConnection, Balancer};
use clients::Clients;
use handover::HandoverRequest;
use worker::{CLOCK_TICK_MS, Worker, WorkerShared};

pub use listeners::{Listeners, bind};

/// When the host stops, a connection that was active this recently may send one more request.
const DRAIN_GRACE: Duration = Duration::from_millis(500);
/// How long requests in flight may take to end when the host stops. The whole stop takes less than
/// 25 s.
const DRAIN_MAX: Duration = Duration::from_secs(23);

/// File descriptors that a host needs besides its workers, some of them for compiler processes.
const DESCRIPTORS_MIN: usize = 32;
/// File descriptors of one worker's runtime.
const DESCRIPTORS_PER_WORKER: usize = 4;

/// The workers of a running host.
pub struct Host {
    threads: Vec<JoinHandle<()>>,
    stop: watch::Sender<bool>,
    status_request: watch::Sender<u64>,
    metrics: Metrics,
    /// Runs calls of the workers, so it must end after them.
    _lane: Lane,
    /// Ends the quantum of the workers' guests, so it must end after them.
    _ticker: Arc<Ticker>,
}

impl Host {
    /// Starts the workers and waits until each has its runtime. `sockets` are the listening sockets
    /// of each worker.
    ///
    /// # Errors
    /// A worker or another thread cannot be started.
    pub fn start(
        config: Arc<Config>,
        engines: Arc<Engines>,
        registry: Arc<Registry>,
        sockets: Vec<Vec<Socket>>,
    ) -> Result<Self> {
        let most = engines.slots.in_flight_max(config.workers) * config.workers;
        if let Some(chosen) = config.admission.in_flight_max.filter(|chosen| *chosen > most) {
            tracing::warn!("--in-flight-max {chosen}: there are instances for {most} requests");
        }
        let largest = config.grants.largest();
        let metrics = Metrics::new(config.workers, Reject::NAMES);
        let (stop, stopped) = watch::channel(false);
        let (status_request, status_requested) = watch::channel(0);
        let cores = sched_getaffinity(None).unwrap_or_else(|_| CpuSet::new());
        let slow_threads = if config.slow_nice.is_some() { config.workers } else { 0 };
        let lane = Lane::start(slow_threads, config.slow_nice.unwrap_or_default())?;
        let ticker = Arc::new(Ticker::start(engines.advance(), config.workers)?);
        let (balancer, inboxes) = Balancer::new(config.balance, config.workers);
        let (senders, orders) = handover::channels(config.workers);
        let is_secure = config.upstream.as_ref().is_some_and(|it| it.is_secure);
        let shared = WorkerShared {
            lane: lane.new_handle(),
            ticker: ticker.clone(),
            outbound: outbound::OutboundShared::new(&largest, is_secure, config.workers),
            largest,
            clients: Clients::new(&config),
            balancer,
            handover: senders,
            config,
            engines,
            registry,
            metrics: metrics.clone(),
            stop: stopped,
            status_request: status_requested,
            cores,
        };
        let mut threads = Vec::new();
        let (report, reports) = channel();
        let inboxes = inboxes.into_iter().zip(orders);
        for (index, (sockets, inboxes)) in sockets.into_iter().zip(inboxes).enumerate() {
            let (shared, report) = (shared.clone(), report.clone());
            let thread = std::thread::Builder::new()
                .name(format!("worker-{index}"))
                .spawn(move || run_worker(index, &shared, sockets, inboxes, &report))
                .context("could not start a worker thread")?;
            threads.push(thread);
        }
        drop(report);
        for _ in &threads {
            let started = reports.recv().context("a worker has ended")?;
            started.context("could not start a worker")?;
        }
        Ok(Host { threads, stop, status_request, metrics, _lane: lane, _ticker: ticker })
    }

    /// Asks every worker to publish its counters and returns them. After a second it waits no more:
    /// a worker that has not answered is shown with its last published values.
    pub async fn status(&self) -> Metrics {
        let number = *self.status_request.borrow() + 1;
        let _ = self.status_request.send(number);
        let has_answered = || self.metrics.all().all(|counters| counters.published.get() >= number);
        let patience = tokio::time::Instant::now() + Duration::from_secs(1);
        while !has_answered() && tokio::time::Instant::now() < patience {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        self.metrics.clone()
    }

    /// Stops accepting, answers the requests in flight, and waits until the workers have ended.
    pub fn stop(self) -> Metrics {
        // Fails only if every worker has ended already.
        let _ = self.stop.send(true);
        for thread in self.threads {
            if thread.join().is_err() {
                tracing::error!("a worker thread has panicked");
            }
        }
        self.metrics
    }
}

/// Raises the soft limit on open files to the hard one. Every idle connection needs a descriptor,
/// and the soft limit is often 1,024.
///
/// # Errors
/// The hard limit is below what a host opens before its first connection. This is checked here,
/// because tokio panics if it cannot open the descriptors of a signal handler.
pub fn raise_descriptor_limit(config: &Config) -> Result<()> {
    let mut limit = getrlimit(Resource::Nofile);
    limit.current = limit.maximum;
    if let Err(error) = setrlimit(Resource::Nofile, limit) {
        tracing::warn!("could not raise the limit on open files: {error}");
    }
    let needed = DESCRIPTORS_MIN + config.workers * (DESCRIPTORS_PER_WORKER + config.listen.len());
    let limit = limit.maximum.unwrap_or(u64::MAX);
    if limit < needed as u64 {
        bail!(
            "{limit} files may be open, and {needed} are needed for {} workers: raise the limit \
             (`ulimit -n`, or LimitNOFILE in a systemd unit) or choose fewer --workers",
            config.workers
        );
    }
    Ok(())
}

/// Pins the calling thread to a core of its own, if there are enough cores for all workers.
fn pin(index: usize, workers: usize, cores: &CpuSet) {
    let allowed: Vec<usize> = (0..CpuSet::MAX_CPU).filter(|core| cores.is_set(*core)).collect();
    if workers > allowed.len() {
        return;
    }
    let mut own = CpuSet::new();
    own.set(allowed[index]);
    if let Err(error) = sched_setaffinity(None, &own) {
        tracing::debug!("worker {index} is not pinned: {error}");
    }
}

/// Runs a worker thread from start to end. Reports whether it could start.
fn run_worker(
    index: usize,
    shared: &WorkerShared,
    sockets: Vec<Socket>,
    (accepted, orders): (UnboundedReceiver<AcceptedConnection>, UnboundedReceiver<HandoverRequest>),
    report: &Sender<io::Result<()>>,
) {
    pin(index, shared.config.workers, &shared.cores);
    prepare_thread();
    let (cores, slow_nice) = (shared.cores, shared.config.slow_nice);
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .event_interval(EVENT_INTERVAL)
        // Threads for blocking work may use every core, because this worker's core is busy. Long
        // twins run there, so these threads have the same priority as the slow lane of the guests.
        .on_thread_start(move || {
            let _ = sched_setaffinity(None, &cores);
            if let Some(nice) = slow_nice {
                lower_priority(nice);
            }
        })
        .build_local(tokio::runtime::LocalOptions::default());
    // The receiver is gone if another worker could not start. Then this one has to end, too.
    let (runtime, started) = match runtime {
        Ok(runtime) => (Some(runtime), Ok(())),
        Err(error) => (None, Err(error)),
    };
    let is_wanted = report.send(started).is_ok();
    let Some(runtime) = runtime.filter(|_| is_wanted) else { return };
    runtime.block_on(async {
        let worker = Worker::new(index, shared);
        tokio::task::spawn_local(reaper::run(worker.clone()));
        tokio::task::spawn_local(worker.clone().flush_and_renew());
        tokio::task::spawn_local(worker.schedule.run_queue().clone().run());
        tokio::task::spawn_local(publish(worker.clone(), shared.status_request.clone()));
        let stop = || stopped(shared.stop.clone());
        let here = worker.clone();
        let start = move |accepted| listeners::start_accepted(&here, accepted);
        let received = tokio::task::spawn_local(inbox::receive(accepted, stop(), start));
        let here = worker.clone();
        let start = move |order| takeover::start(&here, order);
        let taken = tokio::task::spawn_local(inbox::receive(orders, stop(), start));
        let receiving = [received, taken];
        let accepting: Vec<_> = sockets
            .into_iter()
            .map(|socket| {
                tokio::task::spawn_local(listeners::accept(worker.clone(), socket, stop()))
            })
            .collect();
        stop().await;
        worker.draining.set(true);
        for task in accepting.into_iter().chain(receiving) {
            // Ends at once, because the task waits for the same stop signal.
            drop(task.await);
        }
        drain(&worker).await;
        worker.publish_counts();
    });
    // Dropping the runtime does not wait for blocking work that still runs.
    drop(runtime);
}

/// How many tasks run between two polls of the sockets. With tokio's default of 61, a burst of
/// requests would delay reading all others.
const EVENT_INTERVAL: u32 = 8;

/// Publishes a worker's counts whenever [`Host::status`] asks for them.
async fn publish(worker: Rc<Worker>, mut status_request: watch::Receiver<u64>) {
    while status_request.changed().await.is_ok() {
        worker.publish_counts();
        worker.counters().published.set(*status_request.borrow());
    }
}

async fn stopped(mut stop: watch::Receiver<bool>) {
    // An error means that the `Host` was dropped, which stops the workers too.
    drop(stop.wait_for(|stop| *stop).await);
}

/// Closes the connections: idle ones at once, the others after their next answer.
async fn drain(worker: &Rc<Worker>) {
    let began = tokio::time::Instant::now();
    let tick = Duration::from_millis(u64::from(CLOCK_TICK_MS) / 4);
    let is_busy = || !worker.connections.borrow().is_empty() || worker.taken_over.get() > 0;
    while is_busy() && began.elapsed() < DRAIN_MAX {
        let graced = began.elapsed() < DRAIN_GRACE + tick;
        for (_, connection) in worker.connections.borrow().iter() {
            let recent = reaper::inactive_for(connection, worker.clock.get()) < DRAIN_GRACE
                || connection.life.partial_since.get().is_some();
            let exchanges = &connection.exchanges;
            if exchanges.is_any_in_flight() || connection.has_input() || (graced && recent) {
                continue;
            }
            // hyper would wait for the rest of a head that has begun to arrive, so abort instead.
            let is_partial =
                connection.life.partial_since.get().is_some() && !exchanges.is_any_streaming();
            if is_partial && connection.life.blocked().is_none() {
                connection.life.abort();
            }
            if !connection.life.closing.replace(true) {
                connection.life.wake();
            }
        }
        tokio::time::sleep(tick).await;
    }
    let left = worker.connections.borrow().len();
    if left > 0 {
        tracing::warn!("worker {}: {left} connections were cut off", worker.index);
    }
}

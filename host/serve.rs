//! Serving: one pinned thread per core, each with its own runtime, listeners and pool of instances.
//!
//! Owns the threads and their end. hyper's server is named only in this folder.

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

/// A connection that was active so recently when the host stops may send one more request.
const DRAIN_GRACE: Duration = Duration::from_millis(500);
/// When the host stops, requests in flight have this long to end. The whole stop stays below 25 s.
const DRAIN_MAX: Duration = Duration::from_secs(23);

/// Descriptors of a host without its workers, some of them for the processes that compile.
const DESCRIPTORS_MIN: usize = 32;
/// Those of one worker's runtime.
const DESCRIPTORS_PER_WORKER: usize = 4;

/// The workers of a running host.
pub struct Host {
    threads: Vec<JoinHandle<()>>,
    stop: watch::Sender<bool>,
    status_request: watch::Sender<u64>,
    metrics: Metrics,
    /// Ends after the workers, whose calls are in it.
    _lane: Lane,
    /// So does what gives their guests their quantum.
    _ticker: Arc<Ticker>,
}

impl Host {
    /// Starts the workers, and waits until each of them has what it needs.
    ///
    /// # Errors
    /// One of them cannot be started.
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
        let (ask, asked) = watch::channel(0);
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
            status_request: asked,
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
        Ok(Host { threads, stop, status_request: ask, metrics, _lane: lane, _ticker: ticker })
    }

    /// The counters, as every worker has them now. A worker that does not answer within a second
    /// is shown as it last was.
    pub async fn status(&self) -> Metrics {
        let asked = *self.status_request.borrow() + 1;
        let _ = self.status_request.send(asked);
        let answered = || self.metrics.all().all(|counters| counters.published.get() >= asked);
        let patience = tokio::time::Instant::now() + Duration::from_secs(1);
        while !answered() && tokio::time::Instant::now() < patience {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        self.metrics.clone()
    }

    /// Stops accepting, answers what is in flight, and waits for the workers to end.
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

/// Lets this process open as many files as it may: idle connections need descriptors, and the soft
/// limit is often 1,024.
///
/// # Errors
/// The limit is below what a host opens before its first connection; tokio panics where it is
/// refused the descriptors of a signal handler. The text says what to do.
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

/// Pins the calling thread to the core that is its own, where there is one for every worker.
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

/// The life of a worker thread. Reports whether it could begin.
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
        // How many tasks may run before the sockets are looked at again.
        .event_interval(EVENT_INTERVAL)
        // Threads for blocking work may use every core: this worker's is busy. What long twins
        // compute there is to have no more of it than long guests.
        .on_thread_start(move || {
            let _ = sched_setaffinity(None, &cores);
            if let Some(nice) = slow_nice {
                lower_priority(nice);
            }
        })
        .build_local(tokio::runtime::LocalOptions::default());
    // The receiver is gone where another worker could not start, and then this one is to end too.
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
            // Ends at once: the task has been told to stop, too.
            drop(task.await);
        }
        drain(&worker).await;
        worker.publish_counts();
    });
    // Blocking work that is left over is not waited for.
    drop(runtime);
}

/// Tasks that run between two looks at the sockets. tokio's default of 61 lets a burst of requests
/// delay the reading of all others.
const EVENT_INTERVAL: u32 = 8;

/// Publishes a worker's counts whenever they are asked for.
async fn publish(worker: Rc<Worker>, mut ask: watch::Receiver<u64>) {
    while ask.changed().await.is_ok() {
        worker.publish_counts();
        worker.counters().published.set(*ask.borrow());
    }
}

async fn stopped(mut stop: watch::Receiver<bool>) {
    // An error means that the host itself is gone, which is a stop too.
    drop(stop.wait_for(|stop| *stop).await);
}

/// Ends the connections: those that have long been idle at once, the others after their next
/// answer.
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
            // hyper would wait for the rest of a head that has begun to arrive.
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

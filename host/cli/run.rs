//! Runs a serving process: bind, load, serve, and stop at a signal.
//!
//! Connects `control` and `serve`, which do not know each other.

use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use rustix::process::Signal;
use rustix::thread::disable_transparent_huge_pages;
use tokio::signal::unix::{SignalKind, signal};

use super::platform;
use super::served::Served;
use super::terminal::Terminal;
use crate::config::{Config, LogFormat};
use crate::control::Control;
use crate::guest::Loader;
use crate::guest::engine::budget::Budget;
use crate::guest::engine::resources::Resources;
use crate::guest::load::loader::Settings;
use crate::metrics::Metrics;
use crate::registry::HandlerState;
use crate::serve::{self, Host};
use crate::status::{Status, metrics};

/// How often the status may count the process's mappings, which can take 20 ms.
const COUNTED_EVERY: Duration = Duration::from_secs(1);

/// Serves until SIGINT or SIGTERM, or until the terminal in which it was started is closed. Any
/// other SIGHUP makes all sources look for changes; SIGUSR1 logs the counters. `log` is the log
/// format of the compiler processes.
///
/// # Errors
/// The host cannot start. The text says why and what to do.
pub fn run(mut config: Config, served: Served, log: LogFormat) -> Result<()> {
    // The allocator asks for huge pages. With these, the process would take four times the memory,
    // and could not return what idle connections free.
    if let Err(error) = disable_transparent_huge_pages(true) {
        tracing::debug!("huge pages stay on: {error}");
    }
    platform::warn_of_missing();
    serve::raise_descriptor_limit(&config)?;
    // Bind before any lengthy work, so that a port in use is reported at once.
    let bound = serve::bind(&config.listen, config.workers)?;
    let sources = served.sources(&mut config.grants, &bound.reached());
    let listening = bound.described();
    let terminal = Terminal::at_start();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.context("could not start the main runtime")?;
    runtime.block_on(async {
        // From here on no signal is lost.
        let mut interrupt = signal(SignalKind::interrupt())?;
        let mut terminate = signal(SignalKind::terminate())?;
        let mut status = signal(SignalKind::user_defined1())?;
        let mut hangup = signal(SignalKind::hangup())?;
        // If file sizes are limited, the cache must get an error, and the process no SIGXFSZ.
        let _too_large = signal(SignalKind::from_raw(Signal::XFSZ.as_raw()))?;
        let memory = Budget::new(config.memory_bytes_total);
        let loader = Arc::new(Loader::new(&Settings {
            memory_bytes_max: config.grants.largest().memory_bytes_max,
            workers: config.workers,
            memory: memory.clone(),
            mappings_max: config.mappings_max,
            cache_dir: config.cache_dir.as_deref(),
            log,
        })?);
        let mut control = Control::start(sources, &config, &loader)?;
        let (engines, registry) = (loader.engines.clone(), control.registry.clone());
        let (resources, mut counted) = (engines.resources.clone(), Instant::now());
        let host = Host::start(Arc::new(config), engines, registry, bound.sockets)?;
        tracing::info!("memory for all handlers together: {} MiB", memory.total() >> 20);
        for text in &listening {
            tracing::info!("listening on http://{text}");
        }
        let why = loop {
            tokio::select! {
                why = control.ended() => {
                    drop(host.stop());
                    bail!(why);
                }
                _ = interrupt.recv() => break "SIGINT",
                _ = terminate.recv() => break "SIGTERM",
                _ = hangup.recv() => {
                    if terminal.as_ref().is_some_and(Terminal::is_gone) {
                        break "SIGHUP: the terminal is closed";
                    }
                    look_for_changes(&control);
                }
                _ = status.recv() => {
                    let census = control.registry.count_states();
                    let counts = host.status().await;
                    if counted.elapsed() > COUNTED_EVERY {
                        resources.recount_mappings();
                        counted = Instant::now();
                    }
                    tracing::info!("status: {}", status_of(&counts, census, &memory, &resources));
                }
            }
        };
        tracing::info!("{why}: stopping; requests in flight are answered first");
        tracing::info!("stopped: {}", counted_by_workers(&host.stop()));
        Ok(())
    })
}

fn look_for_changes(control: &Control) {
    tracing::info!("SIGHUP: looking for changes");
    control.refresh();
}

// What is measured of the whole host.
metrics! {
    HANDLERS = "handlers", Gauge, "handlers", "Those that have a route.";
    COLD = "cold", Gauge, "handlers", "Those that are not loaded.";
    LOADING = "loading", Gauge, "handlers", "Those that are being loaded.";
    READY = "ready", Gauge, "handlers", "Those that are loaded.";
    FAILED = "failed", Gauge, "handlers", "Those that cannot be loaded.";
    MEMORY_USED = "memory_used", Gauge, "bytes", "Memory that handlers have.";
    MEMORY_POOLED = "memory_pooled", Gauge, "bytes", "Memory that is kept for instances to come.";
    MEMORY_TOTAL = "memory_total", Gauge, "bytes",
        "Memory that handlers may have (--memory-total).";
    MAPPINGS_USED = "mappings_used", Gauge, "mappings", "Mappings that the process has.";
    MAPPINGS_MAX = "mappings_max", Gauge, "mappings", "Mappings that it may have.";
    DESCRIPTORS_USED = "descriptors_used", Gauge, "descriptors", "Files that the process has open.";
    DESCRIPTORS_MAX = "descriptors_max", Gauge, "descriptors", "Files that it may have open.";
}

/// All metrics of the host.
fn status_of(
    counts: &Metrics,
    census: [usize; 5],
    memory: &Budget,
    resources: &Resources,
) -> Status {
    let mut status = counted_by_workers(counts);
    put_handlers(&mut status, census);
    put_memory(&mut status, memory);
    put_kernel(&mut status, resources);
    counts.put_handlers(&mut status);
    status
}

fn counted_by_workers(metrics: &Metrics) -> Status {
    let mut status = Status::default();
    metrics.put(&mut status);
    status
}

/// Adds how many handlers are in each state.
fn put_handlers(status: &mut Status, census: [usize; 5]) {
    let of = |state: HandlerState| census[state as usize] as u64;
    status.one(&HANDLERS, census.iter().sum::<usize>() as u64);
    status.one(&COLD, of(HandlerState::Cold));
    status.one(&LOADING, of(HandlerState::Loading));
    status.one(&READY, of(HandlerState::Ready));
    status.one(&FAILED, of(HandlerState::Failed));
}

fn put_memory(status: &mut Status, memory: &Budget) {
    status.one(&MEMORY_USED, memory.used() as u64);
    status.one(&MEMORY_POOLED, memory.pooled() as u64);
    status.one(&MEMORY_TOTAL, memory.total() as u64);
}

/// Adds what the process uses of what the kernel limits.
fn put_kernel(status: &mut Status, resources: &Resources) {
    let mappings = resources.mappings();
    let (files, files_max) = resources.descriptors();
    status.one(&MAPPINGS_USED, mappings.used);
    status.one(&MAPPINGS_MAX, mappings.max);
    status.one(&DESCRIPTORS_USED, files);
    status.one(&DESCRIPTORS_MAX, files_max);
}

//! The life of a serving process: bind, load, serve, and stop at a signal.
//!
//! Wires control and serve together, which do not know each other.

use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use rustix::process::Signal;
use rustix::thread::disable_transparent_huge_pages;
use tokio::signal::unix::{SignalKind, signal};

use super::platform;
use super::terminal::Terminal;
use crate::config::{Config, LogFormat};
use crate::control::{Control, Source};
use crate::guest::Loader;
use crate::guest::budget::Budget;
use crate::guest::load::Settings;
use crate::guest::resources::Resources;
use crate::registry::{Registry, State};
use crate::serve::{self, Host};

/// Between two counts of the process's mappings for the status: one may take 20 ms.
const COUNTED_EVERY: Duration = Duration::from_secs(1);
/// The demo guest that sends requests to the demo itself.
const DEMO_PROXY: &str = "proxy";

/// Serves a source until SIGINT or SIGTERM, or until the terminal in which it was started is
/// closed. Any other SIGHUP looks at the folder anew, SIGUSR1 logs the counters. `log` is how the
/// processes that compile guests log.
///
/// # Errors
/// The host cannot start; the text says why and what to do.
pub fn run(mut config: Config, source: &Source, log: LogFormat) -> Result<()> {
    // The allocator asks for huge pages: the process would hold four times the memory, and give
    // nothing back of what idle connections do without.
    if let Err(error) = disable_transparent_huge_pages(true) {
        tracing::debug!("huge pages stay on: {error}");
    }
    platform::warn_of_missing();
    serve::raise_descriptor_limit(&config)?;
    // Before anything long, so that a port in use is known at once.
    let bound = serve::bind(&config.listen, config.workers)?;
    if matches!(source, Source::Demo(_)) {
        config.grants.allow_own(DEMO_PROXY, &bound.reached());
    }
    let listening = bound.described();
    let terminal = Terminal::at_start();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.context("could not start the main runtime")?;
    runtime.block_on(async {
        // From here on a signal is not lost.
        let mut interrupt = signal(SignalKind::interrupt())?;
        let mut terminate = signal(SignalKind::terminate())?;
        let mut status = signal(SignalKind::user_defined1())?;
        let mut hangup = signal(SignalKind::hangup())?;
        // Where files may not be large, the cache is to find that out, and not the process.
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
        let control = Control::start(source, &config, &loader)?;
        let (engines, registry) = (loader.engines.clone(), control.registry.clone());
        let (resources, mut counted) = (engines.resources.clone(), Instant::now());
        let host = Host::start(Arc::new(config), engines, registry, bound.sockets)?;
        tracing::info!("memory for all handlers together: {} MiB", memory.total() >> 20);
        for text in &listening {
            tracing::info!("listening on http://{text}");
        }
        let why = loop {
            tokio::select! {
                _ = interrupt.recv() => break "SIGINT",
                _ = terminate.recv() => break "SIGTERM",
                _ = hangup.recv() => {
                    if terminal.as_ref().is_some_and(Terminal::is_gone) {
                        break "SIGHUP: the terminal is closed";
                    }
                    look_for_changes(&control);
                }
                _ = status.recv() => {
                    let (census, memory) = (census(&control.registry), held(&memory));
                    let counts = host.status().await;
                    if counted.elapsed() > COUNTED_EVERY {
                        resources.count_anew();
                        counted = Instant::now();
                    }
                    tracing::info!("status: {counts} {census} {memory} {}", kernel(&resources));
                }
            }
        };
        tracing::info!("{why}: stopping; requests in flight are answered first");
        tracing::info!("stopped: {}", host.stop());
        Ok(())
    })
}

fn look_for_changes(control: &Control) {
    tracing::info!("SIGHUP: looking for changes");
    control.rescan();
}

/// The memory of guests: `memory_used=81920 memory_pooled=40960 memory_total=18957047808`.
fn held(memory: &Budget) -> String {
    let (used, pooled, total) = (memory.used(), memory.pooled(), memory.total());
    format!("memory_used={used} memory_pooled={pooled} memory_total={total}")
}

/// What the process has of what the kernel limits:
/// `mappings_used=29000 mappings_max=65530 descriptors_used=40 descriptors_max=1024`.
fn kernel(resources: &Resources) -> String {
    let mappings = resources.mappings();
    let (files, files_max) = resources.descriptors();
    format!(
        "mappings_used={} mappings_max={} descriptors_used={files} descriptors_max={files_max}",
        mappings.used, mappings.max
    )
}

/// The handlers by their states: `handlers=7 cold=0 loading=1 ready=6 failed=0`.
fn census(registry: &Registry) -> String {
    let counts = registry.census();
    let all: usize = counts.iter().sum();
    let named = State::ALL.iter().zip(counts).filter(|(state, _)| **state != State::Gone);
    let named = named.map(|(state, count)| format!(" {}={count}", state.name()));
    format!("handlers={all}{}", named.collect::<String>())
}

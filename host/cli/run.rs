//! The life of a serving process: bind, load, serve, and stop at a signal.
//!
//! Wires control and serve together, which do not know each other.

use std::sync::Arc;

use anyhow::{Context, Result};
use tokio::signal::unix::{SignalKind, signal};

use crate::config::Config;
use crate::control::{self, Source};
use crate::guest::Loader;
use crate::registry::Registry;
use crate::serve::{self, Host};

/// Serves a source until SIGINT or SIGTERM. SIGUSR1 logs the counters.
///
/// # Errors
/// The host cannot start; the text says why and what to do.
pub fn run(config: Config, source: &Source) -> Result<()> {
    // Before anything long, so that a port in use is known at once.
    let bound = serve::bind(&config.listen, config.workers)?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.context("could not start the main runtime")?;
    runtime.block_on(async {
        // From here on a signal is not lost.
        let mut interrupt = signal(SignalKind::interrupt())?;
        let mut terminate = signal(SignalKind::terminate())?;
        let mut status = signal(SignalKind::user_defined1())?;
        let loader = Loader::new(&config.limits, config.workers, config.cache_dir.as_deref())?;
        let snapshot = control::load::load(source, &config, &loader)?;
        let registry = Arc::new(Registry::new(snapshot));
        let engines = loader.engines.clone();
        let host = Host::start(Arc::new(config), engines, registry, bound.sockets)?;
        for address in &bound.addresses {
            tracing::info!("listening on http://{address}");
        }
        loop {
            let name = tokio::select! {
                _ = interrupt.recv() => "SIGINT",
                _ = terminate.recv() => "SIGTERM",
                _ = status.recv() => {
                    tracing::info!("status: {}", host.status().await);
                    continue;
                }
            };
            tracing::info!("{name}: stopping; requests in flight are answered first");
            break;
        }
        tracing::info!("stopped: {}", host.stop());
        Ok(())
    })
}

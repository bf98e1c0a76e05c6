//! The control path: follows the sources while the host runs, and publishes the handlers that they
//! give.
//!
//! Owns the start and the end of the reload loop. Touches the request path only through the
//! registry. Knows a source only by the sets that it gives.

mod entries;
mod followed;
mod load_memory;
mod loaded_capacity;
mod loaders;
mod reload;
mod retry;
mod sets;
mod unload;

use std::sync::Arc;
use std::sync::mpsc::{Sender, channel};
use std::thread::JoinHandle;

use anyhow::{Context, Result};
use tokio::sync::mpsc::{UnboundedReceiver, unbounded_channel};

use crate::config::Config;
use crate::guest::Loader;
use crate::log::escape;
use crate::registry::route::Route;
use crate::registry::{Registry, RouteTarget};
use crate::source::{Source, Wake};
use entries::Entries;
use load_memory::LoadMemory;
use loaded_capacity::LoadedCapacity;
use loaders::Loaders;
use reload::{ControlEvent, Reload, ReloadParts, event_sender};

/// How many routes the start logs one by one.
const ROUTES_SHOWN_MAX: usize = 50;

/// The control path of a running host. Dropping it stops the control thread and waits for it.
pub struct Control {
    /// The published table of routes and handlers, which every worker reads.
    pub registry: Arc<Registry>,
    events: Sender<ControlEvent>,
    ended: UnboundedReceiver<String>,
    thread: Option<JoinHandle<()>>,
}

impl Control {
    /// Publishes the routes of all sources and begins to load their guests, in the background.
    ///
    /// # Errors
    /// A source has no set, two handlers claim one route, or a thread cannot be started. A guest
    /// that does not load is not an error.
    pub fn start(
        sources: Vec<Box<dyn Source>>,
        config: &Config,
        loader: &Arc<Loader>,
    ) -> Result<Control> {
        let (events, heard) = channel();
        let (end, ended) = unbounded_channel();
        let tell = event_sender(&events);
        let wanted = tell.clone();
        let want = Arc::new(move |id| wanted(ControlEvent::Wanted(id)));
        let changed = tell.clone();
        let wake: Wake = Arc::new(move || changed(ControlEvent::Changed));
        let mut entries = Entries::new(want, sources.len());
        let sources = followed::begin(sources, &mut entries, &wake)?;
        let snapshot = followed::snapshot(&entries, &sources, None)?;
        report(snapshot.table.routes(), config);
        warn_of_unknown_names(&entries, config);
        let registry = Arc::new(Registry::new(snapshot));
        let done = move |done| tell(ControlEvent::Done(done));
        let reload = Reload::new(ReloadParts {
            entries,
            registry: registry.clone(),
            sources,
            ended: end,
            guest_capacity: LoadedCapacity::new(
                config.loaded_bytes_max,
                loader.engines.resources.clone(),
            ),
            load_memory: LoadMemory::new(loader.engines.memory.clone()),
            loaders: Loaders::start(loader, done)?,
            events: heard,
        });
        let thread = std::thread::Builder::new()
            .name("control".into())
            .spawn(move || reload.run())
            .context("could not start the control thread")?;
        Ok(Control { registry, events, ended, thread: Some(thread) })
    }

    /// Makes all sources look for changes now, whether or not they were notified of any.
    pub fn refresh(&self) {
        // Sending fails only if the loop has panicked, which has been reported.
        drop(self.events.send(ControlEvent::Refresh));
    }

    /// Waits until the host cannot go on and returns the reason: a source says that its set is
    /// served all or nothing, and its first set cannot be. Cancel safe.
    pub async fn ended(&mut self) -> String {
        match self.ended.recv().await {
            Some(why) => why,
            // The loop has panicked, which has been reported.
            None => std::future::pending().await,
        }
    }
}

impl Drop for Control {
    fn drop(&mut self) {
        drop(self.events.send(ControlEvent::Stop));
        if let Some(thread) = self.thread.take() {
            // Joining fails only if the loop has panicked, which has been reported.
            drop(thread.join());
        }
    }
}

/// Logs one line for each of the first routes, then how many more there are.
fn report(routes: &[Route<RouteTarget>], config: &Config) {
    for route in routes.iter().take(ROUTES_SHOWN_MAX) {
        let isolation = match &route.target {
            RouteTarget::Handler(handler) => handler.grants.isolation.to_string(),
            RouteTarget::Native(_) => "native".into(),
            RouteTarget::Landing => "page".into(),
        };
        let source = escape(route.source.as_bytes(), 512);
        let pattern = escape(route.pattern.to_string().as_bytes(), 512);
        tracing::info!("{pattern:<28} {isolation:<7} {source}");
    }
    if let Some(more) = routes.len().checked_sub(ROUTES_SHOWN_MAX).filter(|more| *more > 0) {
        tracing::info!("and {more} more; `guesthouse routes` prints them all");
    }
    if config.grants.has_reuse() {
        tracing::info!("isolation reuse: a request can see what an earlier one left behind");
    }
}

/// Warns of flags that name no handler: a typing error, or a handler that is still to come.
fn warn_of_unknown_names(entries: &Entries, config: &Config) {
    let is_known = |name: &str| entries.iter().any(|(_, it)| &*it.handler.name == name);
    for (flag, handler) in config.grants.unknown(is_known) {
        let handler = escape(handler.as_bytes(), 512);
        tracing::warn!(
            "{flag}: no handler is called {handler}; a name is a file's path below the handler \
             folder without its ending"
        );
    }
}

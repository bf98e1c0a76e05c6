//! The control path: from a folder, or from the demo's own guests, to what is served, for as long
//! as the host runs.
//!
//! Owns the start and the end of the reload loop. Touches the request path only through the
//! registry.

mod entries;
mod load_memory;
mod loaders;
mod reload;
mod retry;
mod room;
mod sets;
mod unload;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::mpsc::{Sender, channel};
use std::thread::JoinHandle;
use std::time::Instant;

use anyhow::{Context, Result};

use crate::config::Config;
use crate::demo::bundled;
use crate::folder::follow::Folder;
use crate::folder::scan::scan;
use crate::folder::watch::Watch;
use crate::guest::{Loader, load};
use crate::log::escape;
use crate::registry::route::{Pattern, Route};
use crate::registry::{Registry, Target};
use entries::{Entries, Newcomer};
use load_memory::LoadMemory;
use loaders::{Loaders, Origin};
use reload::{Event, Reload, teller};
use room::Room;

/// Routes that are logged one by one at the start.
const ROUTES_SHOWN_MAX: usize = 50;

/// Where the handlers come from.
#[derive(Clone, Debug)]
pub enum Source {
    /// A folder of `.wasm` and `.wat` files.
    Folder(PathBuf),
    /// The guests that are built into this program, and those of a folder beside them.
    Demo(Option<PathBuf>),
}

/// The control path of a running host.
pub struct Control {
    pub registry: Arc<Registry>,
    events: Sender<Event>,
    thread: Option<JoinHandle<()>>,
}

impl Control {
    /// Publishes the routes of a source and begins to load its guests, in the background.
    ///
    /// # Errors
    /// The folder cannot be read, two files claim one route, or a thread cannot be started. A
    /// guest that cannot be loaded is not an error.
    pub fn start(source: &Source, config: &Config, loader: &Arc<Loader>) -> Result<Control> {
        let (events, heard) = channel();
        let tell = teller(&events);
        let want = {
            let tell = tell.clone();
            Arc::new(move |id| tell(Event::Wanted(id)))
        };
        let mut entries = Entries::new(want, config.grants.clone());
        let now = Instant::now();
        let path = match source {
            Source::Demo(beside) => {
                add_all(&mut entries, demo()?, now);
                beside.as_ref()
            }
            Source::Folder(path) => Some(path),
        };
        let mut folder = None;
        if let Some(path) = path {
            let tell = tell.clone();
            let watch = Watch::new(path, move |stir| tell(Event::Stirred(stir)));
            let found = scan(path)?;
            folder = Some(Folder::new(path.clone(), watch, &found));
            add_all(&mut entries, found.found.into_iter().map(Newcomer::of_file), now);
        }
        let snapshot = sets::snapshot(&entries, &[], config.native)?;
        report(snapshot.table.routes(), config);
        warn_of_strangers(&entries, config);
        let registry = Arc::new(Registry::new(snapshot));
        let done = move |done| tell(Event::Done(done));
        let loaders = Loaders::start(loader, done)?;
        let room = Room::new(config.loaded_bytes_max, loader.engines.resources.clone());
        let room = (room, LoadMemory::new(loader.engines.memory.clone()));
        let mut reload = Reload::new(entries, registry.clone(), folder, loaders, heard, room);
        reload.native = config.native;
        let thread = std::thread::Builder::new()
            .name("control".into())
            .spawn(move || reload.run())
            .context("could not start the control thread")?;
        Ok(Control { registry, events, thread: Some(thread) })
    }

    /// Looks at the folder now, whatever events there were.
    pub fn rescan(&self) {
        // It fails only if the loop has ended, by a panic that was reported.
        drop(self.events.send(Event::Rescan));
    }
}

impl Drop for Control {
    fn drop(&mut self) {
        drop(self.events.send(Event::Stop));
        if let Some(thread) = self.thread.take() {
            // The only error is a panic of the loop, which has been reported already.
            drop(thread.join());
        }
    }
}

fn add_all(entries: &mut Entries, newcomers: impl IntoIterator<Item = Newcomer>, now: Instant) {
    for newcomer in newcomers {
        let id = entries.add(newcomer, now);
        if let Some(entry) = entries.get(id) {
            // What has been there all the time is not being written.
            entry.is_doubted = true;
        }
        entries.enqueue(id, false);
    }
}

fn demo() -> Result<Vec<Newcomer>> {
    let newcomer = |(name, wasm): &(&str, &'static [u8])| {
        let pattern = Pattern::parse(name).context("the pattern of a demo guest")?;
        let origin = Origin::BuiltIn(wasm);
        Ok(Newcomer { name: (*name).to_owned(), pattern, origin, stamp: None })
    };
    bundled::DEMO_GUESTS.iter().map(newcomer).collect()
}

/// Logs a line per route, as far as anyone would read them.
fn report(routes: &[Route<Target>], config: &Config) {
    for route in routes.iter().take(ROUTES_SHOWN_MAX) {
        let isolation = match &route.target {
            Target::Handler(handler) => handler.grants.isolation.to_string(),
            Target::Native(_) => "native".into(),
            Target::Landing => "page".into(),
        };
        let source = escape(route.source.as_bytes(), 512);
        tracing::info!("{:<28} {isolation:<7} {source}", route.pattern.to_string());
    }
    if let Some(more) = routes.len().checked_sub(ROUTES_SHOWN_MAX).filter(|more| *more > 0) {
        tracing::info!("and {more} more; `guesthouse routes` prints them all");
    }
    if config.grants.has_reuse() {
        tracing::info!("isolation reuse: a request can see what an earlier one left in the guest");
    }
}

/// Names in flags that no handler has may be mistyped, or may come later.
fn warn_of_strangers(entries: &Entries, config: &Config) {
    let is_known = |name: &str| entries.iter().any(|(_, it)| &*it.handler.name == name);
    for (flag, guest) in config.grants.unknown(is_known) {
        let guest = escape(guest.as_bytes(), 512);
        tracing::warn!(
            "{flag}: no handler is called {guest}; a name is a file's path below the handler \
             folder without its ending"
        );
    }
}

/// One line of the route table, as `routes` prints it.
#[derive(Debug)]
pub struct RouteLine {
    pub pattern: String,
    pub kind: String,
    pub file: String,
}

/// The route table of a folder, most specific first. Loads nothing; a file's kind is told from its
/// first bytes.
///
/// # Errors
/// The folder cannot be read, or two files claim one route.
pub fn routes(folder: &Path) -> Result<Vec<RouteLine>> {
    let scan = scan(folder)?;
    for skipped in &scan.skipped {
        let path = skipped.path.to_string_lossy();
        tracing::warn!("{}: {}", escape(path.as_bytes(), 512), skipped.reason);
    }
    let files = scan.found.into_iter().map(|found| {
        let kind = load::kind_of_file(&found.path);
        (found.pattern, kind, found.path.to_string_lossy().into_owned())
    });
    let table = sets::table(files, false, |_| "native")?;
    let line = |route: &Route<&'static str>| RouteLine {
        pattern: route.pattern.to_string(),
        kind: route.target.to_owned(),
        file: route.source.clone(),
    };
    Ok(table.routes().iter().map(line).collect())
}

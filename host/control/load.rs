//! From a source to a snapshot: scan, load every guest on all cores, build the table.
//!
//! Owns the start-up table in the log. A guest that does not load keeps its route, which answers
//! 503.

use std::path::PathBuf;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use anyhow::{Context, Result};

use super::scan::scan;
use super::{RouteLine, Source};
use crate::config::Config;
use crate::guest::{Guest, Loader, load};
use crate::log::escape;
use crate::native::Twin;
use crate::registry::route::{Pattern, Table};
use crate::registry::{Snapshot, Target};

include!(concat!(env!("OUT_DIR"), "/demo_guests.rs"));

/// A handler that waits to be loaded.
struct Candidate {
    pattern: Pattern,
    name: String,
    /// What the table calls its origin.
    file: String,
    bytes: Bytes,
}

enum Bytes {
    File(PathBuf),
    BuiltIn(&'static [u8]),
}

/// Loads everything a source has.
///
/// # Errors
/// The folder cannot be read, or two files claim one route. A guest that cannot be loaded is not
/// an error.
pub fn load(source: &Source, config: &Config, loader: &Loader) -> Result<Snapshot> {
    let candidates = candidates(source)?;
    // Conflicts are found before the long work begins.
    let files = candidates.iter().map(|it| (it.pattern.clone(), (), it.file.clone()));
    table(files, config.native, |_| ())?;
    let targets = load_all(&candidates, config, loader);
    let empty = candidates.is_empty();
    let mut routes: Vec<_> = candidates
        .into_iter()
        .zip(targets)
        .map(|(candidate, target)| (candidate.pattern, target, candidate.file))
        .collect();
    if empty {
        let index = Pattern::parse("index").context("the pattern of the landing page")?;
        routes.push((index, Target::Landing, "built in".into()));
    }
    let table = table(routes, config.native, Target::Native)?;
    report(&table, config);
    Ok(Snapshot { table })
}

/// Builds the table, with the twins if they are wanted.
///
/// # Errors
/// Two sources claim one route.
fn table<T>(
    routes: impl IntoIterator<Item = (Pattern, T, String)>,
    native: bool,
    target: impl Fn(Twin) -> T,
) -> Result<Table<T>> {
    let twins = Twin::ALL.into_iter().filter(|_| native).map(|twin| {
        (Pattern::prefix(&["native", twin.name()]), target(twin), "built in".to_owned())
    });
    Table::build(routes.into_iter().chain(twins))
        .map_err(|conflicts| anyhow::anyhow!("{conflicts}"))
}

fn candidates(source: &Source) -> Result<Vec<Candidate>> {
    match source {
        Source::Demo => DEMO_GUESTS
            .iter()
            .map(|(name, wasm)| {
                Ok(Candidate {
                    pattern: Pattern::parse(name).context("the pattern of a demo guest")?,
                    name: (*name).to_owned(),
                    file: format!("{name}.wasm (built in)"),
                    bytes: Bytes::BuiltIn(wasm),
                })
            })
            .collect(),
        Source::Folder(folder) => {
            let scan = scan(folder)?;
            for skipped in &scan.skipped {
                let path = skipped.path.to_string_lossy();
                tracing::warn!("{}: {}", escape(path.as_bytes(), 512), skipped.reason);
            }
            let candidate = |found: super::scan::Found| Candidate {
                pattern: found.pattern,
                file: found.path.to_string_lossy().into_owned(),
                name: found.name,
                bytes: Bytes::File(found.path),
            };
            Ok(scan.found.into_iter().map(candidate).collect())
        }
    }
}

/// Loads the candidates on as many threads as there are cores. The order stays.
fn load_all(candidates: &[Candidate], config: &Config, loader: &Loader) -> Vec<Target> {
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    let next = AtomicUsize::new(0);
    let targets: Mutex<Vec<Option<Target>>> = Mutex::new(vec![None; candidates.len()]);
    std::thread::scope(|scope| {
        for _ in 0..threads.min(candidates.len()) {
            scope.spawn(|| {
                while let Some((index, candidate)) = {
                    let index = next.fetch_add(1, Ordering::Relaxed);
                    candidates.get(index).map(|candidate| (index, candidate))
                } {
                    let target = load_one(candidate, config, loader);
                    targets.lock().unwrap_or_else(PoisonError::into_inner)[index] = Some(target);
                }
            });
        }
    });
    let targets = targets.into_inner().unwrap_or_else(PoisonError::into_inner);
    targets.into_iter().map(|target| target.unwrap_or(Target::Failed)).collect()
}

fn load_one(candidate: &Candidate, config: &Config, loader: &Loader) -> Target {
    let (name, isolation) = (&candidate.name, config.isolation);
    let loaded: Result<Guest, load::Reason> = match &candidate.bytes {
        Bytes::File(path) => loader.load_file(path, name, isolation),
        Bytes::BuiltIn(wasm) => loader.load(wasm, name, isolation),
    };
    match loaded {
        Ok(guest) => Target::Guest(Arc::new(guest)),
        Err(reason) => {
            let file = escape(candidate.file.as_bytes(), 512);
            tracing::error!("{file}: {reason}; its route answers 503");
            Target::Failed
        }
    }
}

/// Logs a line per route.
fn report(table: &Table<Target>, config: &Config) {
    for route in table.routes() {
        let (kind, isolation) = match &route.target {
            Target::Guest(guest) => ("core", guest.isolation.to_string()),
            Target::Native(_) => ("native", "none".into()),
            Target::Failed => ("failed", "503".into()),
            Target::Landing => ("page", "none".into()),
        };
        let source = escape(route.source.as_bytes(), 512);
        tracing::info!("{:<28} {kind:<7} {isolation:<6} {source}", route.pattern.to_string());
    }
    if config.isolation == crate::config::Isolation::Reuse {
        tracing::info!("isolation reuse: a request can see what an earlier one left in the guest");
    }
}

/// The route table of a source without loading it.
///
/// # Errors
/// As [`load()`].
pub fn routes(source: &Source) -> Result<Vec<RouteLine>> {
    let candidates = candidates(source)?;
    let files = candidates.into_iter().map(|candidate| {
        let kind = match &candidate.bytes {
            Bytes::File(path) => load::kind_of_file(path),
            Bytes::BuiltIn(_) => "core",
        };
        (candidate.pattern, kind, candidate.file)
    });
    let table = table(files, false, |_| "native")?;
    let line = |route: &crate::registry::route::Route<&'static str>| RouteLine {
        pattern: route.pattern.to_string(),
        kind: route.target.to_owned(),
        file: route.source.clone(),
    };
    Ok(table.routes().iter().map(line).collect())
}

//! From a file's bytes to a [`Guest`]: take its machine code from the cache, or have a child
//! process compile it; link it, and note the state in which its instances begin.
//!
//! Owns the order of these steps. Every way in which a file can be bad ends in a sentence for the
//! log and for `check`; none of them stops the host, and no code of a guest runs here.

use std::io;
use std::path::Path;
use std::sync::Arc;

use anyhow::{Context, Result};

use super::budget::Budget;
use super::cache::{self, Artifact, Cache, Facts, Key, Setup};
use super::child::{Cancel, Children};
use super::compile::Job;
use super::engine::Engines;
use super::link::{Identity, Linkers};
use super::sniff::{self, FILE_BYTES_MAX};
use super::{Guest, Instance};
use crate::config::{CompileLimits, Limits, LogFormat, Words};

/// Memory that a loaded guest takes beside its code, in bytes: what links it, and its routes.
/// Measured with 10,000 small guests, rounded up.
const GUEST_BYTES: usize = 16 * 1024;

/// Loads guests: the engines with what they offer to import, the cache and the compilers.
pub struct Loader {
    pub engines: Arc<Engines>,
    linkers: Linkers,
    limits: Limits,
    cache: Option<Cache>,
    children: Children,
}

/// What a loader is made of.
pub struct Settings<'a> {
    pub limits: &'a Limits,
    pub compile: CompileLimits,
    /// How many threads will serve.
    pub workers: usize,
    /// What guests may have of the host's memory.
    pub memory: Budget,
    /// `None` for no cache.
    pub cache_dir: Option<&'a Path>,
    /// How children log.
    pub log: LogFormat,
}

/// Why a guest cannot be loaded, in words that a user can act on.
pub type Reason = String;

/// Why a guest was not loaded.
#[derive(Debug)]
pub struct Failure {
    pub reason: Reason,
    /// Whether the guest is not at fault, so that it is worth trying again.
    pub passing: bool,
}

impl Failure {
    pub fn lasting(reason: Reason) -> Self {
        Failure { reason, passing: false }
    }

    pub fn passing(reason: Reason) -> Self {
        Failure { reason, passing: true }
    }

    /// Why a file cannot be read. It may be that the host is short of something, or that the file
    /// is all right and its folder is not, so that passes.
    pub fn of_file(error: &io::Error) -> Self {
        Failure::passing(format!("cannot be read: {error}"))
    }
}

/// A file's bytes, and what they are to be read as.
pub struct Source {
    pub bytes: Vec<u8>,
    /// WebAssembly text, by the file's ending.
    pub is_text: bool,
}

/// A guest that can be served.
pub struct Loaded {
    pub guest: Guest,
    /// Names its contents, and the settings under which they were compiled.
    pub key: Key,
    /// Memory that it takes while it is loaded; an estimate.
    pub bytes: usize,
    /// Whether it had to be compiled.
    pub compiled: bool,
}

impl Loader {
    /// # Errors
    /// Where the engines cannot be made. A cache that cannot be used is a warning.
    pub fn new(settings: &Settings<'_>) -> Result<Self> {
        let memory = settings.memory.clone();
        let engines = Engines::new(settings.limits, settings.workers, memory);
        let engines = engines.context("could not start the engine")?;
        let cache = settings.cache_dir.and_then(|dir| match Cache::open(dir) {
            Ok(cache) => Some(cache),
            Err(error) => {
                tracing::warn!("no compile cache: {error}");
                None
            }
        });
        Ok(Loader {
            linkers: Linkers::new(&engines)?,
            limits: settings.limits.clone(),
            engines: Arc::new(engines),
            cache,
            children: Children { limits: settings.compile, log: settings.log },
        })
    }

    /// The key of a file's contents, for a guest that is told this.
    pub fn key(&self, source: &Source, words: &Words) -> Key {
        let Engines { small, large, concurrent, startup, .. } = &*self.engines;
        let engines = [&small[0], large, concurrent, startup];
        // A component's start-up is not kept, so nothing of what it is told is in its code.
        let env: &[_] = if sniff::is_component(&source.bytes) { &[] } else { &words.env };
        let settings = Setup { engines: &engines, env, limits: &self.limits };
        Key::new(&source.bytes, source.is_text, &settings)
    }

    /// Loads a guest. Blocks: it may compile, in a process of its own.
    ///
    /// # Errors
    /// The reason, in words that a user can act on.
    pub fn load(
        &self,
        source: &Source,
        key: Key,
        whose: &Identity<'_>,
        cancel: &Cancel,
    ) -> Result<Loaded, Failure> {
        let cached = self.cache.as_ref().and_then(|cache| cache.get(&key));
        let cached = cached.and_then(|(facts, artifact)| self.revive(facts, &artifact));
        let (facts, code, compiled) = match cached {
            Some((facts, code)) => (facts, code, false),
            None => {
                let (facts, code) = self.compile(source, &key, whose, cancel)?;
                (facts, code, true)
            }
        };
        let guest = self.linkers.link(whose, &facts, &code).map_err(Failure::lasting)?;
        let mut guest = self.with_baseline(guest, &facts).map_err(Failure::lasting)?;
        let bytes = code.bytes() + guest.baseline_bytes() + GUEST_BYTES;
        guest._charge = Some(self.engines.memory.take_anyway(bytes));
        Ok(Loaded { guest, key, bytes, compiled })
    }

    fn revive(&self, facts: Facts, artifact: &Artifact) -> Option<(Facts, cache::Code)> {
        let engine = self.engines.get(facts.class, facts.memory_bytes);
        match artifact.code(&facts.kind, engine) {
            Ok(code) => Some((facts, code)),
            Err(error) => {
                tracing::debug!("a cache entry does not fit and is made anew: {error:#}");
                None
            }
        }
    }

    fn compile(
        &self,
        source: &Source,
        key: &Key,
        whose: &Identity<'_>,
        cancel: &Cancel,
    ) -> Result<(Facts, cache::Code), Failure> {
        let (limits, words) = (self.limits.clone(), whose.words.clone());
        let name = whose.name.to_owned();
        let job = Job { name, is_text: source.is_text, limits, words };
        let (facts, code) = self.children.compile(job, &source.bytes, cancel)?;
        if let Some(cache) = &self.cache
            && let Err(error) = cache.put(key, &facts, &code)
        {
            tracing::warn!("{error}");
        }
        let engine = self.engines.get(facts.class, facts.memory_bytes);
        let code = Artifact::compiled(code)
            .code(&facts.kind, engine)
            // Its code has been tried, so this is for want of memory or mappings.
            .map_err(|error| Failure::passing(format!("could not be made ready: {error:#}")))?;
        Ok((facts, code))
    }

    /// Notes the state in which instances begin, where they can be reset to it. The instance that
    /// shows it is thrown away, so its memory may be read: reading maps pages, which slows later
    /// scans.
    fn with_baseline(&self, guest: Guest, facts: &Facts) -> Result<Guest, Reason> {
        if facts.reset_globals.is_none() || facts.startup_each.is_some() {
            return Ok(guest);
        }
        let guest = Arc::new(guest);
        // Where every slot is taken, its instances are made anew instead of being reset.
        let instance = Instance::try_now(guest.clone())?;
        let baseline = instance.and_then(|mut instance| instance.baseline());
        let mut guest = Arc::into_inner(guest).expect("the instance that shared it was dropped");
        guest.set_baseline(baseline);
        Ok(guest)
    }
}

impl Source {
    /// Reads a file.
    ///
    /// # Errors
    /// Why it cannot be read.
    pub fn read(path: &Path) -> Result<Source, Failure> {
        let about = std::fs::metadata(path).map_err(|error| Failure::of_file(&error))?;
        if !about.is_file() {
            return Err(Failure::lasting("not a regular file".into()));
        }
        if about.len() > FILE_BYTES_MAX {
            return Err(Failure::lasting(format!(
                "the file has {} MiB, more than the {} MiB that are read",
                about.len() >> 20,
                FILE_BYTES_MAX >> 20
            )));
        }
        let bytes = std::fs::read(path).map_err(|error| Failure::of_file(&error))?;
        Ok(Source { bytes, is_text: path.extension().is_some_and(|ending| ending == "wat") })
    }
}

/// What a file is by its first bytes, without loading it: `core`, `component`, `text` or
/// `unknown`.
pub fn kind_of_file(path: &Path) -> &'static str {
    use std::io::Read;
    if path.extension().is_some_and(|ending| ending == "wat") {
        return "text";
    }
    let mut head = [0; 8];
    match std::fs::File::open(path).and_then(|mut file| file.read_exact(&mut head)) {
        Ok(()) => sniff::kind(&head),
        Err(_) => "unknown",
    }
}

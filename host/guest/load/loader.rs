//! From a file's bytes to a [`Guest`]: take its machine code from the cache, or have a child
//! process compile it; link it, and note the state in which its instances begin.
//!
//! Owns the order of these steps. Every way in which a file can be bad ends in a sentence for the
//! log and for `check`; none of them stops the host, and no code of a guest runs here.

use std::path::Path;
use std::sync::Arc;

use anyhow::{Context, Result};
use guesthouse_module::sniff;

use super::cache;
use super::cache::{Artifact, Cache, Facts, Key, Reads};
use super::child::{Bounds, Children};
use super::compile::Job;
use super::link::{Identity, Linkers};
use crate::config::LogFormat;
use crate::file::{self, Unread};
use crate::grants::Grants;
use crate::guest::engine::allocator::Freed;
use crate::guest::engine::budget::Budget;
use crate::guest::engine::class::Class;
use crate::guest::engine::engines::{Engines, INSTANCE_BYTES_MAX};
use crate::guest::engine::failure::{Cause, Failure};
use crate::guest::engine::form::Form;
use crate::guest::engine::resources::{Amount, MAPPINGS_PER_GUEST};
use crate::guest::instance::guest::Guest;
use crate::guest::instance::sandbox::Instance;

/// Largest file that is read, in bytes: room for a language runtime, not for an accident.
pub const FILE_BYTES_MAX: u64 = 128 * 1024 * 1024;
/// Memory that a loaded guest takes beside its code, in bytes: what links it, and its routes.
/// Measured with 10,000 small guests, rounded up.
const GUEST_BYTES: usize = 16 * 1024;

/// Loads guests: the engines with what they offer to import, the cache and the compilers.
pub struct Loader {
    pub engines: Arc<Engines>,
    linkers: Linkers,
    cache: Option<Cache>,
    children: Children,
}

/// What a loader is made of.
pub struct Settings<'a> {
    /// The most that the memories of one instance may have, of any guest.
    pub memory_bytes_max: usize,
    /// How many threads will serve.
    pub workers: usize,
    /// What guests may have of the host's memory.
    pub memory: Budget,
    /// Mappings that the process may have, where that is less than the kernel allows.
    pub mappings_max: Option<u64>,
    /// `None` for no cache.
    pub cache_dir: Option<&'a Path>,
    /// How children log.
    pub log: LogFormat,
}

/// A file's bytes, and what they are to be read as.
pub struct Contents {
    pub bytes: Vec<u8>,
    /// WebAssembly text, by the file's ending.
    pub is_text: bool,
}

/// What a guest takes while it is loaded.
#[derive(Clone, Copy, Debug, Default)]
pub struct Size {
    /// Of memory; an estimate.
    pub bytes: usize,
    /// Of what the kernel counts.
    pub amount: Amount,
}

/// A guest that can be served.
pub struct Loaded {
    pub guest: Guest,
    /// Names its contents, and the settings under which they were compiled.
    pub key: Key,
    pub size: Size,
    /// Whether it had to be compiled.
    pub compiled: bool,
    /// Why a component is served as it is, and not as its one module.
    pub not_flat: Option<String>,
}

impl Loader {
    /// # Errors
    /// Where the engines cannot be made. A cache that cannot be used is a warning.
    pub fn new(settings: &Settings<'_>) -> Result<Self> {
        let (memory, mappings_max) = (settings.memory.clone(), settings.mappings_max);
        let engines =
            Engines::new(settings.memory_bytes_max, settings.workers, memory, mappings_max);
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
            engines: Arc::new(engines),
            cache,
            children: Children { log: settings.log },
        })
    }

    /// The key of a file's contents.
    pub fn key(&self, source: &Contents) -> Key {
        let Engines { small, large, concurrent, startup, .. } = &*self.engines;
        let engines = [&small[0], large, concurrent, startup];
        Key::new(&source.bytes, source.is_text, &engines)
    }

    /// Loads a guest. Blocks: it may compile, in a process of its own.
    ///
    /// # Errors
    /// The reason, in words that a user can act on.
    pub fn load(
        &self,
        source: &Contents,
        key: Key,
        whose: &Identity<'_>,
        bounds: &mut Bounds<'_>,
    ) -> Result<Loaded, Failure> {
        let (cached, reads) = self.cached(&key, whose.grants, bounds.take)?;
        let (facts, code, compiled) = match cached {
            Some((facts, code)) => (facts, code, false),
            None => {
                let (facts, code) = self.compile(source, &key, whose, reads, bounds)?;
                (facts, code, true)
            }
        };
        let guest = self.linkers.link(whose, &facts, &code)?;
        let mut guest = self.with_baseline(guest, &facts)?;
        let beside = facts.decoded_bytes + guest.baseline_bytes() + GUEST_BYTES;
        // An image that is mapped is in a file in memory.
        let mapped = if facts.class == Class::Small { 0 } else { facts.image_bytes };
        let bytes = code.bytes() + beside + mapped as usize;
        let size = Size { bytes, amount: amount(&facts, &code)? };
        guest._charge = Some(self.engines.memory.take_anyway(bytes));
        guest._freed = Some(Freed(beside - GUEST_BYTES));
        guest._held = Some(self.engines.resources.hold(size.amount));
        Ok(Loaded { guest, key, size, compiled, not_flat: facts.not_flat })
    }

    /// What the cache has for a guest; where that is nothing, what start-up code may have read of
    /// its grants.
    fn cached(
        &self,
        key: &Key,
        grants: &Grants,
        take: &mut dyn FnMut(u64) -> Result<(), Failure>,
    ) -> Result<(Option<(Facts, cache::Code)>, Reads), Failure> {
        let Some(cache) = &self.cache else { return Ok((None, Reads::default())) };
        match cache.get(key, grants, take)? {
            Ok((facts, artifact)) => {
                let reads = facts.startup_reads;
                Ok((self.revive(facts, &artifact)?, reads))
            }
            Err(reads) => Ok((None, reads)),
        }
    }

    /// The code of a cache entry; `None` where it does not fit.
    fn revive(
        &self,
        facts: Facts,
        artifact: &Artifact,
    ) -> Result<Option<(Facts, cache::Code)>, Failure> {
        let engine = self.engines.get(facts.class, facts.memory_bytes);
        match artifact.code(&facts.kind, engine) {
            Ok(code) => Ok(Some((facts, code))),
            Err(error) => match not_ready(&error) {
                // To compile it would need even more.
                failure if failure.cause == Cause::Shortage => Err(failure),
                failure => {
                    tracing::debug!(
                        "a cache entry does not fit and is made anew: {}",
                        failure.reason
                    );
                    Ok(None)
                }
            },
        }
    }

    fn compile(
        &self,
        source: &Contents,
        key: &Key,
        whose: &Identity<'_>,
        reads: Reads,
        bounds: &mut Bounds<'_>,
    ) -> Result<(Facts, cache::Code), Failure> {
        let (name, grants) = (whose.name.to_owned(), Arc::new(whose.grants.for_compiler()));
        let job = Job { name, is_text: source.is_text, grants };
        let (mut facts, code) = self.children.compile(job, &source.bytes, bounds)?;
        // Other guests that are made of the same file may have read more.
        facts.startup_reads = facts.startup_reads.or(reads);
        let artifact = Artifact::compiled(code);
        let engine = self.engines.get(facts.class, facts.memory_bytes);
        // It has been tried, but on an engine without a pool, which has limits of its own.
        let code = artifact.code(&facts.kind, engine).map_err(|error| not_ready(&error));
        let is_of_use = !matches!(&code, Err(failure) if failure.cause == Cause::File);
        if let Some(cache) = self.cache.as_ref().filter(|_| is_of_use)
            && let Err(error) = cache.put(key, whose.grants, &facts, artifact.bytes())
        {
            tracing::warn!("{error}");
        }
        Ok((facts, code?))
    }

    /// Notes the state in which instances begin, where they can be reset to it. The instance that
    /// shows it is thrown away, so its memory may be read: reading maps pages, which slows later
    /// scans.
    fn with_baseline(&self, guest: Guest, facts: &Facts) -> Result<Guest, Failure> {
        if facts.reset_globals.is_none() || facts.startup_each.is_some() {
            return Ok(guest);
        }
        let guest = Arc::new(guest);
        // Where every slot is taken, its instances are made anew instead of being reset.
        let instance = Instance::try_now(guest.clone())?;
        let baseline = instance.and_then(|mut instance| instance.baseline());
        let mut guest = Arc::into_inner(guest).expect("the instance that shared it was dropped");
        guest.baseline = baseline;
        Ok(guest)
    }
}

/// Why compiled code cannot be put to use.
fn not_ready(error: &wasmtime::Error) -> Failure {
    let failure = Failure::of_engine("could not be made ready", error);
    if failure.cause == Cause::File && failure.reason.contains("instance allocation for this") {
        return Failure::of_file(format!(
            "its globals, functions and imports take more than the {} KiB that an instance has \
             for them: use fewer",
            INSTANCE_BYTES_MAX >> 10
        ));
    }
    failure
}

/// What a guest holds of what the kernel counts. An image that is mapped is a file that stays open,
/// one for each memory.
///
/// # Errors
/// It cannot be opened now.
fn amount(facts: &Facts, code: &cache::Code) -> Result<Amount, Failure> {
    let descriptors = match code {
        _ if facts.class == Class::Small => 0,
        Form::Core(module) | Form::Flat02((module, _)) | Form::Flat03((module, _)) => {
            let image = module.initialize_copy_on_write_image();
            image.map_err(|error| not_ready(&error))?;
            facts.images.max(1) as u64
        }
        // Its modules open theirs with its first instance: those with data, and one more.
        Form::Whole02(_) | Form::Whole03(_) => facts.images.max(1) as u64 + 1,
    };
    Ok(Amount { mappings: MAPPINGS_PER_GUEST, descriptors })
}

impl Contents {
    /// Reads a file.
    ///
    /// # Errors
    /// Why it cannot be read.
    pub fn read(path: &Path) -> Result<Contents, Failure> {
        let bytes = file::read(path, FILE_BYTES_MAX).map_err(|error| match error {
            Unread::Io(error) => Failure::of_access(&error),
            Unread::NotRegular => Failure::of_file("not a regular file".into()),
            Unread::TooLong(len) => Failure::of_file(format!(
                "the file has {} MiB, more than the {} MiB that are read",
                len >> 20,
                FILE_BYTES_MAX >> 20
            )),
        })?;
        Ok(Contents { bytes, is_text: path.extension().is_some_and(|ending| ending == "wat") })
    }
}

/// What a file is by its first bytes, without loading it: `core`, `component`, `text` or
/// `unknown`.
pub fn kind_of_file(path: &Path) -> &'static str {
    if path.extension().is_some_and(|ending| ending == "wat") {
        return "text";
    }
    file::head(path).map_or("unknown", |head| sniff::kind(&head))
}

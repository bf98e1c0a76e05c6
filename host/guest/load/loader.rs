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
use super::cache::{Artifact, ArtifactMetadata, Cache, CacheKey, GrantReads};
use super::compiler::CompileJob;
use super::compiler_process::{Bounds, CompilerProcess};
use super::link::{GuestSpec, Linkers};
use crate::config::LogFormat;
use crate::file::{self, FileError};
use crate::grants::Grants;
use crate::guest::engine::allocator::FreedNotice;
use crate::guest::engine::budget::Budget;
use crate::guest::engine::class::Class;
use crate::guest::engine::engines::{Engines, INSTANCE_BYTES_MAX};
use crate::guest::engine::form::Form;
use crate::guest::engine::load_failure::{FailureCause, LoadFailure};
use crate::guest::engine::resources::{MAPPINGS_PER_GUEST, ResourceAmount};
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
    compiler_process: CompilerProcess,
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
    pub amount: ResourceAmount,
}

/// A guest that can be served.
pub struct Loaded {
    pub guest: Guest,
    /// Names its contents, and the settings under which they were compiled.
    pub key: CacheKey,
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
            compiler_process: CompilerProcess { log: settings.log },
        })
    }

    /// The key of a file's contents.
    pub fn key(&self, source: &Contents) -> CacheKey {
        let Engines { small, large, concurrent, startup, .. } = &*self.engines;
        let engines = [&small[0], large, concurrent, startup];
        CacheKey::new(&source.bytes, source.is_text, &engines)
    }

    /// Loads a guest. Blocks: it may compile, in a process of its own.
    ///
    /// # Errors
    /// The reason, in words that a user can act on.
    pub fn load(
        &self,
        source: &Contents,
        key: CacheKey,
        spec: &GuestSpec<'_>,
        bounds: &mut Bounds<'_>,
    ) -> Result<Loaded, LoadFailure> {
        let (cached, reads) = self.cached(&key, spec.grants, bounds.take)?;
        let (facts, code, compiled) = match cached {
            Some((facts, code)) => (facts, code, false),
            None => {
                let (facts, code) = self.compile(source, &key, spec, reads, bounds)?;
                (facts, code, true)
            }
        };
        let guest = self.linkers.link(spec, &facts, &code)?;
        let mut guest = self.with_baseline(guest, &facts)?;
        let beside = facts.decoded_bytes + guest.baseline_bytes() + GUEST_BYTES;
        // An image that is mapped is in a file in memory.
        let mapped = if facts.class == Class::Small { 0 } else { facts.image_bytes };
        let bytes = code.bytes() + beside + mapped as usize;
        let size = Size { bytes, amount: resource_amount(&facts, &code)? };
        guest._charge = Some(self.engines.memory.force_charge(bytes));
        guest._freed = Some(FreedNotice(beside - GUEST_BYTES));
        guest._reservation = Some(self.engines.resources.reserve_for_guest(size.amount));
        Ok(Loaded { guest, key, size, compiled, not_flat: facts.not_flat })
    }

    /// What the cache has for a guest; where that is nothing, what start-up code may have read of
    /// its grants.
    fn cached(
        &self,
        key: &CacheKey,
        grants: &Grants,
        take: &mut dyn FnMut(u64) -> Result<(), LoadFailure>,
    ) -> Result<(Option<(ArtifactMetadata, cache::CompiledCode)>, GrantReads), LoadFailure> {
        let Some(cache) = &self.cache else { return Ok((None, GrantReads::default())) };
        match cache.get(key, grants, take)? {
            Ok((facts, artifact)) => {
                let reads = facts.startup_reads;
                Ok((self.deserialize_cached(facts, &artifact)?, reads))
            }
            Err(reads) => Ok((None, reads)),
        }
    }

    /// The code of a cache entry; `None` where it does not fit.
    fn deserialize_cached(
        &self,
        facts: ArtifactMetadata,
        artifact: &Artifact,
    ) -> Result<Option<(ArtifactMetadata, cache::CompiledCode)>, LoadFailure> {
        let engine = self.engines.get(facts.class, facts.memory_bytes);
        match artifact.code(&facts.kind, engine) {
            Ok(code) => Ok(Some((facts, code))),
            Err(error) => match not_ready(&error) {
                // To compile it would need even more.
                failure if failure.cause == FailureCause::Shortage => Err(failure),
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
        key: &CacheKey,
        spec: &GuestSpec<'_>,
        reads: GrantReads,
        bounds: &mut Bounds<'_>,
    ) -> Result<(ArtifactMetadata, cache::CompiledCode), LoadFailure> {
        let (name, grants) = (spec.name.to_owned(), Arc::new(spec.grants.for_compiler()));
        let job = CompileJob { name, is_text: source.is_text, grants };
        let (mut facts, code) = self.compiler_process.compile(job, &source.bytes, bounds)?;
        // Other guests that are made of the same file may have read more.
        facts.startup_reads = facts.startup_reads.or(reads);
        let artifact = Artifact::compiled(code);
        let engine = self.engines.get(facts.class, facts.memory_bytes);
        // It has been tried, but on an engine without a pool, which has limits of its own.
        let code = artifact.code(&facts.kind, engine).map_err(|error| not_ready(&error));
        let is_of_use = !matches!(&code, Err(failure) if failure.cause == FailureCause::File);
        if let Some(cache) = self.cache.as_ref().filter(|_| is_of_use)
            && let Err(error) = cache.put(key, spec.grants, &facts, artifact.bytes())
        {
            tracing::warn!("{error}");
        }
        Ok((facts, code?))
    }

    /// Notes the state in which instances begin, where they can be reset to it. The instance that
    /// shows it is thrown away, so its memory may be read: reading maps pages, which slows later
    /// scans.
    fn with_baseline(&self, guest: Guest, facts: &ArtifactMetadata) -> Result<Guest, LoadFailure> {
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
fn not_ready(error: &wasmtime::Error) -> LoadFailure {
    let failure = LoadFailure::of_engine("could not be made ready", error);
    if failure.cause == FailureCause::File
        && failure.reason.contains("instance allocation for this")
    {
        return LoadFailure::of_file(format!(
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
fn resource_amount(
    facts: &ArtifactMetadata,
    code: &cache::CompiledCode,
) -> Result<ResourceAmount, LoadFailure> {
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
    Ok(ResourceAmount { mappings: MAPPINGS_PER_GUEST, descriptors })
}

impl Contents {
    /// Reads a file.
    ///
    /// # Errors
    /// Why it cannot be read.
    pub fn read(path: &Path) -> Result<Contents, LoadFailure> {
        let bytes = file::read(path, FILE_BYTES_MAX).map_err(|error| match error {
            FileError::Io(error) => LoadFailure::of_access(&error),
            FileError::NotRegular => LoadFailure::of_file("not a regular file".into()),
            FileError::TooLong(len) => LoadFailure::of_file(format!(
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

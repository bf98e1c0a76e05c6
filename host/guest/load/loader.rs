//! From a file's bytes to a [`Guest`]: take its machine code from the cache, or have a child
//! process compile it; link it, and record the state in which its instances begin.
//!
//! Owns the order of these steps. Whatever is wrong with a file ends in a sentence for the log and
//! for `check`. It never stops the host, and no code of a guest runs here.

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

/// The largest file that is read, in bytes: enough for a language runtime.
pub const FILE_BYTES_MAX: u64 = 128 * 1024 * 1024;
/// Bytes that a loaded guest takes beside its code: linking it, and its routes. Measured with
/// 10,000 small guests, rounded up.
const GUEST_BYTES: usize = 16 * 1024;

/// Loads guests: the engines, the linkers, the cache and the compilers.
pub struct Loader {
    /// The engines that all guests run on.
    pub engines: Arc<Engines>,
    linkers: Linkers,
    cache: Option<Cache>,
    compiler_process: CompilerProcess,
}

/// The settings of a loader.
pub struct Settings<'a> {
    /// Bytes that the memories of one instance may have, for any guest.
    pub memory_bytes_max: usize,
    /// How many worker threads there will be.
    pub workers: usize,
    /// The memory that guests are charged to.
    pub memory: Budget,
    /// A limit on the process's mappings below the kernel's.
    pub mappings_max: Option<u64>,
    /// The folder of the compile cache; `None` for no cache.
    pub cache_dir: Option<&'a Path>,
    /// How compilers log.
    pub log: LogFormat,
}

/// The contents of a handler's file.
pub struct Contents {
    /// The bytes of the file.
    pub bytes: Vec<u8>,
    /// Whether they are WebAssembly text, by the file's extension.
    pub is_text: bool,
}

/// What a loaded guest takes.
#[derive(Clone, Copy, Debug, Default)]
pub struct Size {
    /// Bytes of memory, estimated.
    pub bytes: usize,
    /// Mappings and descriptors.
    pub amount: ResourceAmount,
}

/// A guest that can be served.
pub struct Loaded {
    /// The guest itself.
    pub guest: Guest,
    /// The key of its contents, and of the settings for compiling them.
    pub key: CacheKey,
    /// What it takes while it is loaded.
    pub size: Size,
    /// Whether it had to be compiled: the cache had no entry.
    pub compiled: bool,
    /// Why a component is served whole and not flat.
    pub not_flat: Option<String>,
}

impl Loader {
    /// Makes the engines and the linkers, and opens the cache. A cache that cannot be used is only
    /// a warning.
    ///
    /// # Errors
    /// The engines cannot be made.
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

    /// Loads a guest. Blocks: it may compile in a child process.
    ///
    /// # Errors
    /// The reason, in words that tell a user what to do.
    pub fn load(
        &self,
        source: &Contents,
        key: CacheKey,
        spec: &GuestSpec<'_>,
        bounds: &mut Bounds<'_>,
    ) -> Result<Loaded, LoadFailure> {
        let (cached, reads) = self.cached(&key, spec.grants, bounds.take)?;
        let (metadata, code, compiled) = match cached {
            Some((metadata, code)) => (metadata, code, false),
            None => {
                let (metadata, code) = self.compile(source, &key, spec, reads, bounds)?;
                (metadata, code, true)
            }
        };
        let guest = self.linkers.link(spec, &metadata, &code)?;
        let mut guest = self.with_baseline(guest, &metadata)?;
        let beside = metadata.decoded_bytes + guest.baseline_bytes() + GUEST_BYTES;
        // A mapped image is also in an anonymous file.
        let mapped = if metadata.class == Class::Small { 0 } else { metadata.image_bytes };
        let bytes = code.bytes() + beside + mapped as usize;
        let size = Size { bytes, amount: resource_amount(&metadata, &code)? };
        guest._charge = Some(self.engines.memory.force_charge(bytes));
        guest._freed = Some(FreedNotice(beside - GUEST_BYTES));
        guest._reservation = Some(self.engines.resources.reserve_for_guest(size.amount));
        Ok(Loaded { guest, key, size, compiled, not_flat: metadata.not_flat })
    }

    /// The code that the cache has for a guest. If it has none: which grants start-up code may have
    /// read.
    fn cached(
        &self,
        key: &CacheKey,
        grants: &Grants,
        take: &mut dyn FnMut(u64) -> Result<(), LoadFailure>,
    ) -> Result<(Option<(ArtifactMetadata, cache::CompiledCode)>, GrantReads), LoadFailure> {
        let Some(cache) = &self.cache else { return Ok((None, GrantReads::default())) };
        match cache.get(key, grants, take)? {
            Ok((metadata, artifact)) => {
                let reads = metadata.startup_reads;
                Ok((self.deserialize_cached(metadata, &artifact)?, reads))
            }
            Err(reads) => Ok((None, reads)),
        }
    }

    /// Loads the code of a cache entry; `None` if it does not fit.
    fn deserialize_cached(
        &self,
        metadata: ArtifactMetadata,
        artifact: &Artifact,
    ) -> Result<Option<(ArtifactMetadata, cache::CompiledCode)>, LoadFailure> {
        let engine = self.engines.get(metadata.class, metadata.memory_bytes);
        match artifact.code(&metadata.kind, engine) {
            Ok(code) => Ok(Some((metadata, code))),
            Err(error) => match not_ready(&error) {
                // Compiling would need even more.
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
        let (mut metadata, code) = self.compiler_process.compile(job, &source.bytes, bounds)?;
        // Other handlers with the same contents may have read more.
        metadata.startup_reads = metadata.startup_reads.or(reads);
        let artifact = Artifact::compiled(code);
        let engine = self.engines.get(metadata.class, metadata.memory_bytes);
        // The compiler has tried it, but on an engine without a pool and its limits.
        let code = artifact.code(&metadata.kind, engine).map_err(|error| not_ready(&error));
        let is_of_use = !matches!(&code, Err(failure) if failure.cause == FailureCause::File);
        if let Some(cache) = self.cache.as_ref().filter(|_| is_of_use)
            && let Err(error) = cache.put(key, spec.grants, &metadata, artifact.bytes())
        {
            tracing::warn!("{error}");
        }
        Ok((metadata, code?))
    }

    /// Records the baseline, if instances can be reset. The instance that shows it is dropped:
    /// reading its memory maps pages, which would slow down resets.
    fn with_baseline(
        &self,
        guest: Guest,
        metadata: &ArtifactMetadata,
    ) -> Result<Guest, LoadFailure> {
        if metadata.reset_globals.is_none() || metadata.startup_each.is_some() {
            return Ok(guest);
        }
        let guest = Arc::new(guest);
        // If all slots are taken, there is no baseline, and instances are made anew instead.
        let instance = Instance::try_now(guest.clone())?;
        let baseline = instance.and_then(|mut instance| instance.baseline());
        let mut guest = Arc::into_inner(guest).expect("the instance that shared it was dropped");
        guest.baseline = baseline;
        Ok(guest)
    }
}

/// Why compiled code cannot be used.
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

/// The mappings and descriptors of a guest. Each mapped image is a file that stays open.
///
/// # Errors
/// The files cannot be opened now.
fn resource_amount(
    metadata: &ArtifactMetadata,
    code: &cache::CompiledCode,
) -> Result<ResourceAmount, LoadFailure> {
    let descriptors = match code {
        _ if metadata.class == Class::Small => 0,
        Form::Core(module) | Form::Flat02((module, _)) | Form::Flat03((module, _)) => {
            let image = module.initialize_copy_on_write_image();
            image.map_err(|error| not_ready(&error))?;
            metadata.images.max(1) as u64
        }
        // The files are opened with the first instance: one for each module with data, and one
        // more.
        Form::Whole02(_) | Form::Whole03(_) => metadata.images.max(1) as u64 + 1,
    };
    Ok(ResourceAmount { mappings: MAPPINGS_PER_GUEST, descriptors })
}

impl Contents {
    /// Reads a file. Its extension says whether it is text.
    ///
    /// # Errors
    /// Why the file cannot be read.
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

/// What a file is by its first bytes, without loading it: `core`, `component`, `text` or `unknown`.
pub fn kind_of_file(path: &Path) -> &'static str {
    if path.extension().is_some_and(|ending| ending == "wat") {
        return "text";
    }
    file::head(path).map_or("unknown", |head| sniff::kind(&head))
}

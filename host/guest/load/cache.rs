//! The compile cache: machine code on disk, so that a second start compiles nothing.
//!
//! Owns the folder, the keys and the check of what is read. Entries are native code, so the folder
//! must belong to this user alone, and nothing is ever read from the handler folder.
#![allow(unsafe_code, reason = "wasmtime's deserialize trusts its input; see `code`")]

use std::fs::{self, DirBuilder};
use std::hash::{Hash, Hasher};
use std::io::Write;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use guesthouse_module::records::Size;
use guesthouse_module::reset::PROOF_VERSION;
use serde::{Deserialize, Serialize};
use wasmtime::component::Component;
use wasmtime::{Engine, Module};

use crate::file::{self, FileError};
use crate::grants::Grants;
use crate::guest::engine::class::Class;
use crate::guest::engine::form::Form;
use crate::guest::engine::load_failure::{FailureCause, LoadFailure};
use crate::guest::engine::resources::is_shortage;

/// Changes whenever the meaning of an entry changes.
const FORMAT: &str = "guesthouse-cache-16";
/// Bytes of the checksum at the start of an entry, and of the length after it.
const SUM_BYTES: usize = 32;
const LEN_BYTES: usize = 4;
/// Bytes of an entry at most: more than any code with its metadata.
const ENTRY_BYTES_MAX: u64 = 2 << 30;

/// A folder of compiled guests.
pub struct Cache {
    dir: PathBuf,
    serial: AtomicU64,
    /// When it was opened, in nanoseconds since 1970: tells this process from an earlier one with
    /// the same process id.
    born: u128,
}

/// The form of a guest, for flat components with the names of the exports by which they are called:
/// the handler, and for 0.3 the callback.
pub type ArtifactKind = Form<(), (), (), String, (String, String)>;

/// Which of the handler's grants the start-up code has read. Its snapshot depends on these.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct GrantReads {
    /// The environment variables.
    pub env: bool,
    /// The memory limit: a memory was refused growth because of it.
    pub memory: bool,
}

impl GrantReads {
    /// Whether the snapshot is the same for all grants.
    pub fn is_nothing(self) -> bool {
        self == GrantReads::default()
    }

    /// What either of them has read.
    pub fn or(self, other: GrantReads) -> GrantReads {
        GrantReads { env: self.env || other.env, memory: self.memory || other.memory }
    }
}

/// What loading a guest has found out beside its code.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct ArtifactMetadata {
    /// The form, and the exports by which it is called.
    pub kind: ArtifactKind,
    /// The class of engine that it runs on.
    pub class: Class,
    /// Bytes of all its memories at the start.
    pub memory_bytes: u64,
    /// Bytes that the engine keeps for each instance (`guesthouse_module::records`).
    pub record_bytes: usize,
    /// Bytes that the engine keeps once for what it has decoded, beside the code.
    pub decoded_bytes: usize,
    /// Slots of its engine that each instance takes.
    pub slots: usize,
    /// Memories whose image may be mapped.
    pub images: usize,
    /// Bytes of the images of its memories. They are in the code, and if they are mapped, once more
    /// in files.
    pub image_bytes: u64,
    /// Feature bits that the start-up code has enabled.
    pub features: u32,
    /// Why start-up code runs in each fresh instance; `None` if nothing is left to run.
    pub startup_each: Option<String>,
    /// The exports that run once before the first request, in this order.
    pub startup_functions: Vec<String>,
    /// Which grants the start-up code has read, if its result is kept.
    pub startup_reads: GrantReads,
    /// Mutable globals that are exported for resets; `None` if instances cannot be reset.
    pub reset_globals: Option<usize>,
    /// Why a component is served whole and not flat.
    pub not_flat: Option<String>,
}

impl ArtifactMetadata {
    /// The metadata of a guest without start-up code, whose instances cannot be reset.
    pub fn new(kind: ArtifactKind, class: Class, memory_bytes: u64) -> Self {
        ArtifactMetadata {
            kind,
            class,
            memory_bytes,
            record_bytes: 0,
            decoded_bytes: 0,
            slots: 1,
            images: 0,
            image_bytes: 0,
            features: 0,
            startup_each: None,
            startup_functions: Vec::new(),
            startup_reads: GrantReads::default(),
            reset_globals: None,
            not_flat: None,
        }
    }

    /// Enters what the code takes beside itself, once it is in its final form.
    pub fn note(&mut self, size: &Size) {
        (self.record_bytes, self.decoded_bytes) = (size.bytes, size.decoded_bytes);
        (self.slots, self.images) = (size.slots(), size.images);
        self.image_bytes = size.image_bytes;
    }
}

/// The name of an entry.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct CacheKey(blake3::Hash);

/// Hashes what wasmtime says of its settings.
struct Digest(blake3::Hasher);

impl Hasher for Digest {
    fn write(&mut self, bytes: &[u8]) {
        self.0.update(bytes);
    }

    fn finish(&self) -> u64 {
        0
    }
}

impl CacheKey {
    /// The key of a file's contents, and of everything else that all code depends on.
    pub fn new(bytes: &[u8], is_text: bool, engines: &[&Engine]) -> Self {
        let mut digest = Digest(blake3::Hasher::new());
        digest.write(FORMAT.as_bytes());
        digest.write(env!("CARGO_PKG_VERSION").as_bytes());
        digest.write(&PROOF_VERSION.to_le_bytes());
        for engine in engines {
            engine.precompile_compatibility_hash().hash(&mut digest);
        }
        digest.write(&[u8::from(is_text)]);
        digest.write(bytes);
        CacheKey(digest.0.finalize())
    }

    /// The key of the code for a guest with these grants, whose start-up code has read some of
    /// them.
    fn with_reads(&self, reads: GrantReads, grants: &Grants) -> Self {
        let mut digest = Digest(blake3::Hasher::new());
        digest.write(self.0.as_bytes());
        let env = reads.env.then_some(&grants.variables.env);
        let memory_bytes_max = reads.memory.then_some(grants.limits.memory_bytes_max);
        (env, memory_bytes_max).hash(&mut digest);
        CacheKey(digest.0.finalize())
    }

    /// The checksum of an entry's parts. It includes the key, so that no entry passes for another.
    fn sum(&self, parts: &[&[u8]]) -> blake3::Hash {
        let mut hasher = blake3::Hasher::new_keyed(self.0.as_bytes());
        for part in parts {
            hasher.update(part);
        }
        hasher.finalize()
    }
}

impl Cache {
    /// Opens the folder, and makes it if need be.
    ///
    /// # Errors
    /// A sentence, if the folder cannot be made or others have access to it.
    pub fn open(dir: &Path) -> Result<Self, String> {
        DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(dir)
            .map_err(|error| format!("could not make the folder {}: {error}", dir.display()))?;
        let about = fs::metadata(dir).map_err(|error| format!("{}: {error}", dir.display()))?;
        let user = rustix::process::geteuid().as_raw();
        if about.uid() != user || about.mode() & 0o077 != 0 {
            return Err(format!(
                "{} must belong to this user alone (mode 0700), because it holds native code: \
                 chmod 700 it, or name another with --cache-dir",
                dir.display()
            ));
        }
        remove_temporary_files(dir);
        let born = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |time| time.as_nanos());
        Ok(Cache { dir: dir.to_owned(), serial: AtomicU64::new(0), born })
    }

    fn path(&self, key: &CacheKey) -> PathBuf {
        self.dir.join(key.0.to_hex().as_str())
    }

    /// The entry for a file's contents and these grants. If there is none or it is damaged: which
    /// grants start-up code may have read. `take` charges memory for the bytes before they are
    /// read.
    ///
    /// # Errors
    /// The error of `take`, or the kernel is short of something.
    pub fn get(
        &self,
        key: &CacheKey,
        grants: &Grants,
        take: &mut dyn FnMut(u64) -> Result<(), LoadFailure>,
    ) -> Result<Result<(ArtifactMetadata, Artifact), GrantReads>, LoadFailure> {
        let Some((metadata, artifact)) = self.entry(key, take)? else {
            return Ok(Err(GrantReads::default()));
        };
        let reads = metadata.startup_reads;
        let entry = if reads.is_nothing() {
            Some((metadata, artifact))
        } else {
            self.entry(&key.with_reads(reads, grants), take)?
        };
        Ok(match entry {
            Some((metadata, _))
                if metadata.memory_bytes > grants.limits.memory_bytes_max as u64 =>
            {
                // The entry was made for a handler that may have more.
                Err(GrantReads { memory: true, ..reads })
            }
            entry => entry.ok_or(reads),
        })
    }

    fn entry(
        &self,
        key: &CacheKey,
        take: &mut dyn FnMut(u64) -> Result<(), LoadFailure>,
    ) -> Result<Option<(ArtifactMetadata, Artifact)>, LoadFailure> {
        let path = self.path(key);
        let Ok(about) = fs::metadata(&path) else { return Ok(None) };
        let len = about.len().min(ENTRY_BYTES_MAX);
        match take(len) {
            // The length may be wrong, if the entry is damaged: this is no fault of the file.
            Err(failure) if failure.cause == FailureCause::File => return Ok(None),
            taken => taken?,
        }
        match file::read(&path, len) {
            Ok(entry) => Ok(read_entry(key, entry)),
            Err(FileError::Io(error)) if is_shortage(&error) => {
                Err(LoadFailure::of_process("no compiled code", &error))
            }
            Err(_) => Ok(None),
        }
    }

    /// Writes an entry for a guest with these grants. If its start-up code has read some of them,
    /// the entry for the contents alone says so and has no code.
    ///
    /// # Errors
    /// A sentence. The guest works without an entry.
    pub fn put(
        &self,
        key: &CacheKey,
        grants: &Grants,
        metadata: &ArtifactMetadata,
        code: &[u8],
    ) -> Result<(), String> {
        if metadata.startup_reads.is_nothing() {
            return self.write(key, metadata, code);
        }
        self.write(&key.with_reads(metadata.startup_reads, grants), metadata, code)?;
        self.write(key, metadata, &[])
    }

    /// Writes an entry. It appears whole or not at all.
    fn write(
        &self,
        key: &CacheKey,
        metadata: &ArtifactMetadata,
        code: &[u8],
    ) -> Result<(), String> {
        let metadata = serde_json::to_vec(metadata).map_err(|error| error.to_string())?;
        // Not joined, as that would take the memory of the code once more.
        let parts: [&[u8]; 3] = [&(metadata.len() as u32).to_le_bytes(), &metadata, code];
        let serial = self.serial.fetch_add(1, Ordering::Relaxed);
        let temp = self.dir.join(format!(".{}-{}-{serial}.tmp", std::process::id(), self.born));
        let written = fs::OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(&temp)
            .and_then(|mut file| {
                file.write_all(key.sum(&parts).as_bytes())?;
                parts.into_iter().try_for_each(|part| file.write_all(part))
            })
            .and_then(|()| fs::rename(&temp, self.path(key)));
        written.map_err(|error| {
            // A partial file is of no use, and harmless if it cannot be removed.
            drop(fs::remove_file(&temp));
            format!("could not write to the cache {}: {error}", self.dir.display())
        })
    }
}

/// Splits an entry; `None` if it is damaged.
fn read_entry(key: &CacheKey, entry: Vec<u8>) -> Option<(ArtifactMetadata, Artifact)> {
    let (sum, rest) = entry.split_at_checked(SUM_BYTES)?;
    if key.sum(&[rest]).as_bytes() != sum {
        tracing::warn!("cache entry {} is damaged and is made anew", key.0.to_hex());
        return None;
    }
    let (len, rest) = rest.split_at_checked(LEN_BYTES)?;
    let len = u32::from_le_bytes(len.try_into().ok()?) as usize;
    let metadata = serde_json::from_slice(rest.get(..len)?).ok()?;
    Some((metadata, Artifact { start: SUM_BYTES + LEN_BYTES + len, entry }))
}

/// Removes what killed hosts have left half-written. Nobody writes for an hour.
fn remove_temporary_files(dir: &Path) {
    const HOUR: Duration = Duration::from_secs(3600);
    let Ok(entries) = fs::read_dir(dir) else { return };
    for entry in entries.flatten() {
        let is_temporary = entry.path().extension().is_some_and(|ending| ending == "tmp");
        let modified = entry.metadata().and_then(|about| about.modified());
        let is_old = modified.is_ok_and(|at| at.elapsed().is_ok_and(|age| age > HOUR));
        if is_temporary && is_old {
            // It is harmless if it stays.
            drop(fs::remove_file(entry.path()));
        }
    }
}

/// Machine code that can be linked, by its form, with the exports of flat components.
pub type CompiledCode =
    Form<Module, Component, Component, (Module, String), (Module, (String, String))>;

impl CompiledCode {
    /// Bytes that it takes in memory.
    pub fn bytes(&self) -> usize {
        let image = match self {
            Form::Core(module) | Form::Flat02((module, _)) | Form::Flat03((module, _)) => {
                module.image_range()
            }
            Form::Whole02(component) | Form::Whole03(component) => component.image_range(),
        };
        image.end as usize - image.start as usize
    }
}

/// Machine code that this host has compiled, now or earlier.
pub struct Artifact {
    entry: Vec<u8>,
    start: usize,
}

impl Artifact {
    /// Code that was just compiled.
    pub fn compiled(code: Vec<u8>) -> Self {
        Artifact { entry: code, start: 0 }
    }

    /// The code's bytes.
    pub fn bytes(&self) -> &[u8] {
        &self.entry[self.start..]
    }

    /// Loads the code into an engine.
    ///
    /// # Errors
    /// It is for another version or other settings, or the kernel is short of something.
    pub fn code(&self, kind: &ArtifactKind, engine: &Engine) -> wasmtime::Result<CompiledCode> {
        let bytes = self.bytes();
        // SAFETY: the bytes come from `precompile_module` or `precompile_component` of this
        // program, directly or from an entry with a valid checksum in a folder that only this user
        // can write to.
        let (module, component) = unsafe {
            (|| Module::deserialize(engine, bytes), || Component::deserialize(engine, bytes))
        };
        Ok(match kind {
            Form::Core(()) => Form::Core(module()?),
            Form::Whole02(()) => Form::Whole02(component()?),
            Form::Whole03(()) => Form::Whole03(component()?),
            Form::Flat02(handle) => Form::Flat02((module()?, handle.clone())),
            Form::Flat03(exports) => Form::Flat03((module()?, exports.clone())),
        })
    }
}

//! From a file's bytes to machine code: sniff, judge, run the start-up code once, compile, and try
//! one instance.
//!
//! Owns the order of these steps. All of them read untrusted bytes and some run untrusted code, so
//! the host does none of this itself. `guesthouse compile` does, one guest per process, under the
//! limits of [`super::compiler_process`].

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use anyhow::{Context, Result};
use guesthouse_module::component::{self, WasiHttpVersion};
use guesthouse_module::flatten::{FlatModule, flatten};
use guesthouse_module::imports::{self, Rules};
use guesthouse_module::interfaces::modules::{HTTP_HANDLER, PREVIEW1};
use guesthouse_module::interrupt::{self, Divisible};
use guesthouse_module::records::{self, Size};
use guesthouse_module::reset::{self, Resettable};
use guesthouse_module::{sniff, text};
use serde::{Deserialize, Serialize};
use wasmtime::Linker;

use super::cache::{Artifact, ArtifactMetadata};
use super::environment;
use super::link::{GuestSpec, Linkers, linker};
use super::startup;
use super::startup::StartupSnapshot;
use crate::grants::Grants;
use crate::guest::core::CoreState;
use crate::guest::engine::class::Class;
use crate::guest::engine::engines::Engines;
use crate::guest::engine::form::Form;
use crate::guest::engine::load_failure::{LoadFailure, Reason};
use crate::guest::instance::sandbox::Instance;
use crate::guest::schedule::{Ticker, TickerHandle};
use crate::log::escape;

/// Imports of core guests that copy as many bytes as they are told to, in one call.
const DIVISIBLE: &[Divisible] = &[
    Divisible { module: HTTP_HANDLER.name, name: "write_body" },
    Divisible { module: PREVIEW1.name, name: "random_get" },
];

/// A job of the compiler, without the file's bytes.
#[derive(Serialize, Deserialize)]
pub struct CompileJob {
    /// The handler's name, for the log.
    pub name: String,
    /// Whether the bytes are WebAssembly text.
    pub is_text: bool,
    /// What the handler may use: limits on the code and on its start-up.
    pub grants: Arc<Grants>,
}

/// Compiles guests. Its engines have the host's settings, but no pools.
pub struct Compiler {
    engines: Engines,
    linkers: Linkers,
    startup: Linker<CoreState>,
    ticker_handle: TickerHandle,
    _ticker: Ticker,
    /// For start-up code, which may wait for timers.
    runtime: tokio::runtime::Runtime,
}

/// A guest's metadata and machine code, or why there are none.
pub type Compiled = Result<(ArtifactMetadata, Vec<u8>), LoadFailure>;

impl Compiler {
    /// Makes a compiler.
    ///
    /// # Errors
    /// The engines, their thread or the runtime cannot be made.
    pub fn new() -> Result<Self> {
        let engines = Engines::unpooled().context("could not start the engine")?;
        let ticker = Ticker::start(engines.advance(), 1)?;
        let linkers = Linkers::new(&engines)?;
        let mut startup = linker(&engines.startup)?;
        environment::add_to_linker(&mut startup)?;
        startup::forbid_impure(&mut startup)?;
        let ticker_handle = ticker.handle_of(0);
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build();
        let runtime = runtime.context("could not make a runtime")?;
        Ok(Compiler { engines, linkers, startup, ticker_handle, _ticker: ticker, runtime })
    }

    /// Compiles a guest. Blocks while start-up code runs, up to the deadline.
    ///
    /// # Errors
    /// The outer error is a panic of the parser or the compiler. The inner one is the reason, in
    /// words that tell a user what to do.
    pub fn compile(&self, job: &CompileJob, bytes: &[u8]) -> std::thread::Result<Compiled> {
        catch_unwind(AssertUnwindSafe(|| self.compile_or_panic(job, bytes)))
    }

    fn compile_or_panic(&self, job: &CompileJob, bytes: &[u8]) -> Compiled {
        let parsed = if job.is_text { Some(text::binary(bytes, escape)?) } else { None };
        let wasm = parsed.as_deref().unwrap_or(bytes);
        if sniff::is_component(wasm) {
            return self.compile_component(job, wasm);
        }
        let about = sniff::read(wasm)?;
        imports::judge(&about, &job.rules())?;
        let (mut metadata, wasm) = self.runtime.block_on(self.prepare(job, wasm, &about))?;
        let wasm = interrupt::module(&wasm, DIVISIBLE)?.wasm;
        metadata.note(&records::read(&wasm)?);
        let engine = self.engines.get(metadata.class, metadata.memory_bytes);
        let code = engine.precompile_module(&wasm).map_err(|error| not_compiled(&error))?;
        self.runtime.block_on(self.try_out(job, &metadata, &code))?;
        Ok((metadata, code))
    }

    /// Compiles a component as its one module. Where that fails, the component is compiled whole.
    fn compile_flat(
        &self,
        job: &CompileJob,
        flat: FlatModule,
    ) -> Result<(ArtifactMetadata, Vec<u8>), LoadFailure> {
        let about = sniff::read(&flat.wasm)?;
        let mut wasm = flat.wasm;
        let kind = match flat.callback {
            None => Form::Flat02(flat.handle),
            Some(callback) => Form::Flat03((flat.handle, callback)),
        };
        let mut metadata =
            ArtifactMetadata::new(kind, class(&records::read(&wasm)?), about.memory_bytes);
        if let Some(resettable) = resettable(&wasm, metadata.class, &about) {
            metadata.reset_globals = Some(resettable.globals);
            wasm = resettable.wasm;
        }
        let wasm = interrupt::module(&wasm, &[])?.wasm;
        metadata.note(&records::read(&wasm)?);
        let engine = self.engines.get(metadata.class, metadata.memory_bytes);
        let code = engine.precompile_module(&wasm).map_err(|error| not_compiled(&error))?;
        self.runtime.block_on(self.try_out(job, &metadata, &code))?;
        Ok((metadata, code))
    }

    fn compile_component(
        &self,
        job: &CompileJob,
        wasm: &[u8],
    ) -> Result<(ArtifactMetadata, Vec<u8>), LoadFailure> {
        let about = component::read(wasm)?;
        let version = component::judge(&about, &job.rules())?;
        let why = match flatten(wasm, version, escape) {
            Ok(flat) => match self.compile_flat(job, flat) {
                Ok(compiled) => return Ok(compiled),
                Err(failure) => format!("its module alone fails: {}", failure.reason),
            },
            Err(why) => why,
        };
        let size = records::read(wasm)?;
        let (kind, class) = match version {
            WasiHttpVersion::Http03 => (Form::Whole03(()), Class::Concurrent),
            WasiHttpVersion::Http02 if about.needs_03() => (Form::Whole02(()), Class::Concurrent),
            WasiHttpVersion::Http02 => (Form::Whole02(()), class(&size)),
        };
        let mut metadata = ArtifactMetadata::new(kind, class, about.memory_bytes);
        metadata.not_flat = Some(why);
        metadata.startup_each = about.has_start.then(|| "it has a start function".into());
        let wasm = interrupt::component(wasm)?;
        metadata.note(&records::read(&wasm)?);
        let engine = self.engines.get(metadata.class, metadata.memory_bytes);
        let code = engine.precompile_component(&wasm).map_err(|error| not_compiled(&error))?;
        self.runtime.block_on(self.try_out(job, &metadata, &code))?;
        Ok((metadata, code))
    }

    /// Runs the start-up code and chooses the engine. Returns the module to compile.
    async fn prepare(
        &self,
        job: &CompileJob,
        wasm: &[u8],
        about: &sniff::Module,
    ) -> Result<(ArtifactMetadata, Vec<u8>), Reason> {
        let functions = startup_functions(about);
        let mut metadata = ArtifactMetadata::new(Form::Core(()), Class::Small, about.memory_bytes);
        metadata.startup_functions = functions.iter().map(|&name| name.to_owned()).collect();
        let mut memory_bytes = about.memory_bytes;
        let mut prepared = wasm.to_vec();
        let name = &job.name;
        if !functions.is_empty() {
            let call = CoreState::new(job.spec().about(&self.engines.memory), 0);
            match startup::snapshot(&self.startup, wasm, &functions, call, &self.ticker_handle)
                .await?
            {
                StartupSnapshot::Taken { wasm, reads, .. } if records::read(&wasm).is_err() => {
                    metadata.startup_reads = reads;
                    metadata.startup_each =
                        Some("its memory has too many gaps to be copied".into());
                }
                StartupSnapshot::Taken { wasm, features, reads } => {
                    let after = sniff::read(&wasm)?;
                    tracing::debug!("{name}: snapshot has {} segments", after.data_segments);
                    memory_bytes = after.memory_bytes;
                    (metadata.features, metadata.startup_reads) = (features, reads);
                    prepared = wasm;
                }
                StartupSnapshot::Refused { why, reads } => {
                    (metadata.startup_each, metadata.startup_reads) = (Some(why), reads);
                }
            }
        } else if about.has_start {
            metadata.startup_each = Some("it has a start function".into());
        }
        if let Some(why) = &metadata.startup_each {
            tracing::debug!("{name}: start-up code runs in each instance: {why}");
        }
        let size = records::read(&prepared)?;
        tracing::debug!("{name}: {size:?}");
        metadata.memory_bytes = memory_bytes;
        metadata.class = class(&size);
        let after = sniff::Module { memory_bytes, memories: about.memories, ..Default::default() };
        if metadata.startup_each.is_none()
            && let Some(resettable) = resettable(&prepared, metadata.class, &after)
        {
            metadata.reset_globals = Some(resettable.globals);
            prepared = resettable.wasm;
        }
        Ok((metadata, prepared))
    }

    /// Makes one instance, so that a guest which can never run is known before its first request.
    async fn try_out(
        &self,
        job: &CompileJob,
        metadata: &ArtifactMetadata,
        code: &[u8],
    ) -> Result<(), LoadFailure> {
        let engine = self.engines.get(metadata.class, metadata.memory_bytes);
        let code = Artifact::compiled(code.to_vec())
            .code(&metadata.kind, engine)
            .map_err(|error| LoadFailure::of_engine("could not be made ready", &error))?;
        let guest = Arc::new(self.linkers.link(&job.spec(), metadata, &code)?);
        Instance::try_make(guest, &self.ticker_handle).await.map(drop)
    }
}

impl CompileJob {
    fn spec(&self) -> GuestSpec<'_> {
        let CompileJob { name, grants, .. } = self;
        GuestSpec { id: 0, name, grants }
    }

    fn rules(&self) -> Rules {
        Rules { memory_bytes_max: self.grants.limits.memory_bytes_max as u64, escape }
    }
}

/// The class of a guest of this size.
fn class(size: &Size) -> Class {
    if size.is_small() { Class::Small } else { Class::Large }
}

/// The module in a form whose instances can be reset, if that is possible. The large class does
/// without: mapping its images again costs less than copying them.
fn resettable(wasm: &[u8], class: Class, about: &sniff::Module) -> Option<Resettable> {
    if class == Class::Large {
        return None;
    }
    let resettable = reset::qualify(wasm, about.memory_bytes, about.memories)?;
    // The added exports may exceed a limit of the format.
    sniff::read(&resettable.wasm).is_ok().then_some(resettable)
}

fn not_compiled(error: &wasmtime::Error) -> LoadFailure {
    LoadFailure::of_engine("could not be compiled", error)
}

/// The exports that run once before the first request, in this order.
fn startup_functions(about: &sniff::Module) -> Vec<&'static str> {
    ["_initialize", "_start"].into_iter().filter(|name| about.export(name).is_some()).collect()
}

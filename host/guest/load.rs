//! From a file's bytes to a [`Guest`]: sniff, check, run the start-up once, compile or take from
//! the cache, and try one instance.
//!
//! Owns the order of these steps. Every way in which a file can be bad ends in a sentence for the
//! log and for `check`; none of them stops the host.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use anyhow::{Context, Result};
use wasmtime::{Linker, Module, Store};

use super::cache::{Artifact, Cache, Facts, Key};
use super::call::Call;
use super::engine::{Class, Engines, Pulse, SMALL_IMAGE_BYTES_MAX};
use super::imports::{self, Offer};
use super::sniff::{self, FILE_BYTES_MAX};
use super::startup::{self, Snapshot};
use super::{About, Exports, Guest, Instance, Startup, core, reset};
use crate::config::{Isolation, Limits};

/// Loads guests: the engines with what they offer to import.
pub struct Loader {
    pub engines: Arc<Engines>,
    limits: Limits,
    offer: Offer,
    small: Linker<Call>,
    large: Linker<Call>,
    startup: Linker<Call>,
    cache: Option<Cache>,
    pulse: Pulse,
    next_id: AtomicUsize,
}

/// Why a guest cannot be loaded, in words that a user can act on.
pub type Reason = String;

impl Loader {
    /// `workers` is how many threads will serve; `cache_dir` is `None` for no cache.
    ///
    /// # Errors
    /// Where the engines cannot be made. A cache that cannot be used is a warning.
    pub fn new(limits: &Limits, workers: usize, cache_dir: Option<&Path>) -> Result<Self> {
        let engines = Engines::new(limits, workers).context("could not start the engine")?;
        let small = linker(&engines.small)?;
        let large = linker(&engines.large)?;
        let mut startup = linker(&engines.startup)?;
        startup::forbid_impure(&mut startup)?;
        let cache = cache_dir.and_then(|dir| match Cache::open(dir) {
            Ok(cache) => Some(cache),
            Err(error) => {
                tracing::warn!("no compile cache: {error}");
                None
            }
        });
        Ok(Loader {
            offer: offer(&small),
            limits: limits.clone(),
            // Loading has a pulse of its own, behind those of the workers.
            pulse: engines.pulse(workers),
            engines: Arc::new(engines),
            small,
            large,
            startup,
            cache,
            next_id: AtomicUsize::new(0),
        })
    }

    /// Reads and loads a file, by its ending as text (`.wat`) or binary.
    ///
    /// # Errors
    /// The reason, in words that a user can act on.
    pub fn load_file(
        &self,
        path: &Path,
        name: &str,
        isolation: Isolation,
    ) -> Result<Guest, Reason> {
        self.load(&read_file(path)?, name, isolation)
    }

    /// Loads a core module. Blocks: it compiles, and runs start-up code up to the deadline.
    ///
    /// # Errors
    /// As [`Loader::load_file`].
    pub fn load(&self, wasm: &[u8], name: &str, isolation: Isolation) -> Result<Guest, Reason> {
        // The parser, the compiler and the snapshot see bytes from strangers; a bug in one of
        // them must cost this guest only.
        catch_unwind(AssertUnwindSafe(|| self.load_or_panic(wasm, name, isolation))).unwrap_or_else(
            |_| Err("the compiler failed on it; please report the file as a bug".into()),
        )
    }

    fn load_or_panic(
        &self,
        wasm: &[u8],
        name: &str,
        isolation: Isolation,
    ) -> Result<Guest, Reason> {
        let about = sniff::read(wasm)?;
        imports::judge(&about, &self.offer, &self.limits)?;
        // Start-up code may wait for timers, which needs a runtime.
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_time()
            .build()
            .map_err(|error| format!("could not make a runtime to load it in: {error}"))?;
        let engines = &self.engines;
        let all = [&engines.small, &engines.large, &engines.startup];
        let key = Key::new(wasm, &all, self.limits.memory_bytes_max);
        let cached = self.cache.as_ref().and_then(|cache| cache.get(&key));
        let (facts, module) = match cached.and_then(|entry| self.revive(entry)) {
            Some(found) => found,
            None => {
                let (facts, wasm) = runtime.block_on(self.prepare(wasm, &about, name))?;
                self.compile(&key, facts, &wasm)?
            }
        };
        let guest = self.link(name, isolation, &about, &facts, &module)?;
        runtime.block_on(self.try_out(guest, facts.reset_globals.is_some()))
    }

    fn about(&self, name: &str) -> Arc<About> {
        Arc::new(About { name: name.into(), limits: self.limits.clone() })
    }

    fn revive(&self, (facts, artifact): (Facts, Artifact)) -> Option<(Facts, Module)> {
        match artifact.module(self.engines.get(facts.class)) {
            Ok(module) => Some((facts, module)),
            Err(error) => {
                tracing::debug!("a cache entry does not fit and is made anew: {error:#}");
                None
            }
        }
    }

    /// Runs the start-up code and chooses the engine. Returns the module to compile.
    async fn prepare(
        &self,
        wasm: &[u8],
        about: &sniff::Module,
        name: &str,
    ) -> Result<(Facts, Vec<u8>), Reason> {
        let functions = startup_functions(about);
        let mut facts =
            Facts { class: Class::Small, features: 0, startup_each: None, reset_globals: None };
        let (mut image_bytes, mut memory_bytes) = (about.data_bytes, about.memory_bytes);
        let mut prepared = wasm.to_vec();
        if !functions.is_empty() {
            let call = Call::new(self.about(name), 0);
            match startup::snapshot(&self.startup, wasm, &functions, call, &self.pulse).await? {
                Snapshot::Taken { wasm, features } => {
                    let after = sniff::read(&wasm)?;
                    tracing::debug!("{name}: snapshot has {} segments", after.data_segments);
                    (image_bytes, memory_bytes) = (after.data_bytes, after.memory_bytes);
                    facts.features = features;
                    prepared = wasm;
                }
                Snapshot::Refused(why) => facts.startup_each = Some(why),
            }
        } else if about.has_start {
            facts.startup_each = Some("it has a start function".into());
        }
        tracing::debug!("{name}: {image_bytes} bytes of memory image");
        if image_bytes > SMALL_IMAGE_BYTES_MAX {
            facts.class = Class::Large;
        }
        if facts.startup_each.is_none()
            && let Some(resettable) = reset::qualify(&prepared, memory_bytes, about.memories)
            // The added exports can push a module over a limit of the format.
            && sniff::read(&resettable.wasm).is_ok()
        {
            facts.reset_globals = Some(resettable.globals);
            prepared = resettable.wasm;
        }
        Ok((facts, prepared))
    }

    fn compile(&self, key: &Key, facts: Facts, wasm: &[u8]) -> Result<(Facts, Module), Reason> {
        let engine = self.engines.get(facts.class);
        let code = engine.precompile_module(wasm).map_err(|error| {
            format!("could not be compiled: {}", super::instance::describe(&error))
        })?;
        if let Some(cache) = &self.cache
            && let Err(error) = cache.put(key, &facts, &code)
        {
            tracing::warn!("{error}");
        }
        let module = Artifact::compiled(code)
            .module(engine)
            .map_err(|error| format!("could not be made ready: {error:#}"))?;
        Ok((facts, module))
    }

    fn link(
        &self,
        name: &str,
        isolation: Isolation,
        about: &sniff::Module,
        facts: &Facts,
        module: &Module,
    ) -> Result<Guest, Reason> {
        let linker = match facts.class {
            Class::Small => &self.small,
            Class::Large => &self.large,
        };
        let pre = linker
            .instantiate_pre(module)
            .map_err(|error| format!("its imports do not fit: {error:#}"))?;
        let export = |name: &str| {
            module.get_export_index(name).ok_or_else(|| format!("export {name} has gone missing"))
        };
        let startup = match &facts.startup_each {
            None => Startup::Done,
            Some(why) => {
                tracing::debug!("{name}: start-up code runs in each instance: {why}");
                let functions = startup_functions(about);
                let functions: Result<_, _> = functions.into_iter().map(export).collect();
                Startup::Each { functions: functions?, why: why.clone() }
            }
        };
        let globals = (0..facts.reset_globals.unwrap_or(0)).map(reset::export_name);
        let globals: Result<_, _> = globals.map(|name| export(&name)).collect();
        Ok(Guest {
            id: self.next_id.fetch_add(1, Ordering::Relaxed),
            isolation,
            about: self.about(name),
            exports: Exports {
                memory: export("memory")?,
                handle_request: export("handle_request")?,
                handle_response: module.get_export_index("handle_response"),
                globals: globals?,
            },
            features: facts.features,
            startup,
            baseline: None,
            pre,
        })
    }

    /// Makes one instance, so that a guest which can never run is known before it is asked. It is
    /// thrown away, so its memory may be read: reading maps pages, which slows later scans.
    async fn try_out(&self, guest: Guest, resettable: bool) -> Result<Guest, Reason> {
        let guest = Arc::new(guest);
        let instance = Instance::try_make(guest.clone(), &self.pulse).await?;
        // Either way, the instance ends here.
        let baseline = instance.filter(|_| resettable).and_then(|mut instance| instance.baseline());
        let mut guest = Arc::into_inner(guest).expect("the instance that shared it was dropped");
        guest.baseline = baseline;
        Ok(guest)
    }
}

/// The exports that run once before the first request, in their order.
fn startup_functions(about: &sniff::Module) -> Vec<&'static str> {
    ["_initialize", "_start"].into_iter().filter(|name| about.export(name).is_some()).collect()
}

/// A file's bytes as a binary module.
///
/// # Errors
/// A sentence that names what is wrong with the file.
pub fn read_file(path: &Path) -> Result<Vec<u8>, Reason> {
    let about = std::fs::metadata(path).map_err(|error| format!("cannot be read: {error}"))?;
    if !about.is_file() {
        return Err("not a regular file".into());
    }
    if about.len() > FILE_BYTES_MAX {
        return Err(format!(
            "the file has {} MiB, more than the {} MiB that are read",
            about.len() >> 20,
            FILE_BYTES_MAX >> 20
        ));
    }
    let bytes = std::fs::read(path).map_err(|error| format!("cannot be read: {error}"))?;
    if path.extension().is_some_and(|ending| ending == "wat") {
        return wat::parse_bytes(&bytes).map(std::borrow::Cow::into_owned).map_err(|mut error| {
            error.set_path(path);
            not_text(&error)
        });
    }
    Ok(bytes)
}

/// A parser's error as one line: what is wrong, and in which line and column.
fn not_text(error: &wat::Error) -> Reason {
    let shown = error.to_string();
    let mut lines = shown.lines();
    let what = lines.next().unwrap_or_default();
    let place = lines.find_map(|line| line.trim().strip_prefix("--> ")).unwrap_or_default();
    let escaped = |text: &str| crate::log::escape(text.as_bytes(), 200);
    format!("not valid WebAssembly text: {} at {}", escaped(what), escaped(place))
}

/// A linker with everything a core guest may import.
fn linker(engine: &wasmtime::Engine) -> Result<Linker<Call>> {
    let mut linker = Linker::new(engine);
    core::add_to_linker(&mut linker)?;
    wasmtime_wasi::p1::add_to_linker_async(&mut linker, Call::wasi)?;
    Ok(linker)
}

/// The types of all that a linker has.
fn offer(linker: &Linker<Call>) -> Offer {
    let mut store = Store::new(linker.engine(), Call::new(startup::nobody(), 0));
    let functions: Vec<_> = linker
        .iter(&mut store)
        .filter_map(|(module, name, item)| {
            Some((module.to_owned(), name.to_owned(), item.into_func()?))
        })
        .collect();
    functions
        .into_iter()
        .map(|(module, name, function)| {
            let ty = function.ty(&store);
            let list = |types: Vec<String>| types.join(", ");
            let params = list(ty.params().map(|ty| ty.to_string()).collect());
            let results = list(ty.results().map(|ty| ty.to_string()).collect());
            let text = match results.as_str() {
                "" => format!("({params})"),
                results => format!("({params}) -> {results}"),
            };
            ((module, name), text)
        })
        .collect()
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

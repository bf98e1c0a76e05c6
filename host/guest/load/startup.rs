//! Start-up code: run once at load and kept as a snapshot, so that a fresh instance begins after
//! it.
//!
//! Owns the decision whether a snapshot may be kept. A snapshot would freeze what start-up code
//! was told about time and randomness (a hash seed, say), so a guest that asks for either at
//! start-up runs it anew in each instance. What it has read of its grants stays the same for
//! this guest, and the cache keeps a snapshot for each ([`GrantReads`]).

use std::sync::Arc;
use std::time::Instant;

use guesthouse_module::interfaces::modules::PREVIEW1;
use wasmtime::{Instance, Linker, Module, Store, TypedFunc};
use wasmtime_wizer::{WasmtimeWizer, Wizer};

use super::cache::GrantReads;
use crate::grants::Grants;
use crate::guest::core::CoreState;
use crate::guest::core::{run_start, store};
use crate::guest::engine::budget::Budget;
use crate::guest::engine::fault::describe;
use crate::guest::engine::guest_info::GuestInfo;
use crate::guest::schedule::Meter;
use crate::guest::schedule::TickerHandle;

/// What came of running the start-up code.
pub enum StartupSnapshot {
    /// The module as it is after its start-up.
    Taken { wasm: Vec<u8>, features: u32, reads: GrantReads },
    /// The start-up has to run in each instance; the text says why.
    Refused { why: String, reads: GrantReads },
}

/// WASI functions whose answers must not be frozen.
const IMPURE: &[&str] = &[
    "random_get",
    "clock_time_get",
    "clock_res_get",
    "poll_oneoff",
    // These change state on the host's side, which a snapshot does not hold.
    "fd_close",
    "fd_renumber",
    "fd_fdstat_set_flags",
];

/// Stops start-up code that asks for what must not be frozen.
#[derive(Debug)]
struct Impure(&'static str);

impl std::fmt::Display for Impure {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "it calls {}", self.0)
    }
}

impl std::error::Error for Impure {}

/// Replaces the impure functions of a linker by ones that stop the snapshot.
pub fn forbid_impure(linker: &mut Linker<CoreState>) -> wasmtime::Result<()> {
    const WASI: &str = PREVIEW1.name;
    linker.allow_shadowing(true);
    let engine = linker.engine().clone();
    let mut store = Store::new(&engine, CoreState::new(placeholder_info(), 0));
    for name in IMPURE {
        let Some(function) = linker.get(&mut store, WASI, name)?.into_func() else { continue };
        let ty = function.ty(&store);
        linker.func_new(WASI, name, ty, move |_, _, _| Err(wasmtime::Error::new(Impure(name))))?;
    }
    Ok(())
}

/// The name and limits for a store in which nothing runs.
pub fn placeholder_info() -> Arc<GuestInfo> {
    GuestInfo::new("", &Arc::new(Grants::default()), &Budget::unlimited())
}

/// Runs a module's start-up code and takes the snapshot.
///
/// # Errors
/// A sentence, where the start-up code itself fails: then the guest can never run.
pub async fn snapshot(
    linker: &Linker<CoreState>,
    wasm: &[u8],
    functions: &[&'static str],
    call: CoreState,
    ticker: &TickerHandle,
) -> Result<StartupSnapshot, String> {
    let mut wizer = Wizer::new();
    wizer.init_func(*functions.last().expect("there is start-up code"));
    let (context, instrumented) = match wizer.instrument(wasm) {
        Ok(instrumented) => instrumented,
        Err(error) => {
            let (why, reads) = (format!("{error:#}"), GrantReads::default());
            return Ok(StartupSnapshot::Refused { why, reads });
        }
    };
    let about = call.limiter.guest_info.clone();
    let mut store = store(linker.engine(), call);
    let module = Module::new(linker.engine(), &instrumented)
        .map_err(|error| format!("could not be compiled for its start-up: {error:#}"))?;
    let run = async {
        let instance = linker.instantiate_async(&mut store, &module).await?;
        store.data_mut().memory = instance.get_memory(&mut store, "memory");
        for function in functions {
            let function: TypedFunc<(), ()> = instance.get_typed_func(&mut store, function)?;
            run_start(&mut store, &function).await?;
        }
        Ok::<Instance, wasmtime::Error>(instance)
    };
    let running = ticker.begin();
    let ran = Meter::new(&about.grants.limits, Instant::now()).run(std::pin::pin!(run)).await;
    drop(running);
    store.data().end_log();
    let call = store.data();
    let (features, has_failed_to_grow) = (call.features, call.limiter.has_failed_to_grow);
    let reads = GrantReads { env: call.reads_env, memory: call.limiter.is_at_limit };
    let instance = match ran {
        Ok(Ok(instance)) => instance,
        Ok(Err(error)) if error.is::<Impure>() => {
            return Ok(StartupSnapshot::Refused { why: error.root_cause().to_string(), reads });
        }
        Ok(Err(error)) => return Err(format!("its start-up code failed: {}", describe(&error))),
        Err(reject) => return Err(format!("its start-up code did not end in time ({reject})")),
    };
    if has_failed_to_grow {
        // By the kernel, which may have more another time.
        return Ok(StartupSnapshot::Refused { why: "a memory could not grow".into(), reads });
    }
    let mut state = WasmtimeWizer { store: &mut store, instance };
    match wizer.snapshot(&context, &mut state).await {
        Ok(wasm) => Ok(StartupSnapshot::Taken { wasm, features, reads }),
        Err(error) => Ok(StartupSnapshot::Refused { why: format!("{error:#}"), reads }),
    }
}

//! Start-up code: run once at load and kept as a snapshot, so that fresh instances begin after it.
//!
//! Owns the decision whether a snapshot may be kept. A snapshot would freeze the time and the
//! random numbers that start-up code was given (a hash seed, say). So a guest that asks for either
//! at start-up runs it in each instance. The grants that it has read are the same in all its
//! instances, and the cache keeps a snapshot for each value of them ([`GrantReads`]).

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

/// The result of running start-up code.
pub enum StartupSnapshot {
    /// A snapshot: the module as it is after its start-up.
    Taken {
        /// The module to compile.
        wasm: Vec<u8>,
        /// Feature bits that the start-up code has enabled.
        features: u32,
        /// Which grants it has read.
        reads: GrantReads,
    },
    /// No snapshot: the start-up code has to run in each instance.
    Refused {
        /// Why, for `check` and the log.
        why: String,
        /// Which grants the start-up code has read.
        reads: GrantReads,
    },
}

/// WASI functions whose results must not be frozen.
const IMPURE: &[&str] = &[
    "random_get",
    "clock_time_get",
    "clock_res_get",
    "poll_oneoff",
    // These change state of the host, which a snapshot does not contain.
    "fd_close",
    "fd_renumber",
    "fd_fdstat_set_flags",
];

/// Stops start-up code that calls an impure function.
#[derive(Debug)]
struct Impure(&'static str);

impl std::fmt::Display for Impure {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "it calls {}", self.0)
    }
}

impl std::error::Error for Impure {}

/// Replaces the impure functions of a linker by ones that refuse the snapshot.
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

/// The info for a store in which nothing runs.
pub fn placeholder_info() -> Arc<GuestInfo> {
    GuestInfo::new("", &Arc::new(Grants::default()), &Budget::unlimited())
}

/// Runs a module's start-up code and takes a snapshot.
///
/// # Errors
/// A sentence, if the start-up code itself fails: then the guest can never run.
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
        // The kernel refused, and may have memory another time.
        return Ok(StartupSnapshot::Refused { why: "a memory could not grow".into(), reads });
    }
    let mut state = WasmtimeWizer { store: &mut store, instance };
    match wizer.snapshot(&context, &mut state).await {
        Ok(wasm) => Ok(StartupSnapshot::Taken { wasm, features, reads }),
        Err(error) => Ok(StartupSnapshot::Refused { why: format!("{error:#}"), reads }),
    }
}

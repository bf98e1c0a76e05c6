//! Makes the store of a core guest, and runs start-up code.

use wasmtime::{Store, TypedFunc};

use super::state::{CallPhase, CoreState, HOSTCALL_FUEL};
use crate::guest::schedule::QUANTUM_TICKS;

/// Runs `_start` or `_initialize`. Exiting by `proc_exit(0)` counts as success.
pub async fn run_start(
    store: &mut Store<CoreState>,
    function: &TypedFunc<(), ()>,
) -> wasmtime::Result<()> {
    match function.call_async(store, ()).await {
        Err(error)
            if error.downcast_ref().is_some_and(|exit: &wasmtime_wasi::I32Exit| exit.0 == 0) =>
        {
            Ok(())
        }
        result => result,
    }
}

/// A store that guest code can run in: with limits, and yielding after every quantum.
pub fn store(engine: &wasmtime::Engine, call: CoreState) -> Store<CoreState> {
    let mut store = Store::new(engine, call);
    store.data_mut().phase = CallPhase::StartUp;
    store.limiter(|call| &mut call.limiter);
    store.set_hostcall_fuel(HOSTCALL_FUEL);
    // The future has no size, so boxing it does not allocate.
    store.epoch_deadline_callback(|_| {
        Ok(wasmtime::UpdateDeadline::YieldCustom(QUANTUM_TICKS, Box::pin(tokio::task::yield_now())))
    });
    store.set_epoch_deadline(QUANTUM_TICKS);
    store
}

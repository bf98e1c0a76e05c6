//! wasi:clocks of 0.3, where it differs from 0.2.

use std::time::Duration;

use guesthouse_module::interfaces::{ASYNC, wasi03};
use wasmtime::Linker;
use wasmtime_wasi::clocks::WasiClocksView as _;
use wasmtime_wasi::p2::bindings::clocks::{monotonic_clock, wall_clock};

use super::abi::FlatCaller;
use super::cli::{WasiVersion, add_common};
use super::memory::Result;
use super::tasks::STARTED;
use crate::guest::component::limits::RANDOM_BYTES_MAX;
use crate::guest::component::state::ComponentState;

const MONOTONIC: &str = wasi03::CLOCKS_MONOTONIC_CLOCK.module;

const VERSION: WasiVersion = WasiVersion {
    get: "get-",
    monotonic: MONOTONIC,
    time: wasi03::CLOCKS_SYSTEM_CLOCK.module,
    random: wasi03::RANDOM_RANDOM.module,
    insecure: wasi03::RANDOM_INSECURE.module,
    insecure_seed: wasi03::RANDOM_INSECURE_SEED.module,
    environment: wasi03::CLI_ENVIRONMENT.module,
    exit: wasi03::CLI_EXIT.module,
    // A guest that asks for more may get fewer.
    random_bytes_max: RANDOM_BYTES_MAX,
};

pub fn add_to_linker(linker: &mut Linker<ComponentState>) -> Result<()> {
    add_common(linker, &VERSION)?;
    linker.func_wrap(VERSION.time, "get-resolution", |mut guest: FlatCaller<'_>| {
        let step = wall_clock::Host::resolution(&mut guest.data_mut().clocks())?;
        let seconds = Duration::from_secs(step.seconds).as_nanos() as u64;
        Ok(seconds + u64::from(step.nanoseconds))
    })?;
    linker.func_wrap(
        MONOTONIC,
        &format!("{ASYNC}wait-for"),
        |mut guest: FlatCaller<'_>, how_long: u64| wait(&mut guest, how_long),
    )?;
    linker.func_wrap(
        MONOTONIC,
        &format!("{ASYNC}wait-until"),
        |mut guest: FlatCaller<'_>, when: u64| {
            let now = monotonic_clock::Host::now(&mut guest.data_mut().clocks())?;
            wait(&mut guest, when.saturating_sub(now))
        },
    )?;
    Ok(())
}

/// Starts a timer. Returns the subtask's state, with its handle in the bits above.
fn wait(guest: &mut FlatCaller<'_>, nanoseconds: u64) -> Result<u32> {
    let canon = &mut guest.data_mut().canon;
    let sleep = tokio::time::sleep(Duration::from_nanos(nanoseconds));
    let handle = canon.tasks.start_timer(sleep, &mut canon.handles)?;
    Ok(STARTED | handle << 4)
}

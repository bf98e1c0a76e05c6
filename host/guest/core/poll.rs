//! `poll_oneoff` for core guests: wasmtime's own, with a limit on subscriptions.
//!
//! Owns the limit, and the charge: wasmtime keeps an object for each subscription until the call
//! ends.

use guesthouse_module::interfaces::modules::PREVIEW1;
use wasmtime::{Caller, Linker};
use wasmtime_wasi::p1::wasi_snapshot_preview1::{self, WasiSnapshotPreview1 as _};
use wiggle::GuestMemory;

use super::state::CoreState;
use crate::guest::engine::fault::Fault;
use crate::guest::engine::fault::misuse;

/// Subscriptions of one call. A guest has three descriptors and clocks to wait for, so a `poll` or
/// `select` of wasi-libc needs a handful.
const SUBSCRIPTIONS_MAX: u32 = 1_000;
/// So many are free of charge: they are paid for with the instance.
const FREE_MAX: u32 = 16;
/// Bytes that the host keeps for one subscription.
const SUBSCRIPTION_BYTES: usize = 512;
/// Bytes of the guest's memory that the subscriptions and the events may take.
const ARGUMENT_BYTES_MAX: usize = 128 * SUBSCRIPTIONS_MAX as usize;
/// `errno::inval` (WASI preview 1).
const INVAL: i32 = 28;

/// Replaces wasmtime's own function in a linker.
pub fn add_to_linker(linker: &mut Linker<CoreState>) -> wasmtime::Result<()> {
    linker.allow_shadowing(true);
    linker.func_wrap_async(
        PREVIEW1.name,
        "poll_oneoff",
        |guest, (subscriptions, events, count, ready): (i32, i32, i32, i32)| {
            Box::new(poll_oneoff(guest, [subscriptions, events, count, ready]))
        },
    )?;
    linker.allow_shadowing(false);
    Ok(())
}

async fn poll_oneoff(
    mut guest: Caller<'_, CoreState>,
    arguments: [i32; 4],
) -> wasmtime::Result<i32> {
    let [subscriptions, events, count, ready] = arguments;
    if count.cast_unsigned() > SUBSCRIPTIONS_MAX {
        return Ok(INVAL);
    }
    let memory = guest.data().memory.or_else(|| guest.get_export("memory")?.into_memory());
    let memory = memory.ok_or_else(|| misuse("the module exports no memory"))?;
    let (memory, call) = memory.data_and_store_mut(&mut guest);
    let mut charge = call.limiter.guest_info.memory.empty_charge();
    if count.cast_unsigned() > FREE_MAX {
        let charged = charge.raise_to(count.cast_unsigned() as usize * SUBSCRIPTION_BYTES);
        charged.map_err(|reject| wasmtime::Error::new(Fault::Reject(reject)))?;
    }
    let mut memory = GuestMemory::Unshared(memory);
    let wasi = call.wasi();
    wasi.set_hostcall_fuel(ARGUMENT_BYTES_MAX);
    wasi_snapshot_preview1::poll_oneoff(wasi, &mut memory, subscriptions, events, count, ready)
        .await
}

//! wasi:cli, wasi:clocks and wasi:random of 0.3, where they are not those of 0.2.

use std::hash::BuildHasher as _;
use std::time::Duration;

use wasmtime::Linker;
use wasmtime_wasi::WasiView as _;
use wasmtime_wasi::cli::WasiCliView as _;
use wasmtime_wasi::clocks::WasiClocksView as _;
use wasmtime_wasi::p2::bindings::cli::{environment, exit};
use wasmtime_wasi::p2::bindings::clocks::{monotonic_clock, wall_clock};
use wasmtime_wasi::p2::bindings::random::{insecure, random};

use super::abi::{Guest, List, Result, flag, give, give_all};
use super::tasks::STARTED;
use crate::guest::component::State;
use crate::guest::component::flatten::ASYNC;
use crate::guest::component::state::RANDOM_BYTES_MAX;
use crate::guest::core::misuse;

const MONOTONIC: &str = "wasi:clocks/monotonic-clock@0.3";
const SYSTEM: &str = "wasi:clocks/system-clock@0.3";
const RANDOM: &str = "wasi:random/random@0.3";
const INSECURE: &str = "wasi:random/insecure@0.3";
const ENVIRONMENT: &str = "wasi:cli/environment@0.3";
const EXIT: &str = "wasi:cli/exit@0.3";

pub fn add_to_linker(linker: &mut Linker<State>) -> Result<()> {
    add_clocks(linker)?;
    add_waits(linker)?;
    add_random(linker)?;
    add_environment(linker)
}

fn add_clocks(linker: &mut Linker<State>) -> Result<()> {
    linker.func_wrap(MONOTONIC, "now", |mut guest: Guest<'_>| {
        monotonic_clock::Host::now(&mut guest.data_mut().clocks())
    })?;
    linker.func_wrap(MONOTONIC, "get-resolution", |mut guest: Guest<'_>| {
        monotonic_clock::Host::resolution(&mut guest.data_mut().clocks())
    })?;
    linker.func_wrap(SYSTEM, "now", |mut guest: Guest<'_>, ret: u32| {
        let now = wall_clock::Host::now(&mut guest.data_mut().clocks())?;
        give(&mut guest, ret, (now.seconds, now.nanoseconds))
    })?;
    linker.func_wrap(SYSTEM, "get-resolution", |mut guest: Guest<'_>| {
        let step = wall_clock::Host::resolution(&mut guest.data_mut().clocks())?;
        let seconds = Duration::from_secs(step.seconds).as_nanos() as u64;
        Ok(seconds + u64::from(step.nanoseconds))
    })?;
    Ok(())
}

/// Begins to wait: the state of the call, and its handle above.
fn wait(guest: &mut Guest<'_>, nanoseconds: u64) -> Result<u32> {
    let canon = &mut guest.data_mut().canon;
    let sleep = tokio::time::sleep(Duration::from_nanos(nanoseconds));
    let handle = canon.tasks.start(sleep, &mut canon.handles)?;
    Ok(STARTED | handle << 4)
}

fn add_waits(linker: &mut Linker<State>) -> Result<()> {
    linker.func_wrap(
        MONOTONIC,
        &format!("{ASYNC}wait-for"),
        |mut guest: Guest<'_>, how_long: u64| wait(&mut guest, how_long),
    )?;
    linker.func_wrap(
        MONOTONIC,
        &format!("{ASYNC}wait-until"),
        |mut guest: Guest<'_>, when: u64| {
            let now = monotonic_clock::Host::now(&mut guest.data_mut().clocks())?;
            wait(&mut guest, when.saturating_sub(now))
        },
    )?;
    Ok(())
}

/// The guest says how many bytes it wants at most, and may be given less.
fn add_random(linker: &mut Linker<State>) -> Result<()> {
    linker.func_wrap(RANDOM, "get-random-bytes", |mut guest: Guest<'_>, len: u64, ret: u32| {
        let random = guest.data_mut().ctx().ctx.random();
        let bytes = random::Host::get_random_bytes(random, len.min(RANDOM_BYTES_MAX))?;
        give_all(&mut guest, ret, bytes)
    })?;
    linker.func_wrap(RANDOM, "get-random-u64", |mut guest: Guest<'_>| {
        random::Host::get_random_u64(guest.data_mut().ctx().ctx.random())
    })?;
    linker.func_wrap(
        INSECURE,
        "get-insecure-random-bytes",
        |mut guest: Guest<'_>, len: u64, ret: u32| {
            let random = guest.data_mut().ctx().ctx.random();
            let len = len.min(RANDOM_BYTES_MAX);
            let bytes = insecure::Host::get_insecure_random_bytes(random, len)?;
            give_all(&mut guest, ret, bytes)
        },
    )?;
    linker.func_wrap(INSECURE, "get-insecure-random-u64", |mut guest: Guest<'_>| {
        insecure::Host::get_insecure_random_u64(guest.data_mut().ctx().ctx.random())
    })?;
    linker.func_wrap(
        "wasi:random/insecure-seed@0.3",
        "get-insecure-seed",
        |mut guest: Guest<'_>, ret: u32| {
            // As in 0.2.
            let seed = std::hash::RandomState::new();
            give(&mut guest, ret, (seed.hash_one(0_u8), seed.hash_one(1_u8)))
        },
    )?;
    Ok(())
}

fn add_environment(linker: &mut Linker<State>) -> Result<()> {
    linker.func_wrap(ENVIRONMENT, "get-environment", |mut guest: Guest<'_>, ret: u32| {
        let all = environment::Host::get_environment(&mut guest.data_mut().cli())?;
        give_all(&mut guest, ret, List(all))
    })?;
    linker.func_wrap(ENVIRONMENT, "get-arguments", |mut guest: Guest<'_>, ret: u32| {
        let all = environment::Host::get_arguments(&mut guest.data_mut().cli())?;
        give_all(&mut guest, ret, List(all))
    })?;
    linker.func_wrap(ENVIRONMENT, "get-initial-cwd", |mut guest: Guest<'_>, ret: u32| {
        let folder = environment::Host::initial_cwd(&mut guest.data_mut().cli())?;
        give_all(&mut guest, ret, folder)
    })?;
    linker.func_wrap(EXIT, "exit", |mut guest: Guest<'_>, status: u32| {
        let status = if flag(status)? { Err(()) } else { Ok(()) };
        exit::Host::exit(&mut guest.data_mut().cli(), status)
    })?;
    linker.func_wrap(EXIT, "exit-with-code", |mut guest: Guest<'_>, code: u32| {
        let code = u8::try_from(code).map_err(|_| misuse("an exit code above 255"))?;
        exit::Host::exit_with_code(&mut guest.data_mut().cli(), code)
    })?;
    Ok(())
}

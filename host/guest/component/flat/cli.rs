//! wasi:cli, wasi:clocks and wasi:random of 0.2, and what 0.3 shares with them.

use std::hash::BuildHasher as _;

use guesthouse_module::interfaces::{DROP, wasi02};
use wasmtime::Linker;
use wasmtime_wasi::WasiView as _;
use wasmtime_wasi::cli::WasiCliView as _;
use wasmtime_wasi::clocks::WasiClocksView as _;
use wasmtime_wasi::p2::bindings::cli::{environment, exit, stderr, stdin, stdout};
use wasmtime_wasi::p2::bindings::clocks::{monotonic_clock, wall_clock};
use wasmtime_wasi::p2::bindings::random::{insecure, random};

use super::abi::{FlatCaller, give, give_all, parts};
use super::lower::List;
use super::memory::{Result, flag};
use crate::guest::component::random::{INSECURE, RandomSource, SECURE, bytes};
use crate::guest::component::state::ComponentState;
use crate::guest::engine::fault::misuse;

const MONOTONIC: &str = wasi02::CLOCKS_MONOTONIC_CLOCK.module;
const WALL: &str = wasi02::CLOCKS_WALL_CLOCK.module;

/// The differences between the versions of WASI, in the functions that they share.
pub struct WasiVersion {
    /// The prefix in the names of functions that only get something.
    pub get: &'static str,
    /// The module of `monotonic-clock`. The fields below are modules, too.
    pub monotonic: &'static str,
    /// The clock for the time of day.
    pub time: &'static str,
    pub random: &'static str,
    pub insecure: &'static str,
    pub insecure_seed: &'static str,
    pub environment: &'static str,
    pub exit: &'static str,
    /// Random bytes that one call returns at most. A guest that asks for more gets this many.
    pub random_bytes_max: u64,
}

const VERSION: WasiVersion = WasiVersion {
    get: "",
    monotonic: MONOTONIC,
    time: WALL,
    random: wasi02::RANDOM_RANDOM.module,
    insecure: wasi02::RANDOM_INSECURE.module,
    insecure_seed: wasi02::RANDOM_INSECURE_SEED.module,
    environment: wasi02::CLI_ENVIRONMENT.module,
    exit: wasi02::CLI_EXIT.module,
    // A guest gets as many as it asks for, or is stopped.
    random_bytes_max: u64::MAX,
};

pub fn add_to_linker(linker: &mut Linker<ComponentState>) -> Result<()> {
    add_common(linker, &VERSION)?;
    add_clocks(linker)?;
    add_streams(linker)?;
    add_terminals(linker)
}

/// Adds the functions that are the same in both versions.
pub fn add_common(linker: &mut Linker<ComponentState>, version: &WasiVersion) -> Result<()> {
    add_times(linker, version)?;
    add_random(linker, version)?;
    add_insecure_random(linker, version)?;
    add_environment(linker, version)?;
    add_exit(linker, version)
}

fn add_times(linker: &mut Linker<ComponentState>, version: &WasiVersion) -> Result<()> {
    let WasiVersion { get, monotonic, time, .. } = version;
    linker.func_wrap(monotonic, "now", |mut guest: FlatCaller<'_>| {
        monotonic_clock::Host::now(&mut guest.data_mut().clocks())
    })?;
    linker.func_wrap(monotonic, &format!("{get}resolution"), |mut guest: FlatCaller<'_>| {
        monotonic_clock::Host::resolution(&mut guest.data_mut().clocks())
    })?;
    linker.func_wrap(time, "now", |mut guest: FlatCaller<'_>, ret: u32| {
        let now = wall_clock::Host::now(&mut guest.data_mut().clocks())?;
        give(&mut guest, ret, (now.seconds, now.nanoseconds))
    })?;
    Ok(())
}

fn add_random(linker: &mut Linker<ComponentState>, version: &WasiVersion) -> Result<()> {
    let interface = version.random;
    add_bytes(linker, interface, "get-random-bytes", (SECURE, version.random_bytes_max))?;
    linker.func_wrap(interface, "get-random-u64", |mut guest: FlatCaller<'_>| {
        random::Host::get_random_u64(guest.data_mut().ctx().ctx.random())
    })?;
    Ok(())
}

fn add_bytes(
    linker: &mut Linker<ComponentState>,
    interface: &str,
    name: &str,
    (source, len_max): (RandomSource, u64),
) -> Result<()> {
    linker.func_wrap_async(
        interface,
        name,
        move |mut guest: FlatCaller<'_>, (len, ret): (u64, u32)| {
            Box::new(async move {
                let bytes = bytes(guest.data_mut(), len.min(len_max), source).await?;
                give_all(&mut guest, ret, bytes)
            })
        },
    )?;
    Ok(())
}

fn add_insecure_random(linker: &mut Linker<ComponentState>, version: &WasiVersion) -> Result<()> {
    let WasiVersion { get, insecure: interface, random_bytes_max: len_max, .. } = *version;
    add_bytes(linker, interface, "get-insecure-random-bytes", (INSECURE, len_max))?;
    linker.func_wrap(interface, "get-insecure-random-u64", |mut guest: FlatCaller<'_>| {
        insecure::Host::get_insecure_random_u64(guest.data_mut().ctx().ctx.random())
    })?;
    linker.func_wrap(
        version.insecure_seed,
        &format!("{get}insecure-seed"),
        |mut guest: FlatCaller<'_>, ret: u32| {
            // Nearly every guest in Rust asks for it, and making the rest of WASI's state costs 1
            // us. The standard library's seed is as good: random for each thread, and never the
            // same twice.
            let seed = std::hash::RandomState::new();
            give(&mut guest, ret, (seed.hash_one(0_u8), seed.hash_one(1_u8)))
        },
    )?;
    Ok(())
}

fn add_environment(linker: &mut Linker<ComponentState>, version: &WasiVersion) -> Result<()> {
    let WasiVersion { get, environment: interface, .. } = version;
    linker.func_wrap(interface, "get-environment", |mut guest: FlatCaller<'_>, ret: u32| {
        let all = environment::Host::get_environment(&mut guest.data_mut().cli())?;
        give_all(&mut guest, ret, List(all))
    })?;
    linker.func_wrap(interface, "get-arguments", |mut guest: FlatCaller<'_>, ret: u32| {
        let all = environment::Host::get_arguments(&mut guest.data_mut().cli())?;
        give_all(&mut guest, ret, List(all))
    })?;
    let name = format!("{get}initial-cwd");
    linker.func_wrap(interface, &name, |mut guest: FlatCaller<'_>, ret: u32| {
        let folder = environment::Host::initial_cwd(&mut guest.data_mut().cli())?;
        give_all(&mut guest, ret, folder)
    })?;
    Ok(())
}

fn add_exit(linker: &mut Linker<ComponentState>, version: &WasiVersion) -> Result<()> {
    let interface = version.exit;
    linker.func_wrap(interface, "exit", |mut guest: FlatCaller<'_>, status: u32| {
        let status = if flag(status)? { Err(()) } else { Ok(()) };
        exit::Host::exit(&mut guest.data_mut().cli(), status)
    })?;
    linker.func_wrap(interface, "exit-with-code", |mut guest: FlatCaller<'_>, code: u32| {
        let code = u8::try_from(code).map_err(|_| misuse("an exit code above 255"))?;
        exit::Host::exit_with_code(&mut guest.data_mut().cli(), code)
    })?;
    Ok(())
}

fn add_clocks(linker: &mut Linker<ComponentState>) -> Result<()> {
    linker.func_wrap(MONOTONIC, "subscribe-instant", |mut guest: FlatCaller<'_>, when: u64| {
        let state = guest.data_mut();
        let pollable = monotonic_clock::Host::subscribe_instant(&mut state.clocks(), when)?;
        state.give(pollable)
    })?;
    linker.func_wrap(MONOTONIC, "subscribe-duration", |mut guest: FlatCaller<'_>, when: u64| {
        let state = guest.data_mut();
        let pollable = monotonic_clock::Host::subscribe_duration(&mut state.clocks(), when)?;
        state.give(pollable)
    })?;
    linker.func_wrap(WALL, "resolution", |mut guest: FlatCaller<'_>, ret: u32| {
        let step = wall_clock::Host::resolution(&mut guest.data_mut().clocks())?;
        give(&mut guest, ret, (step.seconds, step.nanoseconds))
    })?;
    Ok(())
}

fn add_streams(linker: &mut Linker<ComponentState>) -> Result<()> {
    linker.func_wrap(wasi02::CLI_STDIN.module, "get-stdin", |mut guest: FlatCaller<'_>| {
        let state = guest.data_mut();
        let stream = stdin::Host::get_stdin(&mut state.cli())?;
        state.give(stream)
    })?;
    linker.func_wrap(wasi02::CLI_STDOUT.module, "get-stdout", |mut guest: FlatCaller<'_>| {
        let state = guest.data_mut();
        let stream = stdout::Host::get_stdout(&mut state.cli())?;
        state.give(stream)
    })?;
    linker.func_wrap(wasi02::CLI_STDERR.module, "get-stderr", |mut guest: FlatCaller<'_>| {
        let state = guest.data_mut();
        let stream = stderr::Host::get_stderr(&mut state.cli())?;
        state.give(stream)
    })?;
    Ok(())
}

/// No stream of a guest is a terminal, so no guest has a handle of one.
fn add_terminals(linker: &mut Linker<ComponentState>) -> Result<()> {
    for (interface, name) in [
        (wasi02::CLI_TERMINAL_STDIN, "get-terminal-stdin"),
        (wasi02::CLI_TERMINAL_STDOUT, "get-terminal-stdout"),
        (wasi02::CLI_TERMINAL_STDERR, "get-terminal-stderr"),
    ] {
        linker.func_wrap(interface.module, name, |mut guest: FlatCaller<'_>, ret: u32| {
            give(&mut guest, ret, None::<u32>)
        })?;
    }
    for (interface, name) in [
        (wasi02::CLI_TERMINAL_INPUT, "terminal-input"),
        (wasi02::CLI_TERMINAL_OUTPUT, "terminal-output"),
    ] {
        linker.func_wrap(
            interface.module,
            &format!("{DROP}{name}"),
            |mut guest: FlatCaller<'_>, this: u32| {
                parts(&mut guest)?;
                Err::<(), _>(misuse(format!("there is no handle {this}")))
            },
        )?;
    }
    Ok(())
}

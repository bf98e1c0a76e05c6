//! The environment for start-up code while a snapshot is made: WASI's two functions, which record
//! that they were called.
//!
//! A snapshot contains what was read, so it fits only guests with the same environment.

use guesthouse_module::interfaces::modules::PREVIEW1;
use wasmtime::{Caller, Extern, Linker, Result};

use crate::guest::core::CoreState;

const MODULE: &str = PREVIEW1.name;

/// `errno::success` (WASI preview 1, `typenames.witx`).
const SUCCESS: i32 = 0;

/// Replaces the environment functions of a linker.
pub fn add_to_linker(linker: &mut Linker<CoreState>) -> Result<()> {
    linker.allow_shadowing(true);
    linker.func_wrap(MODULE, "environ_sizes_get", sizes)?;
    linker.func_wrap(MODULE, "environ_get", get)?;
    Ok(())
}

/// `environ_sizes_get`: writes the number of variables, and their bytes.
fn sizes(caller: Caller<'_, CoreState>, count_at: u32, bytes_at: u32) -> Result<i32> {
    check_aligned([count_at, bytes_at])?;
    let (texts, caller) = read(caller);
    let bytes = texts.iter().map(Vec::len).sum::<usize>();
    let numbers = [(count_at, texts.len() as u32), (bytes_at, bytes as u32)];
    write(caller, numbers.map(|(at, number)| (at, number.to_le_bytes().to_vec())))
}

/// `environ_get`: writes the variables one after the other from `texts_at` on, and pointers to them
/// from `list_at` on.
fn get(caller: Caller<'_, CoreState>, list_at: u32, texts_at: u32) -> Result<i32> {
    check_aligned([list_at])?;
    let (texts, caller) = read(caller);
    let mut written = Vec::with_capacity(2 * texts.len());
    let (mut list_at, mut text_at) = (list_at, texts_at);
    for text in texts {
        written.push((list_at, text_at.to_le_bytes().to_vec()));
        list_at = list_at.saturating_add(4);
        let len = text.len() as u32;
        written.push((text_at, text));
        text_at = text_at.saturating_add(len);
    }
    write(caller, written)
}

/// The variables as `NAME=value`, each with a NUL. Records that they were read.
fn read(mut caller: Caller<'_, CoreState>) -> (Vec<Vec<u8>>, Caller<'_, CoreState>) {
    let call = caller.data_mut();
    call.reads_env = true;
    let env = &call.limiter.guest_info.grants.variables.env;
    let texts = env.iter().map(|(name, value)| format!("{name}={value}\0").into_bytes()).collect();
    (texts, caller)
}

/// Traps if a pointer is not aligned, as WASI does.
fn check_aligned<const N: usize>(all: [u32; N]) -> Result<()> {
    if all.iter().all(|at| at.is_multiple_of(4)) {
        return Ok(());
    }
    Err(wasmtime::Error::msg("a pointer that is not aligned to 4"))
}

/// Writes all of this to the guest's memory.
///
/// # Errors
/// A trap, as of WASI: a part of it is outside of the memory.
fn write(
    mut caller: Caller<'_, CoreState>,
    all: impl IntoIterator<Item = (u32, Vec<u8>)>,
) -> Result<i32> {
    let memory = caller.get_export("memory").and_then(Extern::into_memory);
    let memory = memory.ok_or_else(|| wasmtime::Error::msg("there is no memory"))?;
    for (at, bytes) in all {
        memory.write(&mut caller, at as usize, &bytes)?;
    }
    Ok(SUCCESS)
}

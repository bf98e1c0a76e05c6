//! Random bytes of WASI 0.2, where a guest gets as many as it asks for.
//!
//! Owns the limit. The bytes are made in pieces, with a yield between them.

use guesthouse_module::interfaces::wasi02;
use wasmtime::component::Linker;
use wasmtime_wasi::WasiView as _;
use wasmtime_wasi::p2::bindings::random::{insecure, random};
use wasmtime_wasi::random::WasiRandomCtx;

use super::limits::RANDOM_BYTES_MAX;
use super::state::ComponentState;
use crate::guest::engine::fault::Fault;
use crate::guest::engine::fault::misuse;

/// Random bytes that one call returns at most.
pub const CALL_BYTES_MAX: u64 = 4 << 20;

/// Makes one piece of at most [`RANDOM_BYTES_MAX`] bytes.
pub type RandomSource = fn(&mut WasiRandomCtx, u64) -> wasmtime::Result<Vec<u8>>;

/// Cryptographically secure bytes.
pub const SECURE: RandomSource = random::Host::get_random_bytes;
/// Bytes that need not be secure.
pub const INSECURE: RandomSource = insecure::Host::get_insecure_random_bytes;

/// Makes `len` random bytes. They are charged until the guest has them.
///
/// # Errors
/// There are too many, or no memory for them: the guest is to be stopped.
pub async fn bytes(
    state: &mut ComponentState,
    len: u64,
    source: RandomSource,
) -> wasmtime::Result<Vec<u8>> {
    if len <= RANDOM_BYTES_MAX {
        return source(state.ctx().ctx.random(), len);
    }
    if len > CALL_BYTES_MAX {
        return Err(misuse(format!(
            "it asks for {len} random bytes at once, and one call gives {CALL_BYTES_MAX} at most"
        )));
    }
    let mut charge = state.limiter.guest_info.memory.empty_charge();
    charge.raise_to(len as usize).map_err(|reject| wasmtime::Error::new(Fault::Reject(reject)))?;
    state.result = Some(charge);
    let mut bytes = Vec::with_capacity(len as usize);
    while (bytes.len() as u64) < len {
        let left = len - bytes.len() as u64;
        bytes.extend(source(state.ctx().ctx.random(), left.min(RANDOM_BYTES_MAX))?);
        tokio::task::yield_now().await;
    }
    Ok(bytes)
}

/// Replaces wasmtime's own functions, which make all bytes at once.
pub fn add_to_linker(linker: &mut Linker<ComponentState>) -> wasmtime::Result<()> {
    for (interface, name, source) in [
        (wasi02::RANDOM_RANDOM, "get-random-bytes", SECURE),
        (wasi02::RANDOM_INSECURE, "get-insecure-random-bytes", INSECURE),
    ] {
        linker.instance(&interface.linked())?.func_wrap_async(
            name,
            move |mut store, (len,): (u64,)| {
                Box::new(async move { Ok((bytes(store.data_mut(), len, source).await?,)) })
            },
        )?;
    }
    Ok(())
}

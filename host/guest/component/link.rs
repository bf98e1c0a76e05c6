//! Everything that a component may import: all of WASI 0.2 and wasi:http, with empty capabilities.
//!
//! What is behind the interfaces is in `state.rs`.

use anyhow::Result;
use wasmtime::Engine;
use wasmtime::component::Linker;

use super::State;
use super::codes::error_code;

/// The interface by the version that wasmtime has it in.
const TYPES: &str = "wasi:http/types@0.2.12";

/// A linker with everything a component may import.
pub fn linker(engine: &Engine) -> Result<Linker<State>> {
    let mut linker = Linker::new(engine);
    wasmtime_wasi::p2::add_to_linker_async(&mut linker)?;
    wasmtime_wasi_http::p2::add_only_http_to_linker_async(&mut linker)?;
    // Streams and pollables need no more than the table, and most guests use nothing else: so that
    // these do not ask for the rest of WASI's state.
    linker.allow_shadowing(true);
    wasmtime_wasi_io::add_to_linker_async(&mut linker)?;
    linker.instance(TYPES)?.func_wrap("http-error-code", |mut store, (error,)| {
        Ok((error_code(store.data_mut(), error)?,))
    })?;
    linker.allow_shadowing(false);
    Ok(linker)
}

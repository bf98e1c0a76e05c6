//! Everything that a flattened component may import.

use anyhow::Result;
use wasmtime::{Engine, Linker};

use super::{abi, builtins, cli, cli03, config, http, http03, io, outgoing};
use crate::guest::component::state::State;
use guesthouse_module::flatten::NEXT;

/// A linker with everything that a flattened component may import.
pub fn linker(engine: &Engine) -> Result<Linker<State>> {
    let mut linker = Linker::new(engine);
    io::add_to_linker(&mut linker)?;
    cli::add_to_linker(&mut linker)?;
    config::add_to_linker(&mut linker)?;
    http::add_to_linker(&mut linker)?;
    outgoing::add_to_linker(&mut linker)?;
    builtins::add_to_linker(&mut linker)?;
    http03::add_to_linker(&mut linker)?;
    cli03::add_to_linker(&mut linker)?;
    linker.func_wrap(NEXT.0, NEXT.1, abi::place)?;
    Ok(linker)
}

//! The linker of flat components.

use anyhow::Result;
use wasmtime::{Engine, Linker};

use super::{abi, builtins, cli, cli03, config, http, http03, io, outgoing};
use crate::guest::component::state::ComponentState;
use guesthouse_module::flatten::REALLOC_IMPORT;

/// A linker with everything that a flat component may import.
pub fn linker(engine: &Engine) -> Result<Linker<ComponentState>> {
    let mut linker = Linker::new(engine);
    io::add_to_linker(&mut linker)?;
    cli::add_to_linker(&mut linker)?;
    config::add_to_linker(&mut linker)?;
    http::add_to_linker(&mut linker)?;
    outgoing::add_to_linker(&mut linker)?;
    builtins::add_to_linker(&mut linker)?;
    http03::add_to_linker(&mut linker)?;
    cli03::add_to_linker(&mut linker)?;
    linker.func_wrap(REALLOC_IMPORT.0, REALLOC_IMPORT.1, abi::resume_lowering)?;
    Ok(linker)
}

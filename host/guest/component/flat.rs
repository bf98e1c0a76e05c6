//! Host functions for components that are one core module (`flatten.rs`): WASI, wasi:http and
//! wasi:config by the canonical ABI.
//!
//! Owns how values pass between a module's memory and wasmtime's own implementation of WASI, which
//! does what the functions are for. Source of the layouts: the component model's CanonicalABI.md.

mod abi;
mod builtins;
mod cli;
mod cli03;
mod config;
mod error;
mod fields;
mod http;
mod http03;
mod io;
mod outgoing;
mod outlet;
mod pipe;
mod shapes;
mod tasks;
pub mod turns;

pub use abi::{Canon, Held};

use anyhow::Result;
use guesthouse_module::flatten::NEXT;
use wasmtime::{Engine, Linker};

use super::State;

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

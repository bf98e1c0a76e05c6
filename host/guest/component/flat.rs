//! Host functions for components that are one core module (`flatten.rs`): WASI, wasi:http and
//! wasi:config by the canonical ABI.
//!
//! Owns how values pass between a module's memory and wasmtime's own implementation of WASI, which
//! does what the functions are for. Source of the layouts: the component model's CanonicalABI.md.

mod abi;
mod builtins;
mod canon;
mod cli;
mod cli03;
mod config;
mod ends;
mod error;
mod fields;
mod handles;
mod http;
mod http03;
mod io;
mod linker;
mod lower;
mod memory;
mod outgoing;
mod outlet;
mod pipe;
mod running;
mod shapes;
mod tasks;
mod turns;

pub use canon::Canon;
pub use handles::Held;
pub use linker::linker;
pub use running::{Flat, FlatPre, Once};
pub use turns::Turns;

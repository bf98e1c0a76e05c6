//! Host functions for flat components (`flatten.rs`): WASI, wasi:http and wasi:config with our own
//! canonical ABI.
//!
//! Owns how values pass between a module's memory and wasmtime's implementation of WASI, which does
//! the work of each function. Source of the layouts: the component model's CanonicalABI.md.

mod abi;
mod accessors;
mod body_channel;
mod builtins;
mod canon_state;
mod cli;
mod cli03;
mod config;
mod ends;
mod error;
mod event_loop;
mod fields;
mod flat_component;
mod handle_table;
mod http;
mod http03;
mod io;
mod linker;
mod lower;
mod memory;
mod outgoing;
mod tasks;
mod transfer;

pub use canon_state::CanonState;
pub use event_loop::CallbackExports;
pub use flat_component::{FlatComponent, FlatPre, SyncExport};
pub use handle_table::ResourceKind;
pub use linker::linker;

//! Components that speak wasi:http: what they may import, their instances, and their calls.
//!
//! Owns the way from a request to a component's response. WASI itself, and the resources of
//! wasi:http, are wasmtime's own implementation.

pub mod body;
pub mod code;
pub mod codes;
pub mod concurrent;
pub mod config;
pub mod flat;
pub mod gone;
pub mod head;
pub mod held;
pub mod holdings;
pub mod hooks;
pub mod incoming;
pub mod limits;
pub mod link;
pub mod outgoing;
pub mod outgoing_body;
pub mod random;
pub mod running;
pub mod state;
pub mod whole;

pub use code::ComponentCode;
pub use flat::linker as flat_linker;
pub use flat::{Flat, FlatPre, Once, Turns};
pub use gone::Gone;
pub use link::{concurrent_linker, linker};
pub use running::{Concurrent, Running};
pub use state::State;

//! Components that speak wasi:http: what they may import, their instances, and their calls.
//!
//! Owns the way from a request to a component's response. WASI itself, and the resources of
//! wasi:http, are wasmtime's own implementation.

mod body;
mod code;
mod codes;
mod concurrent;
mod config;
mod departure;
mod flat;
mod head;
mod held;
mod hooks;
mod instance;
mod link;
mod outgoing_body;
mod random;
mod resident;
mod state;
mod visit;

pub use code::{ComponentCode, FlatCode, Pre};
pub use flat::linker as flat_linker;
pub use instance::ComponentInstance;
pub use link::{concurrent_linker, linker};
pub use resident::{Resident, Seat};
pub use state::{Gone, State};
pub use visit::{Terms, Visit};

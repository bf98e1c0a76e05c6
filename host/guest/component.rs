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
mod gone;
mod head;
mod held;
mod holdings;
mod hooks;
mod incoming;
mod instance;
mod limits;
mod link;
mod outgoing;
mod outgoing_body;
mod random;
mod resident;
mod running;
mod state;
mod terms;
mod visit;
mod whole;

pub use code::ComponentCode;
pub use departure::response;
pub use flat::linker as flat_linker;
pub use flat::{Flat, FlatPre, Once, Turns};
pub use gone::Gone;
pub use instance::ComponentInstance;
pub use link::{concurrent_linker, linker};
pub use resident::{Resident, Seat};
pub use running::{Concurrent, Running};
pub use state::State;
pub use terms::Terms;
pub use visit::Visit;

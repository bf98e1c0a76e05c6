//! Components that speak wasi:http: what they may import, their instances, and their calls.
//!
//! Owns the path from a request to a component's response. WASI itself and the resources of
//! wasi:http are wasmtime's own implementation.

pub mod body;
pub mod charged_fields;
pub mod code;
pub mod component_form;
pub mod concurrent;
pub mod config;
pub mod flat;
pub mod guest_response;
pub mod hooks;
pub mod http_errors;
pub mod incoming;
pub mod limits;
pub mod link;
pub mod outgoing;
pub mod outgoing_body;
pub mod random;
pub mod state;
pub mod store_charge;
pub mod store_liveness;
pub mod whole;

pub use code::ComponentCode;
pub use component_form::{ComponentForm, Concurrent};
pub use flat::linker as flat_linker;
pub use flat::{CallbackExports, FlatComponent, FlatPre, SyncExport};
pub use link::{concurrent_linker, linker};
pub use state::ComponentState;
pub use store_liveness::StoreLiveness;

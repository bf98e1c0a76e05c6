//! What is known of a core guest once it has been linked, and what its instances are made of.

use wasmtime::{InstancePre, ModuleExport};

use super::state::CoreState;

/// A core guest's code.
pub struct CoreCode {
    pub pre: InstancePre<CoreState>,
    pub exports: Exports,
    /// Features that its start-up code enabled.
    pub features: u32,
    pub startup: Startup,
}

/// A guest's exports, looked up by index: by name it costs 175 ns each.
pub struct Exports {
    pub memory: ModuleExport,
    pub handle_request: ModuleExport,
    pub handle_response: Option<ModuleExport>,
    /// Mutable globals, where its instances can be reset.
    pub globals: Vec<ModuleExport>,
}

/// What a fresh instance still has to run before its first request.
pub enum Startup {
    /// Nothing: there is no start-up code, or its result is in the module's image.
    Done,
    /// A start function, or start-up exports whose result may not be kept.
    Each { functions: Vec<ModuleExport>, why: String },
}

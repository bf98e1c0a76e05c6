//! A core guest's linked code, from which its instances are made.

use wasmtime::{InstancePre, ModuleExport};

use super::state::CoreState;

/// The linked code of a core guest.
pub struct CoreCode {
    /// What instances are made from: code with all imports resolved.
    pub pre: InstancePre<CoreState>,
    /// The exports that the host uses.
    pub exports: Exports,
    /// Feature bits that its start-up code has enabled.
    pub features: u32,
    /// What a fresh instance still has to run.
    pub startup: Startup,
}

/// A guest's exports by index: looking them up by name costs 175 ns each.
pub struct Exports {
    /// `memory`
    pub memory: ModuleExport,
    /// `handle_request`
    pub handle_request: ModuleExport,
    /// `handle_response`, which a guest may leave out.
    pub handle_response: Option<ModuleExport>,
    /// The mutable globals, if instances can be reset.
    pub globals: Vec<ModuleExport>,
}

/// What a fresh instance still has to run before its first request.
pub enum Startup {
    /// Nothing: there is no start-up code, or the module is a snapshot taken after it.
    Done,
    /// A start function, or start-up exports whose result may not be kept.
    Each {
        /// The start-up exports, in the order in which they run.
        functions: Vec<ModuleExport>,
        /// Why there is no snapshot, for `check` and the log.
        why: String,
    },
}

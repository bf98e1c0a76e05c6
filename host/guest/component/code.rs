//! What is known of a component once it has been linked, and what its instances are made of.

use wasmtime::{InstancePre, ModuleExport};
use wasmtime_wasi_http::p2::bindings::ProxyPre;

use super::State;
use crate::guest::reset::Baseline;

/// A component's code.
pub struct ComponentCode {
    pub pre: Pre,
    /// Whether a fresh instance runs code of the component before its first request.
    pub has_start: bool,
}

/// What is instantiated.
pub enum Pre {
    /// The component; it exports `wasi:http/incoming-handler@0.2.x`.
    Whole(ProxyPre<State>),
    /// Its one module.
    Flat(FlatCode),
}

/// A flattened component's code, and its exports.
pub struct FlatCode {
    pub pre: InstancePre<State>,
    pub memory: ModuleExport,
    pub handle: ModuleExport,
    /// Mutable globals, where its instances can be reset.
    pub globals: Vec<ModuleExport>,
    /// The state to which its instances can be reset, if they can.
    pub baseline: Option<Baseline>,
}

impl ComponentCode {
    /// The state to which its instances can be reset, if they can.
    pub fn baseline(&self) -> Option<&Baseline> {
        match &self.pre {
            Pre::Flat(flat) => flat.baseline.as_ref(),
            Pre::Whole(_) => None,
        }
    }

    pub fn set_baseline(&mut self, baseline: Option<Baseline>) {
        if let Pre::Flat(flat) = &mut self.pre {
            flat.baseline = baseline;
        }
    }
}

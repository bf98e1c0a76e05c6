//! What is known of a component once it has been linked, and what its instances are made of.

use wasmtime::{Engine, InstancePre, ModuleExport, component};
use wasmtime_wasi_http::p2::bindings::ProxyPre;
use wasmtime_wasi_http::p3::bindings::ServicePre;

use super::state::State;
use crate::guest::cache::Kind;
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
    /// The component; it exports `wasi:http/handler@0.3.x`.
    Concurrent(ServicePre<State>),
    /// Its one module.
    Flat(FlatCode),
}

/// A flattened component's code, and its exports.
pub struct FlatCode {
    pub pre: InstancePre<State>,
    pub memory: ModuleExport,
    pub handle: ModuleExport,
    /// Of 0.3.
    pub callback: Option<ModuleExport>,
    /// Mutable globals, where its instances can be reset.
    pub globals: Vec<ModuleExport>,
    /// The state to which its instances can be reset, if they can.
    pub baseline: Option<Baseline>,
}

impl Pre {
    /// A component that is served as it is.
    ///
    /// # Errors
    /// It does not export what it is to be served by.
    pub fn of(pre: component::InstancePre<State>, kind: &Kind) -> wasmtime::Result<Pre> {
        match kind {
            Kind::Concurrent => ServicePre::new(pre).map(Pre::Concurrent),
            _ => ProxyPre::new(pre).map(Pre::Whole),
        }
    }

    pub fn engine(&self) -> &Engine {
        match self {
            Pre::Whole(pre) => pre.engine(),
            Pre::Concurrent(pre) => pre.engine(),
            Pre::Flat(flat) => flat.pre.module().engine(),
        }
    }
}

impl ComponentCode {
    /// Whether it speaks 0.3, so that an instance can handle requests beside each other.
    pub fn is_concurrent(&self) -> bool {
        match &self.pre {
            Pre::Concurrent(_) => true,
            Pre::Flat(flat) => flat.callback.is_some(),
            Pre::Whole(_) => false,
        }
    }

    /// Whether it is served as its one module.
    pub fn is_flat(&self) -> bool {
        matches!(self.pre, Pre::Flat(_))
    }

    /// Whether each call of an instance that waits may hold a stack of its own.
    pub fn has_many_stacks(&self) -> bool {
        matches!(self.pre, Pre::Concurrent(_))
    }

    /// The state to which its instances can be reset, if they can.
    pub fn baseline(&self) -> Option<&Baseline> {
        match &self.pre {
            Pre::Flat(flat) => flat.baseline.as_ref(),
            Pre::Whole(_) | Pre::Concurrent(_) => None,
        }
    }

    pub fn set_baseline(&mut self, baseline: Option<Baseline>) {
        if let Pre::Flat(flat) = &mut self.pre {
            flat.baseline = baseline;
        }
    }
}

//! What is known of a component once it has been linked, and what its instances are made of.

use wasmtime::Engine;

use super::component_form::ComponentForm;

/// The code of a component that runs as `R`.
pub struct ComponentCode<R: ComponentForm> {
    pub pre: R::Pre,
    /// Whether a fresh instance runs code of the component before its first request.
    pub has_start: bool,
}

impl<R: ComponentForm> ComponentCode<R> {
    pub fn engine(&self) -> &Engine {
        R::engine(&self.pre)
    }
}

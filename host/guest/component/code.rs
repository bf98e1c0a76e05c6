//! A component's linked code, from which its instances are made.

use wasmtime::Engine;

use super::component_form::ComponentForm;

/// The linked code of a component that runs as `R`.
pub struct ComponentCode<R: ComponentForm> {
    /// What instances are made from: code with all imports resolved.
    pub pre: R::Pre,
    /// Whether making an instance runs code of the component.
    pub has_start: bool,
}

impl<R: ComponentForm> ComponentCode<R> {
    /// The engine that the code was compiled for.
    pub fn engine(&self) -> &Engine {
        R::engine(&self.pre)
    }
}

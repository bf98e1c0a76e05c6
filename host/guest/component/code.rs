//! What is known of a component once it has been linked, and what its instances are made of.

use wasmtime_wasi_http::p2::bindings::ProxyPre;

use super::State;

/// A component's code.
pub struct ComponentCode {
    /// Exports `wasi:http/incoming-handler@0.2.x`.
    pub pre: ProxyPre<State>,
    /// Whether a fresh instance runs code of the component before its first request.
    pub has_start: bool,
}

//! A request as components of 0.2 are handed one: the request and the outparam for its response.

use wasmtime::component::Resource;
use wasmtime_wasi_http::p2::bindings::http::types;
use wasmtime_wasi_http::p2::types::{HostIncomingRequest, HostResponseOutparam};
use wasmtime_wasi_http::{Error, WasiHttpView};

use super::concurrent::Arrival;
use super::state::ComponentState;
use crate::message::Scheme;

/// Makes both resources in a store.
///
/// # Errors
/// The request cannot be handed to a component.
pub fn incoming(
    state: &mut ComponentState,
    Arrival { id, scheme, request, head, cdn_loop }: Arrival,
) -> wasmtime::Result<(Resource<HostIncomingRequest>, Resource<HostResponseOutparam>)> {
    state.begin(Some(id));
    state.hooks.set_request(cdn_loop, Some(id));
    let mut http = state.http();
    let scheme = match scheme {
        Scheme::Http => types::Scheme::Http,
        Scheme::Https => types::Scheme::Https,
    };
    let request = http.new_incoming_request(scheme, request)?;
    let outparam = http.new_response_outparam_from_callback(move |answer| {
        // The receiver may be gone.
        drop(head.send(answer.map_err(Error::from)));
    })?;
    Ok((request, outparam))
}

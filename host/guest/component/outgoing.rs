//! The functions of wasi:http 0.2 that give a guest the bodies to write to, each with a bound
//! (`outgoing_body.rs`).

use wasmtime::component::Resource;
use wasmtime_wasi_http::WasiHttpView as _;
use wasmtime_wasi_http::p2::body::HostOutgoingBody;
use wasmtime_wasi_http::p2::types::{HostOutgoingRequest, HostOutgoingResponse};
use wasmtime_wasi_io::streams::DynOutputStream;

use super::outgoing_body::{request_bytes_max, response_bytes_max};
use super::state::ComponentState;

type TakeResult<T> = wasmtime::Result<Result<Resource<T>, ()>>;

/// `outgoing-response.body`: the response's body, the first time that the guest asks for it.
pub fn take_response_body(
    state: &mut ComponentState,
    this: Resource<HostOutgoingResponse>,
) -> TakeResult<HostOutgoingBody> {
    use wasmtime_wasi_http::p2::bindings::http::types::HostOutgoingResponse as Host;
    let response = Resource::<HostOutgoingResponse>::new_borrow(this.rep());
    let Ok(body) = Host::body(&mut state.http(), this)? else { return Ok(Err(())) };
    let ComponentState { limiter, table, unopened, .. } = state;
    let response = table.get_mut(&response)?;
    let (queue, info) = (response.body.take(), &limiter.guest_info);
    response.body = unopened.bound(info, body.rep(), response_bytes_max, queue);
    Ok(Ok(body))
}

/// `outgoing-request.body`: the request's body, the first time that the guest asks for it.
pub fn take_request_body(
    state: &mut ComponentState,
    this: Resource<HostOutgoingRequest>,
) -> TakeResult<HostOutgoingBody> {
    use wasmtime_wasi_http::p2::bindings::http::types::HostOutgoingRequest as Host;
    let request = Resource::<HostOutgoingRequest>::new_borrow(this.rep());
    let Ok(body) = Host::body(&mut state.http(), this)? else { return Ok(Err(())) };
    let ComponentState { limiter, table, unopened, .. } = state;
    let request = table.get_mut(&request)?;
    let (queue, info) = (request.body.take(), &limiter.guest_info);
    request.body = unopened.bound(info, body.rep(), request_bytes_max, queue);
    Ok(Ok(body))
}

/// `outgoing-body.write`: the stream to write a body with, the first time that it is asked for.
pub fn take_stream(
    state: &mut ComponentState,
    this: Resource<HostOutgoingBody>,
) -> TakeResult<DynOutputStream> {
    let Some(queue) = state.table.get_mut(&this)?.take_output_stream() else { return Ok(Err(())) };
    let stream = state.unopened.open(this.rep(), queue)?;
    Ok(Ok(state.table.push_child(stream, &this)?))
}

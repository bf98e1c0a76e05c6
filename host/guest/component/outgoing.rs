//! The functions of wasi:http 0.2 by which a guest gets at the bodies that it writes, each of which
//! is bounded (`outgoing_body.rs`).

use wasmtime::component::Resource;
use wasmtime_wasi_http::WasiHttpView as _;
use wasmtime_wasi_http::p2::body::HostOutgoingBody;
use wasmtime_wasi_http::p2::types::{HostOutgoingRequest, HostOutgoingResponse};
use wasmtime_wasi_io::streams::DynOutputStream;

use super::outgoing_body::{request_bytes_max, response_bytes_max};
use super::state::State;

type Once<T> = wasmtime::Result<Result<Resource<T>, ()>>;

/// `outgoing-response.body`
pub fn of_response(
    state: &mut State,
    this: Resource<HostOutgoingResponse>,
) -> Once<HostOutgoingBody> {
    use wasmtime_wasi_http::p2::bindings::http::types::HostOutgoingResponse as Host;
    let response = Resource::<HostOutgoingResponse>::new_borrow(this.rep());
    let Ok(body) = Host::body(&mut state.http(), this)? else { return Ok(Err(())) };
    let State { limiter, table, unopened, .. } = state;
    let response = table.get_mut(&response)?;
    let (queue, about) = (response.body.take(), &limiter.about);
    response.body = unopened.bound(about, body.rep(), response_bytes_max, queue);
    Ok(Ok(body))
}

/// `outgoing-request.body`
pub fn of_request(
    state: &mut State,
    this: Resource<HostOutgoingRequest>,
) -> Once<HostOutgoingBody> {
    use wasmtime_wasi_http::p2::bindings::http::types::HostOutgoingRequest as Host;
    let request = Resource::<HostOutgoingRequest>::new_borrow(this.rep());
    let Ok(body) = Host::body(&mut state.http(), this)? else { return Ok(Err(())) };
    let State { limiter, table, unopened, .. } = state;
    let request = table.get_mut(&request)?;
    let (queue, about) = (request.body.take(), &limiter.about);
    request.body = unopened.bound(about, body.rep(), request_bytes_max, queue);
    Ok(Ok(body))
}

/// `outgoing-body.write`
pub fn write(state: &mut State, this: Resource<HostOutgoingBody>) -> Once<DynOutputStream> {
    let Some(queue) = state.table.get_mut(&this)?.take_output_stream() else { return Ok(Err(())) };
    let stream = state.unopened.open(this.rep(), queue)?;
    Ok(Ok(state.table.push_child(stream, &this)?))
}

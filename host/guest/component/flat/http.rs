//! wasi:http/types of 0.2, as far as handling requests needs it: fields, the request and its body,
//! the response and its body.

use wasmtime::Linker;
use wasmtime::component::Resource;
use wasmtime_wasi_http::p2::bindings::http::types::{
    HeaderError, Host as _, HostFutureTrailers, HostIncomingBody, HostIncomingRequest,
    HostOutgoingBody, HostOutgoingResponse, HostResponseOutparam, Method, Scheme,
};
use wasmtime_wasi_http::p2::body::{
    HostFutureTrailers as FutureTrailers, HostIncomingBody as IncomingBody,
    HostOutgoingBody as OutgoingBody,
};
use wasmtime_wasi_http::p2::types::{
    HostIncomingRequest as IncomingRequest, HostOutgoingResponse as OutgoingResponse,
    HostResponseOutparam as ResponseOutparam,
};
use wasmtime_wasi_http::{FieldMap, WasiHttpView as _};

use super::abi::{FlatCaller, OwnHandle, give, give_all, parts};
use super::accessors::{
    TYPES, add_child_getter, add_child_taker, add_constructor, add_drop, add_end, add_getter,
};
use super::error::FlatErrorCode;
use super::fields;
use super::handle_table::ResourceKind;
use super::lower::{At, Layout, Lower};
use super::memory::{Result, flag};
use crate::guest::component::outgoing;
use crate::guest::component::state::ComponentState;
use crate::guest::engine::fault::misuse;

impl ResourceKind for FieldMap {
    const KIND: u8 = 4;
}
impl ResourceKind for IncomingRequest {
    const KIND: u8 = 5;
}
impl ResourceKind for ResponseOutparam {
    const KIND: u8 = 6;
}
impl ResourceKind for IncomingBody {
    const KIND: u8 = 7;
}
impl ResourceKind for FutureTrailers {
    const KIND: u8 = 8;
}
impl ResourceKind for OutgoingResponse {
    const KIND: u8 = 9;
}
impl ResourceKind for OutgoingBody {
    const KIND: u8 = 10;
}

pub fn add_to_linker(linker: &mut Linker<ComponentState>) -> Result<()> {
    add_drops(linker)?;
    fields::add_to_linker::<HeaderError>(linker, TYPES, "entries")?;
    add_request(linker)?;
    add_request_body(linker)?;
    add_response(linker)?;
    add_response_body(linker)
}

fn add_drops(linker: &mut Linker<ComponentState>) -> Result<()> {
    add_drop(linker, "incoming-request", |http, it: Resource<IncomingRequest>| {
        HostIncomingRequest::drop(http, it)
    })?;
    add_drop(linker, "response-outparam", |http, it: Resource<ResponseOutparam>| {
        HostResponseOutparam::drop(http, it)
    })?;
    add_drop(linker, "incoming-body", |http, it: Resource<IncomingBody>| {
        HostIncomingBody::drop(http, it)
    })?;
    add_drop(linker, "future-trailers", |http, it: Resource<FutureTrailers>| {
        HostFutureTrailers::drop(http, it)
    })?;
    add_drop(linker, "outgoing-response", |http, it: Resource<OutgoingResponse>| {
        HostOutgoingResponse::drop(http, it)
    })?;
    add_drop(linker, "outgoing-body", |http, it: Resource<OutgoingBody>| {
        HostOutgoingBody::drop(http, it)
    })
}

/// `variant method`: nine without a value, and `other(string)`.
impl Lower for Method {
    const SIZE: usize = 12;
    const ALIGN: usize = 4;
    fn lower(self, out: &mut Layout, at: At) {
        let case: u8 = match self {
            Method::Get => 0,
            Method::Head => 1,
            Method::Post => 2,
            Method::Put => 3,
            Method::Delete => 4,
            Method::Connect => 5,
            Method::Options => 6,
            Method::Trace => 7,
            Method::Patch => 8,
            Method::Other(name) => {
                name.lower(out, at.plus(4));
                9
            }
        };
        case.lower(out, at);
    }
}

/// `variant scheme`: HTTP, HTTPS, `other(string)`.
impl Lower for Scheme {
    const SIZE: usize = 12;
    const ALIGN: usize = 4;
    fn lower(self, out: &mut Layout, at: At) {
        let case: u8 = match self {
            Scheme::Http => 0,
            Scheme::Https => 1,
            Scheme::Other(name) => {
                name.lower(out, at.plus(4));
                2
            }
        };
        case.lower(out, at);
    }
}

fn add_request(linker: &mut Linker<ComponentState>) -> Result<()> {
    add_getter(
        linker,
        "[method]incoming-request.method",
        |http, it: Resource<IncomingRequest>| HostIncomingRequest::method(http, it),
    )?;
    add_getter(
        linker,
        "[method]incoming-request.path-with-query",
        |http, it: Resource<IncomingRequest>| HostIncomingRequest::path_with_query(http, it),
    )?;
    add_getter(
        linker,
        "[method]incoming-request.scheme",
        |http, it: Resource<IncomingRequest>| HostIncomingRequest::scheme(http, it),
    )?;
    add_getter(
        linker,
        "[method]incoming-request.authority",
        |http, it: Resource<IncomingRequest>| HostIncomingRequest::authority(http, it),
    )?;
    add_child_getter(
        linker,
        "[method]incoming-request.headers",
        |http, it: Resource<IncomingRequest>| HostIncomingRequest::headers(http, it),
    )?;
    add_child_taker(
        linker,
        "[method]incoming-request.consume",
        |http, it: Resource<IncomingRequest>| HostIncomingRequest::consume(http, it),
    )?;
    Ok(())
}

fn add_request_body(linker: &mut Linker<ComponentState>) -> Result<()> {
    add_child_taker(linker, "[method]incoming-body.stream", |http, it: Resource<IncomingBody>| {
        HostIncomingBody::stream(http, it)
    })?;
    add_constructor(linker, "[static]incoming-body.finish", |http, it: Resource<IncomingBody>| {
        HostIncomingBody::finish(http, it)
    })?;
    add_child_getter(
        linker,
        "[method]future-trailers.subscribe",
        |http, it: Resource<FutureTrailers>| HostFutureTrailers::subscribe(http, it),
    )?;
    linker.func_wrap(
        TYPES,
        "[method]future-trailers.get",
        |mut guest: FlatCaller<'_>, this: u32, ret: u32| {
            let state = guest.data_mut();
            let trailers = state.canon.handles.get::<FutureTrailers>(this)?;
            let got = HostFutureTrailers::get(&mut state.http(), trailers)?;
            let got = match got {
                Some(Ok(Ok(Some(fields)))) => Some(Ok(Ok(Some(OwnHandle::new(state, fields)?)))),
                Some(Ok(Ok(None))) => Some(Ok(Ok(None))),
                Some(Ok(Err(code))) => Some(Ok(Err(code))),
                Some(Err(())) => Some(Err(())),
                None => None,
            };
            give_all(&mut guest, ret, got)
        },
    )?;
    Ok(())
}

fn add_response(linker: &mut Linker<ComponentState>) -> Result<()> {
    add_constructor(linker, "[constructor]outgoing-response", |http, it: Resource<FieldMap>| {
        HostOutgoingResponse::new(http, it)
    })?;
    linker.func_wrap(
        TYPES,
        "[method]outgoing-response.status-code",
        |mut guest: FlatCaller<'_>, this: u32| {
            let state = guest.data_mut();
            let response = state.canon.handles.get::<OutgoingResponse>(this)?;
            HostOutgoingResponse::status_code(&mut state.http(), response).map(u32::from)
        },
    )?;
    linker.func_wrap(
        TYPES,
        "[method]outgoing-response.set-status-code",
        |mut guest: FlatCaller<'_>, this: u32, status: u32| {
            let state = guest.data_mut();
            let response = state.canon.handles.get::<OutgoingResponse>(this)?;
            // The ABI ignores the bits above 16.
            let status = status as u16;
            let set = HostOutgoingResponse::set_status_code(&mut state.http(), response, status)?;
            Ok(u32::from(set.is_err()))
        },
    )?;
    add_child_getter(
        linker,
        "[method]outgoing-response.headers",
        |http, it: Resource<OutgoingResponse>| HostOutgoingResponse::headers(http, it),
    )?;
    add_end(linker, "[method]outgoing-response.body", outgoing::take_response_body)?;
    linker.func_wrap(TYPES, "[static]response-outparam.set", set_response)?;
    linker.func_wrap(
        TYPES,
        "[method]response-outparam.send-informational",
        |_: FlatCaller<'_>, _this: u32, _status: u32, _headers: u32, _ret: u32| {
            Err::<(), _>(misuse("informational responses cannot be sent"))
        },
    )?;
    Ok(())
}

#[expect(clippy::too_many_arguments, reason = "the canonical ABI flattens an error code so")]
fn set_response(
    mut guest: FlatCaller<'_>,
    outparam: u32,
    is_error: u32,
    response_or_case: u32,
    a: u32,
    b: u64,
    c: u32,
    d: u32,
    e: u32,
    f: u32,
) -> Result<()> {
    let (memory, state) = parts(&mut guest)?;
    let response = if flag(is_error)? {
        Err(FlatErrorCode { case: response_or_case, values: (a, b, c, d, e, f) }.lift(memory)?)
    } else {
        Ok(state.canon.handles.take::<OutgoingResponse>(response_or_case)?)
    };
    let outparam = state.canon.handles.take::<ResponseOutparam>(outparam)?;
    HostResponseOutparam::set(&mut state.http(), outparam, response)
}

fn add_response_body(linker: &mut Linker<ComponentState>) -> Result<()> {
    add_end(linker, "[method]outgoing-body.write", outgoing::take_stream)?;
    linker.func_wrap(
        TYPES,
        "[static]outgoing-body.finish",
        |mut guest: FlatCaller<'_>, this: u32, some: u32, trailers: u32, ret: u32| {
            let state = guest.data_mut();
            let body = state.canon.handles.take::<OutgoingBody>(this)?;
            let trailers = match flag(some)? {
                true => Some(state.canon.handles.take::<FieldMap>(trailers)?),
                false => None,
            };
            // The only error is a wrong length, which has no text.
            let finished = match HostOutgoingBody::finish(&mut state.http(), body, trailers) {
                Ok(()) => Ok(()),
                Err(error) => Err(state.http().convert_error_code(error)?),
            };
            give(&mut guest, ret, finished)
        },
    )?;
    Ok(())
}

//! wasi:http of 0.2, as far as a guest's own requests need it.

use guesthouse_module::interfaces::http02::HTTP_OUTGOING_HANDLER;
use wasmtime::Linker;
use wasmtime::component::Resource;
use wasmtime_wasi_http::p2::bindings::http::outgoing_handler;
use wasmtime_wasi_http::p2::bindings::http::types::{
    Host as _, HostFutureIncomingResponse, HostIncomingResponse, HostOutgoingRequest,
    HostRequestOptions, Method, Scheme,
};
use wasmtime_wasi_http::p2::types::{
    HostFutureIncomingResponse as FutureResponse, HostIncomingResponse as IncomingResponse,
    HostOutgoingRequest as OutgoingRequest,
};
use wasmtime_wasi_http::{FieldMap, RequestOptions, WasiHttpView as _};
use wasmtime_wasi_io::streams::Error;

use super::abi::{FlatCaller, OwnHandle, give, give_all, owned, parts};
use super::accessors::{
    TYPES, add_child_getter, add_child_taker, add_constructor, add_drop, add_end, add_getter,
};
use super::handle_table::ResourceKind;
use super::memory::{Result, flag, string};
use crate::guest::component::http_errors::error_code;
use crate::guest::component::outgoing;
use crate::guest::component::state::ComponentState;
use crate::guest::engine::fault::misuse;

impl ResourceKind for OutgoingRequest {
    const KIND: u8 = 11;
}
impl ResourceKind for RequestOptions {
    const KIND: u8 = 12;
}
impl ResourceKind for IncomingResponse {
    const KIND: u8 = 13;
}
impl ResourceKind for FutureResponse {
    const KIND: u8 = 14;
}

pub fn add_to_linker(linker: &mut Linker<ComponentState>) -> Result<()> {
    add_request(linker)?;
    add_request_parts(linker)?;
    add_options(linker)?;
    add_response(linker)?;
    add_handle(linker)
}

fn add_request(linker: &mut Linker<ComponentState>) -> Result<()> {
    add_drop(linker, "outgoing-request", |http, it: Resource<OutgoingRequest>| {
        HostOutgoingRequest::drop(http, it)
    })?;
    add_constructor(linker, "[constructor]outgoing-request", |http, it: Resource<FieldMap>| {
        HostOutgoingRequest::new(http, it)
    })?;
    add_child_getter(
        linker,
        "[method]outgoing-request.headers",
        |http, it: Resource<OutgoingRequest>| HostOutgoingRequest::headers(http, it),
    )?;
    add_end(linker, "[method]outgoing-request.body", outgoing::take_request_body)?;
    add_getter(
        linker,
        "[method]outgoing-request.method",
        |http, it: Resource<OutgoingRequest>| HostOutgoingRequest::method(http, it),
    )?;
    add_getter(
        linker,
        "[method]outgoing-request.path-with-query",
        |http, it: Resource<OutgoingRequest>| HostOutgoingRequest::path_with_query(http, it),
    )?;
    add_getter(
        linker,
        "[method]outgoing-request.scheme",
        |http, it: Resource<OutgoingRequest>| HostOutgoingRequest::scheme(http, it),
    )?;
    add_getter(
        linker,
        "[method]outgoing-request.authority",
        |http, it: Resource<OutgoingRequest>| HostOutgoingRequest::authority(http, it),
    )?;
    Ok(())
}

fn add_request_parts(linker: &mut Linker<ComponentState>) -> Result<()> {
    linker.func_wrap(
        TYPES,
        "[method]outgoing-request.set-method",
        |mut guest: FlatCaller<'_>, this: u32, case: u32, ptr: u32, len: u32| {
            let (memory, state) = parts(&mut guest)?;
            let request = state.canon.handles.get::<OutgoingRequest>(this)?;
            let method = method(memory, case, ptr, len)?;
            if let Method::Other(text) = &method {
                state.hold(text.len())?;
            }
            let set = HostOutgoingRequest::set_method(&mut state.http(), request, method)?;
            Ok(u32::from(set.is_err()))
        },
    )?;
    linker.func_wrap(
        TYPES,
        "[method]outgoing-request.set-scheme",
        |mut guest: FlatCaller<'_>, this: u32, some: u32, case: u32, ptr: u32, len: u32| {
            let (memory, state) = parts(&mut guest)?;
            let request = state.canon.handles.get::<OutgoingRequest>(this)?;
            let scheme = match flag(some)? {
                true => Some(scheme(memory, case, ptr, len)?),
                false => None,
            };
            if let Some(Scheme::Other(text)) = &scheme {
                state.hold(text.len())?;
            }
            let set = HostOutgoingRequest::set_scheme(&mut state.http(), request, scheme)?;
            Ok(u32::from(set.is_err()))
        },
    )?;
    macro_rules! sets {
        ($($name:literal $set:ident),* $(,)?) => {$(
            linker.func_wrap(
                TYPES,
                concat!("[method]outgoing-request.", $name),
                |mut guest: FlatCaller<'_>, this: u32, some: u32, ptr: u32, len: u32| {
                    let (memory, state) = parts(&mut guest)?;
                    let request = state.canon.handles.get::<OutgoingRequest>(this)?;
                    let text = match flag(some)? {
                        true => Some(string(memory, ptr, len)?),
                        false => None,
                    };
                    state.hold(text.as_ref().map_or(0, String::len))?;
                    let set = HostOutgoingRequest::$set(&mut state.http(), request, text)?;
                    Ok(u32::from(set.is_err()))
                },
            )?;
        )*};
    }
    sets! {
        "set-path-with-query" set_path_with_query,
        "set-authority" set_authority,
    }
    Ok(())
}

fn method(memory: &[u8], case: u32, ptr: u32, len: u32) -> Result<Method> {
    Ok(match case {
        0 => Method::Get,
        1 => Method::Head,
        2 => Method::Post,
        3 => Method::Put,
        4 => Method::Delete,
        5 => Method::Connect,
        6 => Method::Options,
        7 => Method::Trace,
        8 => Method::Patch,
        9 => Method::Other(string(memory, ptr, len)?),
        case => return Err(misuse(format!("{case} is not a case of method"))),
    })
}

fn scheme(memory: &[u8], case: u32, ptr: u32, len: u32) -> Result<Scheme> {
    Ok(match case {
        0 => Scheme::Http,
        1 => Scheme::Https,
        2 => Scheme::Other(string(memory, ptr, len)?),
        case => return Err(misuse(format!("{case} is not a case of scheme"))),
    })
}

fn add_options(linker: &mut Linker<ComponentState>) -> Result<()> {
    add_drop(linker, "request-options", |http, it: Resource<RequestOptions>| {
        HostRequestOptions::drop(http, it)
    })?;
    linker.func_wrap(TYPES, "[constructor]request-options", |mut guest: FlatCaller<'_>| {
        let state = guest.data_mut();
        let options = HostRequestOptions::new(&mut state.http())?;
        state.give(options)
    })?;
    macro_rules! times {
        ($($name:literal $get:ident $set:ident),* $(,)?) => {$(
            linker.func_wrap(
                TYPES,
                concat!("[method]request-options.", $name),
                |mut guest: FlatCaller<'_>, this: u32, ret: u32| {
                    let state = guest.data_mut();
                    let options = state.canon.handles.get::<RequestOptions>(this)?;
                    let time = HostRequestOptions::$get(&mut state.http(), options)?;
                    give(&mut guest, ret, time)
                },
            )?;
            linker.func_wrap(
                TYPES,
                concat!("[method]request-options.set-", $name),
                |mut guest: FlatCaller<'_>, this: u32, some: u32, time: u64| {
                    let state = guest.data_mut();
                    let options = state.canon.handles.get::<RequestOptions>(this)?;
                    let time = flag(some)?.then_some(time);
                    let set = HostRequestOptions::$set(&mut state.http(), options, time)?;
                    Ok(u32::from(set.is_err()))
                },
            )?;
        )*};
    }
    times! {
        "connect-timeout" connect_timeout set_connect_timeout,
        "first-byte-timeout" first_byte_timeout set_first_byte_timeout,
        "between-bytes-timeout" between_bytes_timeout set_between_bytes_timeout,
    }
    Ok(())
}

fn add_response(linker: &mut Linker<ComponentState>) -> Result<()> {
    add_drop(linker, "incoming-response", |http, it: Resource<IncomingResponse>| {
        HostIncomingResponse::drop(http, it)
    })?;
    linker.func_wrap(
        TYPES,
        "[method]incoming-response.status",
        |mut guest: FlatCaller<'_>, this: u32| {
            let state = guest.data_mut();
            let response = state.canon.handles.get::<IncomingResponse>(this)?;
            HostIncomingResponse::status(&mut state.http(), response).map(u32::from)
        },
    )?;
    add_child_getter(
        linker,
        "[method]incoming-response.headers",
        |http, it: Resource<IncomingResponse>| HostIncomingResponse::headers(http, it),
    )?;
    add_child_taker(
        linker,
        "[method]incoming-response.consume",
        |http, it: Resource<IncomingResponse>| HostIncomingResponse::consume(http, it),
    )?;
    add_drop(linker, "future-incoming-response", |http, it: Resource<FutureResponse>| {
        HostFutureIncomingResponse::drop(http, it)
    })?;
    add_child_getter(
        linker,
        "[method]future-incoming-response.subscribe",
        |http, it: Resource<FutureResponse>| HostFutureIncomingResponse::subscribe(http, it),
    )?;
    linker.func_wrap(
        TYPES,
        "[method]future-incoming-response.get",
        |mut guest: FlatCaller<'_>, this: u32, ret: u32| {
            let state = guest.data_mut();
            let response = state.canon.handles.get::<FutureResponse>(this)?;
            let got = HostFutureIncomingResponse::get(&mut state.http(), response)?;
            let got = match got {
                Some(Ok(response)) => Some(Ok(owned(state, response)?)),
                Some(Err(())) => Some(Err(())),
                None => None,
            };
            give_all(&mut guest, ret, got)
        },
    )?;
    Ok(())
}

fn add_handle(linker: &mut Linker<ComponentState>) -> Result<()> {
    linker.func_wrap(
        TYPES,
        "http-error-code",
        |mut guest: FlatCaller<'_>, error: u32, ret: u32| {
            let state = guest.data_mut();
            let error = state.canon.handles.get::<Error>(error)?;
            let code = error_code(state, error)?;
            give_all(&mut guest, ret, code)
        },
    )?;
    linker.func_wrap(
        HTTP_OUTGOING_HANDLER.module,
        "handle",
        |mut guest: FlatCaller<'_>, request: u32, some: u32, options: u32, ret: u32| {
            let state = guest.data_mut();
            let request = state.canon.handles.take::<OutgoingRequest>(request)?;
            let options = match flag(some)? {
                true => Some(state.canon.handles.take::<RequestOptions>(options)?),
                false => None,
            };
            let sent = outgoing_handler::Host::handle(&mut state.http(), request, options);
            let sent = match sent {
                Ok(response) => Ok(OwnHandle::new(state, response)?),
                Err(error) => Err(state.http().convert_error_code(error)?),
            };
            give_all(&mut guest, ret, sent)
        },
    )?;
    Ok(())
}

//! wasi:http/types of 0.3, as far as handling requests needs it: the request and the response.
//! Their bodies are streams (`transfer.rs`).

use guesthouse_module::interfaces::http03::HTTP_TYPES;
use http::uri::{Authority, PathAndQuery, Scheme};
use http::{Method, StatusCode};
use http_body_util::BodyExt as _;
use wasmtime::Linker;
use wasmtime::component::Resource;
use wasmtime_wasi_http::p2::bindings::http::types::{Method as ShownMethod, Scheme as ShownScheme};
use wasmtime_wasi_http::{Error, FieldMap};

use super::abi::{FlatCaller, give, give_all, parts};
use super::body_channel::body_channel;
use super::builtins::{CANON, drop_future_reader, drop_stream_reader};
use super::ends::{
    ComponentFuture, FutureReader, FutureValue, FutureWriter, GuestEnd, RequestBodyStream, Stream,
    StreamReader, StreamWriter,
};
use super::error::{FieldsError, FlatErrorCode};
use super::fields::{self, put, take};
use super::handle_table::ResourceKind;
use super::lower::{Lower, store};
use super::memory::{Result, flag};
use super::tasks::{SENT_READ, STREAM_READ, TRAILERS_READ};
use super::transfer::{advance_future, advance_stream};
use crate::guest::component::body::{GuestRequestBody, GuestResponseBody};
use crate::guest::component::state::ComponentState;
use crate::guest::engine::fault::misuse;

pub const TYPES: &str = HTTP_TYPES.module;

/// A request that the guest has a handle of.
pub struct FlatRequest {
    pub method: Method,
    pub scheme: Option<Scheme>,
    pub authority: Option<Authority>,
    pub path_and_query: Option<PathAndQuery>,
    pub headers: FieldMap,
    pub body: GuestRequestBody,
}

/// A response that the guest has made.
pub struct FlatResponse {
    status: StatusCode,
    headers: FieldMap,
    /// The stream of its body, if it has a body.
    body: Option<u32>,
    /// The futures of its trailers, and of how sending it has ended.
    trailers: u32,
    sent: u32,
}

impl ResourceKind for FlatRequest {
    const KIND: u8 = 100;
}
impl ResourceKind for FlatResponse {
    const KIND: u8 = 101;
}

pub fn add_to_linker(linker: &mut Linker<ComponentState>) -> Result<()> {
    fields::add_to_linker::<FieldsError>(linker, TYPES, "copy-all")?;
    fields::add_removal::<FieldsError>(linker, TYPES)?;
    add_request(linker)?;
    add_request_body(linker)?;
    linker.func_wrap(CANON, "task.return", task_return)?;
    add_response(linker)
}

fn request(state: &ComponentState, handle: u32) -> Result<&FlatRequest> {
    let request = state.canon.handles.get::<FlatRequest>(handle)?;
    Ok(state.table.get(&request)?)
}

/// Adds a function that returns a part of a request, for which the guest may have to allocate.
fn add_request_getter<T: Lower + 'static>(
    linker: &mut Linker<ComponentState>,
    name: &str,
    part: fn(&FlatRequest) -> T,
) -> Result<()> {
    let name = format!("[method]request.get-{name}");
    linker.func_wrap(TYPES, &name, move |mut guest: FlatCaller<'_>, this: u32, ret: u32| {
        let value = part(request(guest.data(), this)?);
        give_all(&mut guest, ret, value)
    })?;
    Ok(())
}

fn add_request(linker: &mut Linker<ComponentState>) -> Result<()> {
    add_request_getter(linker, "method", |request| ShownMethod::from(request.method.clone()))?;
    add_request_getter(linker, "path-with-query", |request| {
        request.path_and_query.as_ref().map(|path| path.as_str().to_owned())
    })?;
    add_request_getter(linker, "scheme", |request| {
        request.scheme.as_ref().map(|scheme| match scheme.as_str() {
            "http" => ShownScheme::Http,
            "https" => ShownScheme::Https,
            other => ShownScheme::Other(other.to_owned()),
        })
    })?;
    add_request_getter(linker, "authority", |request| {
        request.authority.as_ref().map(|authority| authority.as_str().to_owned())
    })?;
    linker.func_wrap(
        TYPES,
        "[method]request.get-options",
        |mut guest: FlatCaller<'_>, this: u32, ret: u32| {
            request(guest.data(), this)?;
            // Incoming requests have no options.
            give(&mut guest, ret, None::<u32>)
        },
    )?;
    linker.func_wrap(
        TYPES,
        "[method]request.get-headers",
        |mut guest: FlatCaller<'_>, this: u32| {
            let headers = request(guest.data(), this)?.headers.clone();
            put(guest.data_mut(), headers)
        },
    )?;
    // No guest has a handle of options.
    let none = |this: u32| misuse(format!("there is no handle {this}"));
    linker.func_wrap(
        TYPES,
        "[resource-drop]request-options",
        move |_: FlatCaller<'_>, this: u32| Err::<(), _>(none(this)),
    )?;
    linker.func_wrap(
        TYPES,
        "[method]request-options.clone",
        move |_: FlatCaller<'_>, this: u32| Err::<u32, _>(none(this)),
    )?;
    Ok(())
}

fn add_request_body(linker: &mut Linker<ComponentState>) -> Result<()> {
    linker.func_wrap(TYPES, "[resource-drop]request", |mut guest: FlatCaller<'_>, this: u32| {
        let state = guest.data_mut();
        let request = state.canon.handles.take::<FlatRequest>(this)?;
        state.table.delete(request)?;
        Ok(())
    })?;
    linker.func_wrap(
        TYPES,
        "[static]request.consume-body",
        |mut guest: FlatCaller<'_>, this: u32, result: u32, ret: u32| {
            let (memory, state) = parts(&mut guest)?;
            let request = state.canon.handles.take::<FlatRequest>(this)?;
            let body = state.table.delete(request)?.body;
            let result = lift_future(state, SENT_READ, result)?;
            state.canon.tasks.futures.get(result)?.reader = FutureReader::Ignored;
            advance_future(memory, state, result)?;
            let canon = &mut state.canon;
            let trailers = canon
                .tasks
                .futures
                .insert(ComponentFuture { writer: FutureWriter::Host, reader: FutureReader::Gone });
            let writer = StreamWriter::Request(Box::new(RequestBodyStream::new(body, trailers)));
            let stream = canon.tasks.streams.insert(Stream { writer, reader: StreamReader::Gone });
            let read = canon.handles.put_raw(STREAM_READ, stream)?;
            canon.tasks.streams.get(stream)?.reader = StreamReader::Guest(GuestEnd::new(read));
            let end = canon.handles.put_raw(TRAILERS_READ, trailers)?;
            canon.tasks.futures.get(trailers)?.reader = FutureReader::Guest(GuestEnd::new(end));
            store(memory, ret, (read, end))
        },
    )?;
    Ok(())
}

/// Takes the readable end of a future from the guest.
fn lift_future(state: &mut ComponentState, kind: u8, handle: u32) -> Result<u32> {
    let at = state.canon.handles.take_raw(kind, handle)?;
    state.canon.tasks.clear_waitable(handle);
    let future = state.canon.tasks.futures.get(at)?;
    match &future.reader {
        FutureReader::Guest(end) if end.buffer.is_none() => future.reader = FutureReader::Host,
        _ => return Err(misuse("a future is given away that is in use")),
    }
    Ok(at)
}

/// Takes the readable end of a stream from the guest.
fn lift_stream(state: &mut ComponentState, handle: u32) -> Result<u32> {
    let at = state.canon.handles.take_raw(STREAM_READ, handle)?;
    state.canon.tasks.clear_waitable(handle);
    let stream = state.canon.tasks.streams.get(at)?;
    match &stream.reader {
        StreamReader::Guest(end) if end.buffer.is_none() => stream.reader = StreamReader::Host,
        _ => return Err(misuse("a stream is given away that is in use")),
    }
    Ok(at)
}

fn add_response(linker: &mut Linker<ComponentState>) -> Result<()> {
    linker.func_wrap(
        TYPES,
        "[static]response.new",
        |mut guest: FlatCaller<'_>, headers: u32, some: u32, body: u32, trailers: u32, ret: u32| {
            let (memory, state) = parts(&mut guest)?;
            let headers = take(state, headers)?;
            let body = match flag(some)? {
                true => Some(lift_stream(state, body)?),
                false => None,
            };
            let trailers = lift_future(state, TRAILERS_READ, trailers)?;
            let canon = &mut state.canon;
            let (writer, reader) = (FutureWriter::Host, FutureReader::Gone);
            let sent = canon.tasks.futures.insert(ComponentFuture { writer, reader });
            let end = canon.handles.put_raw(SENT_READ, sent)?;
            canon.tasks.futures.get(sent)?.reader = FutureReader::Guest(GuestEnd::new(end));
            let response = FlatResponse { status: StatusCode::OK, headers, body, trailers, sent };
            let response = state.table.push(response)?;
            let response = state.give(response)?;
            store(memory, ret, (response, end))
        },
    )?;
    linker.func_wrap(
        TYPES,
        "[method]response.get-status-code",
        |mut guest: FlatCaller<'_>, this: u32| {
            let state = guest.data_mut();
            let response = state.canon.handles.get::<FlatResponse>(this)?;
            Ok(u32::from(state.table.get(&response)?.status.as_u16()))
        },
    )?;
    linker.func_wrap(
        TYPES,
        "[method]response.set-status-code",
        |mut guest: FlatCaller<'_>, this: u32, status: u32| {
            let state = guest.data_mut();
            let response = state.canon.handles.get::<FlatResponse>(this)?;
            // The ABI ignores the bits above 16.
            let Ok(status) = StatusCode::from_u16(status as u16) else { return Ok(1_u32) };
            state.table.get_mut(&response)?.status = status;
            Ok(0)
        },
    )?;
    linker.func_wrap(
        TYPES,
        "[method]response.get-headers",
        |mut guest: FlatCaller<'_>, this: u32| {
            let state = guest.data_mut();
            let response = state.canon.handles.get::<FlatResponse>(this)?;
            let headers = state.table.get(&response)?.headers.clone();
            put(state, headers)
        },
    )?;
    linker.func_wrap(
        TYPES,
        "[resource-drop]response",
        |mut guest: FlatCaller<'_>, this: u32| {
            let (memory, state) = parts(&mut guest)?;
            let response = state.canon.handles.take::<FlatResponse>(this)?;
            let FlatResponse { body, trailers, sent, .. } = state.table.delete(response)?;
            state.canon.tasks.resolve(sent, FutureValue::Sent(Ok(())));
            if let Some(body) = body {
                drop_stream_reader(memory, state, body)?;
            }
            drop_future_reader(memory, state, trailers)
        },
    )?;
    Ok(())
}

/// `task.return` of the handler: `result<response, error-code>`.
#[expect(clippy::too_many_arguments, reason = "the canonical ABI flattens an error code so")]
fn task_return(
    mut guest: FlatCaller<'_>,
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
    let answer = if flag(is_error)? {
        let code = FlatErrorCode { case: response_or_case, values: (a, b, c, d, e, f) };
        Err(Error::from(code.lift(memory)?))
    } else {
        let response = state.canon.handles.take::<FlatResponse>(response_or_case)?;
        let response = state.table.delete(response)?;
        Ok(send(memory, state, response)?)
    };
    let head = state.canon.tasks.current_task()?.head.take();
    let head = head.ok_or_else(|| misuse("it has answered twice"))?;
    // The receiver may be gone.
    drop(head.send(answer));
    Ok(())
}

/// Turns a guest's response into the host's, and connects the body's stream and futures to it.
fn send(
    memory: &mut [u8],
    state: &mut ComponentState,
    response: FlatResponse,
) -> Result<http::Response<GuestResponseBody>> {
    let FlatResponse { status, headers, body, trailers, sent } = response;
    let piped = match body {
        Some(body) => piped_body(state, body)?,
        None => None,
    };
    let response_body = match piped {
        // The guest hands on the request's own body, whose end is the response's.
        Some(mut request_body) => {
            drop_future_reader(memory, state, trailers)?;
            if let Some(trailers) = request_body.take_trailers() {
                state.canon.tasks.resolve(trailers, FutureValue::Trailers(Ok(None)));
            }
            state.canon.tasks.resolve(sent, FutureValue::Sent(Ok(())));
            request_body.into_body().boxed_unsync()
        }
        None => {
            let (sender, completion, channel_body) = body_channel();
            let sender = std::sync::Arc::new(sender);
            match body {
                Some(body) => {
                    let stream = state.canon.tasks.streams.get(body)?;
                    let is_over = matches!(stream.writer, StreamWriter::Gone);
                    stream.reader = StreamReader::Response(sender.clone());
                    if is_over {
                        sender.close();
                        drop(state.canon.tasks.streams.remove(body));
                    } else {
                        advance_stream(memory, &mut state.canon.tasks, body)?;
                    }
                }
                None => sender.close(),
            }
            state.canon.tasks.futures.get(trailers)?.reader = FutureReader::Response(sender);
            advance_future(memory, state, trailers)?;
            state.canon.tasks.resolve_with(sent, FutureWriter::Response(completion));
            channel_body.boxed_unsync()
        }
    };
    let mut made = http::Response::new(response_body);
    *made.status_mut() = status;
    *made.headers_mut() = headers.into();
    Ok(made)
}

/// The request's body, if the guest hands it on as the response's.
fn piped_body(state: &mut ComponentState, body: u32) -> Result<Option<Box<RequestBodyStream>>> {
    let stream = state.canon.tasks.streams.get(body)?;
    match std::mem::replace(&mut stream.writer, StreamWriter::Gone) {
        StreamWriter::Request(request_body) => {
            drop(state.canon.tasks.streams.remove(body));
            Ok(Some(request_body))
        }
        writer => {
            stream.writer = writer;
            Ok(None)
        }
    }
}

impl ComponentState {
    /// Gives the guest a request. Returns its handle.
    pub fn put_request(&mut self, request: http::Request<GuestRequestBody>) -> Result<u32> {
        let (head, body) = request.into_parts();
        let uri = head.uri.into_parts();
        let headers = self.field_map(head.headers);
        let request = FlatRequest {
            method: head.method,
            scheme: uri.scheme,
            authority: uri.authority,
            path_and_query: uri.path_and_query,
            headers,
            body,
        };
        let request: Resource<FlatRequest> = self.table.push(request)?;
        self.give(request)
    }
}

//! Behaviours about outbound requests.
//!
//! Header fields of the request say what to fetch: `x-url`, `x-method`, `x-times`, the timeouts in
//! milliseconds `x-connect`, `x-first-byte` and `x-between-bytes`, and for a body `x-bytes`,
//! `x-content-length` and `x-trailer`.

use std::collections::BTreeMap;

use wasip2::clocks::monotonic_clock;
use wasip2::http::outgoing_handler;
use wasip2::http::types::{
    ErrorCode, Fields, FutureIncomingResponse, IncomingResponse, Method, OutgoingBody,
    OutgoingRequest, RequestOptions, Scheme,
};
use wasip2::io::streams::OutputStream;

use crate::Behaviour;
use crate::ask::{Ask, wait_for_ever};
use crate::reply::made;
use crate::upload::Upload;

pub const BEHAVIOURS: [(&str, Behaviour); 16] = [
    ("fetch", fetch),
    ("fetch-upload", fetch_upload),
    ("fetch-sized", fetch_sized),
    ("fetch-late", fetch_late),
    ("fetch-head", fetch_head),
    ("fetch-many", fetch_many),
    ("fetch-again", fetch_again),
    ("fetch-forbidden", fetch_forbidden),
    ("fetch-flood", fetch_flood),
    ("fetch-open", fetch_open),
    ("fetch-written", fetch_written),
    ("fetch-trap", fetch_trap),
    ("fetch-drop", fetch_drop),
    ("fetch-leave", fetch_leave),
    ("fetch-hold", fetch_hold),
    ("relay", relay),
];

/// The value of a header field of the request.
fn field(ask: &Ask, name: &str) -> Option<String> {
    let values = ask.request.headers().get(name);
    values.first().map(|value| String::from_utf8_lossy(value).into_owned())
}

fn nanoseconds(ask: &Ask, name: &str) -> Option<u64> {
    field(ask, name).and_then(|ms| ms.parse::<u64>().ok()).map(|ms| ms * 1_000_000)
}

/// The header fields that announce the outbound body.
fn announced(ask: &Ask) -> Fields {
    let fields = Fields::new();
    for name in ["content-length", "trailer"] {
        if let Some(value) = field(ask, &format!("x-{name}")) {
            fields.append(name, value.as_bytes()).expect("a field that is allowed");
        }
    }
    fields
}

/// The outbound request that the header fields describe, with these fields of its own.
fn request(ask: &Ask, fields: Fields) -> OutgoingRequest {
    let url = field(ask, "x-url").unwrap_or_default();
    let (scheme, rest) = url.split_once("://").unwrap_or(("http", &url));
    let (authority, path) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
    let scheme = if scheme == "https" { Scheme::Https } else { Scheme::Http };
    let request = OutgoingRequest::new(fields);
    let method = field(ask, "x-method").map_or(Method::Get, |name| match &*name {
        "POST" => Method::Post,
        "CONNECT" => Method::Connect,
        _ => Method::Other(name),
    });
    request.set_method(&method).expect("a method");
    request.set_scheme(Some(&scheme)).expect("a scheme");
    request.set_authority(Some(authority)).expect("an authority");
    request.set_path_with_query(Some(path)).expect("a path");
    request
}

fn options(ask: &Ask) -> RequestOptions {
    let options = RequestOptions::new();
    options.set_connect_timeout(nanoseconds(ask, "x-connect")).expect("a timeout");
    options.set_first_byte_timeout(nanoseconds(ask, "x-first-byte")).expect("a timeout");
    options.set_between_bytes_timeout(nanoseconds(ask, "x-between-bytes")).expect("a timeout");
    options
}

/// Sends an outbound request, and returns the future of its response.
fn send(ask: &Ask, request: OutgoingRequest) -> Result<FutureIncomingResponse, ErrorCode> {
    outgoing_handler::handle(request, Some(options(ask)))
}

fn wait_for(response: FutureIncomingResponse) -> Result<IncomingResponse, ErrorCode> {
    response.subscribe().block();
    response.get().expect("it has been waited for").expect("it is taken once")
}

/// The status and the body of a response, as text.
fn whole(response: IncomingResponse) -> Result<String, ErrorCode> {
    let status = response.status();
    let body = Upload::new(response.consume().expect("a body is taken once"));
    let mut bytes = Vec::new();
    while let Some(piece) = body.next()? {
        bytes.extend_from_slice(&piece);
    }
    Ok(format!("{status} {}", String::from_utf8_lossy(&bytes)))
}

fn told(result: Result<String, ErrorCode>) -> String {
    result.unwrap_or_else(|code| format!("{code:?}"))
}

/// Fetches a URL, and answers with the status and the body.
fn fetch(ask: Ask) {
    let came = send(&ask, request(&ask, announced(&ask))).and_then(wait_for).and_then(whole);
    ask.answer(told(came));
}

/// Computes for a long time before it fetches, and again before it reads the response.
fn fetch_late(ask: Ask) {
    compute();
    let came = send(&ask, request(&ask, Fields::new())).and_then(wait_for);
    compute();
    ask.answer(told(came.and_then(whole)));
}

/// Computes for longer than one quantum or slice.
fn compute() {
    let end = monotonic_clock::now() + 20_000_000;
    while monotonic_clock::now() < end {}
}

/// Fetches a URL, and answers with the header fields of the response.
fn fetch_head(ask: Ask) {
    let came = send(&ask, request(&ask, Fields::new())).and_then(wait_for);
    ask.answer(told(came.map(|response| {
        let fields = response.headers().entries().into_iter();
        let lines =
            fields.map(|(name, value)| format!("{name}: {}\n", String::from_utf8_lossy(&value)));
        lines.collect()
    })));
}

/// Sends `x-times` requests before it waits for any of them, and answers with how often each result
/// came.
fn fetch_many(ask: Ask) {
    let times = field(&ask, "x-times").and_then(|times| times.parse().ok()).unwrap_or(2);
    let sent: Vec<_> = (0..times).map(|_| send(&ask, request(&ask, Fields::new()))).collect();
    let mut results: BTreeMap<String, u32> = BTreeMap::new();
    for response in sent {
        *results.entry(told(response.and_then(wait_for).and_then(whole))).or_default() += 1;
    }
    let lines = results.into_iter().map(|(result, times)| format!("{times} x {result}\n"));
    ask.answer(lines.collect::<String>());
}

/// Asks the server at the URL to do the same again, and answers as that does.
fn fetch_again(ask: Ask) {
    let fields = Fields::new();
    for name in ["x-url", "cdn-loop"] {
        let value = field(&ask, name).filter(|_| name == "x-url").unwrap_or_default();
        // A guest that removes the hop counter, or sets another one, does not get further.
        fields.append(name, value.as_bytes()).expect("a field that is allowed");
    }
    let came = send(&ask, request(&ask, fields)).and_then(wait_for);
    match came {
        Ok(response) => {
            let status = response.status();
            let body = told(whole(response));
            crate::reply::Reply::begin(ask.out, status, &[]).end(body);
        }
        Err(code) => ask.fail(code),
    }
}

/// Answers with the results of setting fields that a guest may not set.
fn fetch_forbidden(ask: Ask) {
    let names = ["host", "connection", "transfer-encoding", "upgrade", "keep-alive"];
    let fields = Fields::new();
    let lines = names.map(|name| match fields.append(name, b"x") {
        Ok(()) => format!("{name}: taken\n"),
        Err(error) => format!("{name}: {error:?}\n"),
    });
    ask.answer(lines.concat());
}

/// Begins to send a body. Returns the request, the future of its response, and the open body.
fn begin(ask: &Ask) -> (Result<FutureIncomingResponse, ErrorCode>, OutgoingBody, OutputStream) {
    let request = request(ask, announced(ask));
    let body = request.body().expect("a body is taken once");
    let stream = body.write().expect("a stream is taken once");
    let sent = send(ask, request);
    (sent, body, stream)
}

/// Sends a body in two pieces with the announced length or the trailer, and answers with the status
/// and the body that come back.
fn fetch_upload(ask: Ask) {
    let (sent, body, stream) = begin(&ask);
    stream.blocking_write_and_flush(b"some ").expect("it is taken");
    stream.blocking_write_and_flush(b"body").expect("it is taken");
    drop(stream);
    let trailers = field(&ask, "x-trailer").map(|name| made(&[(&name, "end")]));
    OutgoingBody::finish(body, trailers).expect("a body of the length that was announced");
    ask.answer(told(sent.and_then(wait_for).and_then(whole)));
}

/// Sends a body of `x-bytes` bytes. Answers with the response, even if the body was not sent whole.
fn fetch_sized(ask: Ask) {
    let (sent, body, stream) = begin(&ask);
    let bytes = field(&ask, "x-bytes").and_then(|bytes| bytes.parse().ok()).unwrap_or(0);
    for piece in vec![b'x'; bytes].chunks(4096) {
        if stream.blocking_write_and_flush(piece).is_err() {
            break;
        }
    }
    drop(stream);
    let trailers = field(&ask, "x-trailer").map(|name| made(&[(&name, "end")]));
    let _ = OutgoingBody::finish(body, trailers);
    ask.answer(told(sent.and_then(wait_for).and_then(whole)));
}

/// Sends a body without an end.
fn fetch_flood(ask: Ask) {
    let (_sent, _body, stream) = begin(&ask);
    while stream.blocking_write_and_flush(&[b'x'; 4096]).is_ok() {}
    ask.answer("not taken");
}

/// Keeps its body open until it has read the whole response.
fn fetch_open(ask: Ask) {
    let (sent, _body, stream) = begin(&ask);
    let came = sent.and_then(wait_for).and_then(whole);
    drop(stream);
    ask.answer(told(came));
}

/// Writes N KiB of a body before it sends the request.
fn fetch_written(ask: Ask) {
    let request = request(&ask, Fields::new());
    let body = request.body().expect("a body is taken once");
    let stream = body.write().expect("a stream is taken once");
    for _ in 0..ask.number.unwrap_or(0) {
        stream.blocking_write_and_flush(&[b'x'; 1024]).expect("it is taken");
    }
    drop(stream);
    OutgoingBody::finish(body, None).expect("a body without a length");
    let response = send(&ask, request).and_then(wait_for).and_then(whole);
    ask.answer(told(response));
}

/// Sends a part of a body, and waits until the server has sent it back.
fn send_part(ask: &Ask) -> (Upload, OutgoingBody, OutputStream) {
    let (sent, body, stream) = begin(ask);
    stream.blocking_write_and_flush(b"part").expect("it is taken");
    let response = sent.and_then(wait_for).expect("a response");
    let download = Upload::new(response.consume().expect("a body is taken once"));
    let came = download.next().expect("it goes on");
    assert_eq!(came.as_deref(), Some(&b"part"[..]));
    (download, body, stream)
}

/// Sends a part of a body, and traps.
fn fetch_trap(ask: Ask) {
    let _sent = send_part(&ask);
    core::arch::wasm32::unreachable()
}

/// Sends a part of a body, and drops the rest.
fn fetch_drop(ask: Ask) {
    let (download, body, stream) = send_part(&ask);
    drop(stream);
    drop(body);
    let came = download.next().map(|piece| format!("{piece:?}"));
    ask.answer(told(came));
}

/// Sends a part of a body, answers, and leaves the rest unsent.
fn fetch_leave(ask: Ask) {
    let (download, body, stream) = send_part(&ask);
    std::mem::forget((download, body, stream));
    ask.answer("left");
}

/// Sends a request, answers the head of its own response, and waits for ever.
fn fetch_hold(ask: Ask) {
    let _sent = send(&ask, request(&ask, Fields::new()));
    let reply = ask.begin(&[]);
    reply.write("begun");
    wait_for_ever();
}

/// Passes on each piece of its request's body, and each piece of the response to its client.
fn relay(ask: Ask) {
    let (sent, body, stream) = begin(&ask);
    let upload = Upload::of(&ask.request);
    let first = upload.next().ok().flatten().unwrap_or_default();
    stream.blocking_write_and_flush(&first).expect("it is taken");
    let response = match sent.and_then(wait_for) {
        Ok(response) => response,
        Err(code) => return ask.fail(code),
    };
    let reply = ask.begin(&[]);
    let download = Upload::new(response.consume().expect("a body is taken once"));
    while let Ok(Some(piece)) = download.next() {
        reply.write(&piece);
        let Ok(Some(piece)) = upload.next() else { break };
        for piece in piece.chunks(4096) {
            stream.blocking_write_and_flush(piece).expect("it is taken");
        }
    }
    drop(stream);
    OutgoingBody::finish(body, None).expect("a body without a length");
    while let Ok(Some(piece)) = download.next() {
        reply.write(&piece);
    }
    reply.end("");
}

//! Behaviours about outbound requests.
//!
//! Header fields of the request say what to fetch: `x-url`, `x-method`, `x-times`, the timeouts in
//! milliseconds `x-connect`, `x-first-byte` and `x-between-bytes`, and for a body `x-bytes`,
//! `x-content-length` and `x-trailer`.

use std::collections::BTreeMap;

use wasip3::clocks::monotonic_clock;
use wasip3::http::client;
use wasip3::http::types::{ErrorCode, Fields, Method, Request, RequestOptions, Response, Scheme};
use wasip3::wit_bindgen::JoinHandle;
use wasip3::wit_future;

use crate::ask::{Ask, answer, begin, wait_for_ever};
use crate::bounds::{VALUE_BYTES, amount};
use crate::ends::trap;
use crate::heads::lines;
use crate::reply::{Reply, made};
use crate::upload::Upload;
use crate::{Answer, Behaviour, behaviours};

pub const BEHAVIOURS: [(&str, Behaviour); 17] = behaviours! {
    "fetch": fetch,
    "fetch-upload": fetch_upload,
    "fetch-sized": fetch_sized,
    "fetch-pass": fetch_pass,
    "fetch-late": fetch_late,
    "fetch-head": fetch_head,
    "fetch-many": fetch_many,
    "fetch-again": fetch_again,
    "fetch-forbidden": fetch_forbidden,
    "fetch-flood": fetch_flood,
    "fetch-open": fetch_open,
    "fetch-trap": fetch_trap,
    "fetch-drop": fetch_drop,
    "fetch-leave": fetch_leave,
    "fetch-hold": fetch_hold,
    "paths": paths,
    "relay": relay,
};

/// The value of a header field of the request.
fn field(ask: &Ask, name: &str) -> Option<String> {
    let values = ask.request.get_headers().get(name);
    values.first().map(|value| String::from_utf8_lossy(value).into_owned())
}

fn nanoseconds(ask: &Ask, name: &str) -> Option<u64> {
    field(ask, name).and_then(|ms| ms.parse::<u64>().ok()).map(|ms| ms * 1_000_000)
}

/// An outbound request without a body and without a URL.
pub fn bare(fields: Fields, options: Option<RequestOptions>) -> Request {
    let (end, trailers) = wit_future::new(|| Ok(None));
    let (request, _sent) = Request::new(fields, None, trailers, options);
    // The host expects a body until the trailers are set.
    drop(end);
    request
}

/// Sets the URL of a request.
pub fn aim(request: &Request, url: &str) {
    let (scheme, rest) = url.split_once("://").unwrap_or(("http", url));
    let (authority, path) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
    let scheme = if scheme == "https" { Scheme::Https } else { Scheme::Http };
    request.set_scheme(Some(&scheme)).expect("a scheme");
    request.set_authority(Some(authority)).expect("an authority");
    request.set_path_with_query(Some(path)).expect("a path");
}

fn options(ask: &Ask) -> RequestOptions {
    let options = RequestOptions::new();
    options.set_connect_timeout(nanoseconds(ask, "x-connect")).expect("a timeout");
    options.set_first_byte_timeout(nanoseconds(ask, "x-first-byte")).expect("a timeout");
    options.set_between_bytes_timeout(nanoseconds(ask, "x-between-bytes")).expect("a timeout");
    options
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

/// Sets the URL, the method and the options that the header fields ask for.
fn asked_for(ask: &Ask, request: Request) -> Request {
    let method = field(ask, "x-method").map_or(Method::Get, |name| match &*name {
        "POST" => Method::Post,
        "CONNECT" => Method::Connect,
        _ => Method::Other(name),
    });
    request.set_method(&method).expect("a method");
    aim(&request, &field(ask, "x-url").unwrap_or_default());
    request
}

/// The outbound request that the header fields describe, without a body and with these fields of
/// its own.
fn request(ask: &Ask, fields: Fields) -> Request {
    asked_for(ask, bare(fields, Some(options(ask))))
}

/// The result of a request that another task sends.
type Sent = JoinHandle<Result<Response, ErrorCode>>;

/// Sends an outbound request in a task of its own.
fn send(request: Request) -> Sent {
    wasip3::spawn_local(client::send(request))
}

async fn wait_for(sent: Sent) -> Result<Response, ErrorCode> {
    sent.await.expect("nobody cancels it")
}

/// The body of a response.
fn download(response: Response) -> Upload {
    Upload::new(|handled| Response::consume_body(response, handled))
}

/// The status and the body of a response as text, or the error.
async fn whole(came: Result<Response, ErrorCode>) -> Result<String, ErrorCode> {
    let response = came?;
    let status = response.get_status_code();
    let body = download(response);
    let bytes = body.stream.collect().await;
    body.end.await?;
    Ok(format!("{status} {}", String::from_utf8_lossy(&bytes)))
}

fn told(result: Result<String, ErrorCode>) -> String {
    result.unwrap_or_else(|code| format!("{code:?}"))
}

/// Fetches a URL, and answers with the status and the body.
async fn fetch(ask: Ask) -> Answer {
    let came = client::send(request(&ask, announced(&ask))).await;
    answer(told(whole(came).await))
}

/// Computes for a long time before it fetches, and again before it reads the response.
async fn fetch_late(ask: Ask) -> Answer {
    compute();
    let came = client::send(request(&ask, Fields::new())).await;
    compute();
    answer(told(whole(came).await))
}

/// Computes for longer than one quantum or slice.
fn compute() {
    let end = monotonic_clock::now() + 20_000_000;
    while monotonic_clock::now() < end {}
}

/// Fetches a URL, and answers with the header fields of the response.
async fn fetch_head(ask: Ask) -> Answer {
    let came = client::send(request(&ask, Fields::new())).await;
    answer(told(came.map(|response| lines(&response.get_headers()))))
}

/// Sends `x-times` requests before it waits for any of them, and answers with how often each result
/// came.
async fn fetch_many(ask: Ask) -> Answer {
    let times = field(&ask, "x-times").and_then(|times| times.parse().ok()).unwrap_or(2);
    let sent: Vec<Sent> = (0..times).map(|_| send(request(&ask, Fields::new()))).collect();
    let mut results: BTreeMap<String, u32> = BTreeMap::new();
    for sent in sent {
        *results.entry(told(whole(wait_for(sent).await).await)).or_default() += 1;
    }
    let lines = results.into_iter().map(|(result, times)| format!("{times} x {result}\n"));
    answer(lines.collect::<String>())
}

/// Asks the server at the URL to do the same again, and answers as that does.
async fn fetch_again(ask: Ask) -> Answer {
    let url = field(&ask, "x-url").unwrap_or_default();
    // A guest that removes the hop counter, or sets another one, does not get further.
    let fields = made(&[("x-url", &url), ("cdn-loop", "")]);
    let response = client::send(request(&ask, fields)).await?;
    let status = response.get_status_code();
    Reply::whole(status, told(whole(Ok(response)).await))
}

/// Answers with the results of setting fields that a guest may not set.
async fn fetch_forbidden(_ask: Ask) -> Answer {
    let names = ["host", "connection", "transfer-encoding", "upgrade", "keep-alive"];
    let fields = Fields::new();
    let lines = names.map(|name| match fields.append(name, b"x") {
        Ok(()) => format!("{name}: taken\n"),
        Err(error) => format!("{name}: {error:?}\n"),
    });
    answer(lines.concat())
}

/// Sends a body in two pieces with the announced length or the trailer. If the host reports that it
/// has sent everything, answers with the status and the body that come back.
async fn fetch_upload(ask: Ask) -> Answer {
    let (mut body, contents, trailers) = Reply::body();
    let options = Some(options(&ask));
    let (request, all_sent) = Request::new(announced(&ask), Some(contents), trailers, options);
    let sent = send(asked_for(&ask, request));
    body.write("some ").await;
    body.write("body").await;
    let end = field(&ask, "x-trailer").map(|name| made(&[(&name, "end")]));
    body.finish(Ok(end)).await;
    let came = whole(wait_for(sent).await).await;
    let came = match all_sent.await {
        Ok(()) => came,
        Err(code) => Err(code),
    };
    answer(told(came))
}

/// Begins to send a body. Returns the result to wait for, and the open body.
fn begin_upload(ask: &Ask) -> (Sent, Reply) {
    let (body, contents, trailers) = Reply::body();
    let (fields, options) = (announced(ask), Some(options(ask)));
    let (request, _sent) = Request::new(fields, Some(contents), trailers, options);
    (send(asked_for(ask, request)), body)
}

/// Sends a body of `x-bytes` bytes. Answers with the response, even if the body was not sent whole.
async fn fetch_sized(ask: Ask) -> Answer {
    let (sent, mut body) = begin_upload(&ask);
    let bytes = field(&ask, "x-bytes").and_then(|bytes| bytes.parse().ok()).unwrap_or(0);
    body.write(vec![b'x'; bytes]).await;
    let end = field(&ask, "x-trailer").map(|name| made(&[(&name, "end")]));
    body.finish(Ok(end)).await;
    answer(told(whole(wait_for(sent).await).await))
}

/// Answers with the outbound response itself.
async fn fetch_pass(ask: Ask) -> Answer {
    client::send(request(&ask, Fields::new())).await
}

/// Sends a body without an end.
async fn fetch_flood(ask: Ask) -> Answer {
    let (_sent, mut body) = begin_upload(&ask);
    while body.write([b'x'; 4096]).await {}
    answer("not taken")
}

/// Keeps its body open until it has read the whole response.
async fn fetch_open(ask: Ask) -> Answer {
    let (sent, body) = begin_upload(&ask);
    let came = whole(wait_for(sent).await).await;
    drop(body);
    answer(told(came))
}

/// Sends a part of a body, and waits until the server has sent it back.
async fn send_part(ask: &Ask) -> (Upload, Reply) {
    let (sent, mut body) = begin_upload(ask);
    assert!(body.write("part").await, "it is taken");
    let mut download = download(wait_for(sent).await.expect("a response"));
    assert_eq!(download.next().await.as_deref(), Some(&b"part"[..]));
    (download, body)
}

/// Sends a part of a body, and traps.
async fn fetch_trap(ask: Ask) -> Answer {
    let _sent = send_part(&ask).await;
    trap()
}

/// Sends a part of a body, and drops the rest.
async fn fetch_drop(ask: Ask) -> Answer {
    let (mut download, body) = send_part(&ask).await;
    drop(body);
    let came = download.next().await;
    answer(told(download.end().await.map(|_| format!("{came:?}"))))
}

/// Sends a part of a body, answers, and leaves the rest unsent.
async fn fetch_leave(ask: Ask) -> Answer {
    std::mem::forget(send_part(&ask).await);
    answer("left")
}

/// Sends a request, answers the head of its own response, and waits for ever.
async fn fetch_hold(ask: Ask) -> Answer {
    let _sent = send(request(&ask, Fields::new()));
    begin(&[], async |mut reply: Reply| {
        reply.write("begun").await;
        wait_for_ever().await
    })
}

/// Passes on each piece of its request's body, and each piece of the response to its client.
async fn relay(ask: Ask) -> Answer {
    let (sent, mut body) = begin_upload(&ask);
    let mut upload = Upload::of(ask.request);
    body.write(upload.next().await.unwrap_or_default()).await;
    let mut download = download(wait_for(sent).await?);
    begin(&[], async move |mut reply: Reply| {
        while let Some(piece) = download.next().await {
            reply.write(piece).await;
            let Some(piece) = upload.next().await else { break };
            body.write(piece).await;
        }
        body.finish(Ok(None)).await;
        while let Some(piece) = download.next().await {
            reply.write(piece).await;
        }
        let end = download.end().await.map(|_| None);
        reply.finish(end).await;
    })
}

/// Keeps N requests with a long path each.
async fn paths(ask: Ask) -> Answer {
    let path = format!("/{}", "x".repeat(VALUE_BYTES));
    let made = (0..amount(&ask)).map(|_| {
        let request = bare(Fields::new(), None);
        request.set_path_with_query(Some(&path)).expect("a path");
        request
    });
    let kept: Vec<Request> = made.collect();
    let text = format!("{} kept", kept.len());
    drop(kept);
    answer(text)
}

//! Behaviours that are about the requests which a guest makes itself.
//!
//! What is asked for is in header fields of the request: `x-url`, `x-method`, `x-times`, the
//! timeouts in milliseconds `x-connect`, `x-first-byte` and `x-between-bytes`, and for a body
//! `x-bytes`, `x-content-length` and `x-trailer`.

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

/// A field of the request.
fn field(ask: &Ask, name: &str) -> Option<String> {
    let values = ask.request.get_headers().get(name);
    values.first().map(|value| String::from_utf8_lossy(value).into_owned())
}

fn nanoseconds(ask: &Ask, name: &str) -> Option<u64> {
    field(ask, name).and_then(|ms| ms.parse::<u64>().ok()).map(|ms| ms * 1_000_000)
}

/// A request without a body, which is to be aimed at somebody.
pub fn bare(fields: Fields, options: Option<RequestOptions>) -> Request {
    let (end, trailers) = wit_future::new(|| Ok(None));
    let (request, _sent) = Request::new(fields, None, trailers, options);
    // Until it is told the end, the host takes the request for one that goes on.
    drop(end);
    request
}

/// Aims a request at a URL.
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

/// What is to be said of a request's body before it.
fn announced(ask: &Ask) -> Fields {
    let fields = Fields::new();
    for name in ["content-length", "trailer"] {
        if let Some(value) = field(ask, &format!("x-{name}")) {
            fields.append(name, value.as_bytes()).expect("a field that is allowed");
        }
    }
    fields
}

/// Makes a request the one that is asked for.
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

/// The request that is asked for, with these fields and without a body.
fn request(ask: &Ask, fields: Fields) -> Request {
    asked_for(ask, bare(fields, Some(options(ask))))
}

/// A request that another task sends.
type Sent = JoinHandle<Result<Response, ErrorCode>>;

/// Has a request sent; what comes of it is still to come.
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

/// The status and the body of a response, if one came.
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

/// Fetches a URL and answers with the status and the body.
async fn fetch(ask: Ask) -> Answer {
    let came = client::send(request(&ask, announced(&ask))).await;
    answer(told(whole(came).await))
}

/// Computes for long before it fetches, and before it reads what comes.
async fn fetch_late(ask: Ask) -> Answer {
    compute();
    let came = client::send(request(&ask, Fields::new())).await;
    compute();
    answer(told(whole(came).await))
}

/// Takes longer than one turn on a thread lasts.
fn compute() {
    let end = monotonic_clock::now() + 20_000_000;
    while monotonic_clock::now() < end {}
}

/// Fetches a URL and answers with the header fields of the response.
async fn fetch_head(ask: Ask) -> Answer {
    let came = client::send(request(&ask, Fields::new())).await;
    answer(told(came.map(|response| lines(&response.get_headers()))))
}

/// Sends as many requests as are asked for before it waits for one of them, and answers with how
/// often each result came.
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

/// Asks whoever is at the URL to do the same again, and answers as that does.
async fn fetch_again(ask: Ask) -> Answer {
    let url = field(&ask, "x-url").unwrap_or_default();
    // Whoever takes the trail away, or sets another one, does not get further by that.
    let fields = made(&[("x-url", &url), ("cdn-loop", "")]);
    let response = client::send(request(&ask, fields)).await?;
    let status = response.get_status_code();
    Reply::whole(status, told(whole(Ok(response)).await))
}

/// Answers with what comes of fields that a guest may not set.
async fn fetch_forbidden(_ask: Ask) -> Answer {
    let names = ["host", "connection", "transfer-encoding", "upgrade", "keep-alive"];
    let fields = Fields::new();
    let lines = names.map(|name| match fields.append(name, b"x") {
        Ok(()) => format!("{name}: taken\n"),
        Err(error) => format!("{name}: {error:?}\n"),
    });
    answer(lines.concat())
}

/// Sends a body in two pieces, with the length or the trailer that is asked for, and answers with
/// the status and the body that come back, if the host says that it has sent everything.
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

/// Begins to send a body: what comes of the request, and the body, which is open.
fn begin_upload(ask: &Ask) -> (Sent, Reply) {
    let (body, contents, trailers) = Reply::body();
    let (fields, options) = (announced(ask), Some(options(ask)));
    let (request, _sent) = Request::new(fields, Some(contents), trailers, options);
    (send(asked_for(ask, request)), body)
}

/// Sends a body of so many bytes, and answers with what comes back, whatever became of the body.
async fn fetch_sized(ask: Ask) -> Answer {
    let (sent, mut body) = begin_upload(&ask);
    let bytes = field(&ask, "x-bytes").and_then(|bytes| bytes.parse().ok()).unwrap_or(0);
    body.write(vec![b'x'; bytes]).await;
    let end = field(&ask, "x-trailer").map(|name| made(&[(&name, "end")]));
    body.finish(Ok(end)).await;
    answer(told(whole(wait_for(sent).await).await))
}

/// Answers with the response itself.
async fn fetch_pass(ask: Ask) -> Answer {
    client::send(request(&ask, Fields::new())).await
}

/// Sends a body that has no end.
async fn fetch_flood(ask: Ask) -> Answer {
    let (_sent, mut body) = begin_upload(&ask);
    while body.write([b'x'; 4096]).await {}
    answer("not taken")
}

/// Leaves its body open until it has read all that comes back.
async fn fetch_open(ask: Ask) -> Answer {
    let (sent, body) = begin_upload(&ask);
    let came = whole(wait_for(sent).await).await;
    drop(body);
    answer(told(came))
}

/// Sends a part of a body, and waits until the server has given it back.
async fn send_part(ask: &Ask) -> (Upload, Reply) {
    let (sent, mut body) = begin_upload(ask);
    assert!(body.write("part").await, "it is taken");
    let mut download = download(wait_for(sent).await.expect("a response"));
    assert_eq!(download.next().await.as_deref(), Some(&b"part"[..]));
    (download, body)
}

/// Sends a part of a body and traps.
async fn fetch_trap(ask: Ask) -> Answer {
    let _sent = send_part(&ask).await;
    trap()
}

/// Sends a part of a body and drops the rest of it.
async fn fetch_drop(ask: Ask) -> Answer {
    let (mut download, body) = send_part(&ask).await;
    drop(body);
    let came = download.next().await;
    answer(told(download.end().await.map(|_| format!("{came:?}"))))
}

/// Sends a part of a body, answers, and leaves the rest of it to nobody.
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

/// Sends each piece of its request's body on, and each piece of what comes back to its client.
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

/// Has so many requests with a long path each.
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

//! The demo workloads as native code: the twins that guests are measured against.
//!
//! Owns only the translation of request and reply. The work itself is the guests' own source. Knows
//! neither hyper nor wasmtime.

mod stream;

use std::borrow::Cow;

use bytes::Bytes;
use guesthouse_guests as workload;
use http::header::{CONTENT_TYPE, SERVER};
use http::{HeaderMap, HeaderValue, StatusCode};
use workload::Reply;

use crate::grants::Limits;
use crate::message::body_progress::Deadline;
use crate::message::{BASE_PATH, Reject, Request, Response, ResponseBody};

/// A demo workload that runs as native code.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Twin {
    /// A short text that greets.
    Hello,
    /// The Fibonacci number of the path's last segment.
    Fib,
    /// The plaintext test of TechEmpower's benchmarks.
    Plaintext,
    /// The JSON test of TechEmpower's benchmarks.
    Json,
    /// The request as the handler sees it.
    Echo,
    /// An HTML page that is rendered from a document.
    Render,
    /// Bodies that are made while they are sent.
    Stream,
}

impl Twin {
    /// All twins, in the order of their numbers.
    pub const ALL: [Twin; 7] = [
        Twin::Hello,
        Twin::Fib,
        Twin::Plaintext,
        Twin::Json,
        Twin::Echo,
        Twin::Render,
        Twin::Stream,
    ];

    /// The index in [`Twin::ALL`], which the route table uses.
    pub fn number(self) -> usize {
        self as usize
    }

    /// The name of the bundled handler that this is the twin of.
    pub fn name(self) -> &'static str {
        match self {
            Twin::Hello => "hello",
            Twin::Fib => "fib",
            Twin::Plaintext => "plaintext",
            Twin::Json => "json",
            Twin::Echo => "echo",
            Twin::Render => "render",
            Twin::Stream => "stream",
        }
    }

    /// Answers at once, if the workload is short and does not need the request. `headers` is an
    /// empty map to build the response in.
    ///
    /// # Errors
    /// The workload is another one. The error is the map, for [`Twin::respond`].
    pub fn respond_now(self, headers: HeaderMap) -> Result<Result<Response, Reject>, HeaderMap> {
        let reply = match self {
            Twin::Hello => workload::hello(),
            Twin::Plaintext => workload::plaintext(),
            Twin::Json => workload::json(),
            Twin::Render => workload::render(),
            Twin::Fib | Twin::Echo | Twin::Stream => return Err(headers),
        };
        Ok(respond(reply, headers))
    }

    /// Answers a request, with any workload. `headers` is an empty map to build the response in.
    ///
    /// # Errors
    /// Reading the request's body fails, the deadline passes, or the response is too large.
    pub async fn respond(
        self,
        request: &mut Request,
        headers: HeaderMap,
        limits: &Limits,
    ) -> Result<Response, Reject> {
        let deadline = Deadline::after(limits.deadline, request.body.progress().cloned());
        let work = async {
            match self {
                Twin::Stream => return Ok(stream::respond(request, headers)),
                Twin::Fib => fib(request).await,
                Twin::Echo => echo(request, limits.response_bytes_max).await,
                Twin::Hello | Twin::Plaintext | Twin::Json | Twin::Render => {
                    return self.respond_now(headers).unwrap_or(Err(Reject::Trap));
                }
            }
            .and_then(|reply| respond(reply, headers))
        };
        let response = deadline.within(work).await;
        let response = response.unwrap_or(Err(Reject::Deadline))?;
        match &response.body {
            ResponseBody::Full(bytes) if bytes.len() > limits.response_bytes_max => {
                Err(Reject::InvalidResponse)
            }
            _ => Ok(response),
        }
    }
}

/// The largest number whose Fibonacci number is computed on the worker's own thread, in 0.3 ms.
const FIB_INLINE_MAX: u32 = 24;

/// The time of `fib` grows by a factor of 1.6 with each number, so a large number is computed on
/// another thread.
async fn fib(request: &Request) -> Result<Reply, Reject> {
    let (base, uri) = (request.base_path(), request.uri.as_str());
    let number = request.uri.path().rsplit('/').next().and_then(|digits| digits.parse().ok());
    if number.is_none_or(|number: u32| number <= FIB_INLINE_MAX) {
        return Ok(workload::fib(base, uri));
    }
    let (base, uri) = (base.to_owned(), uri.to_owned());
    let work = tokio::task::spawn_blocking(move || workload::fib(&base, &uri));
    work.await.map_err(|_| Reject::Trap)
}

async fn echo(request: &mut Request, response_bytes_max: usize) -> Result<Reply, Reject> {
    // If the body is larger than a response may be, so is the echo.
    let body = request.body.collect(response_bytes_max).await?.ok_or(Reject::InvalidResponse)?;
    let made = request.route_match.params.iter().map(|(name, value)| {
        (Cow::Owned(format!("{}{name}", crate::message::MATCH_PREFIX)), value.as_bytes())
    });
    let headers = request
        .headers
        .iter()
        .map(|(name, value)| (Cow::Borrowed(name.as_str()), value.as_bytes()))
        .chain([(Cow::Borrowed(BASE_PATH), request.base_path().as_bytes())])
        .chain(made)
        .map(|(name, value)| (name.into_owned(), value));
    Ok(workload::echo(request.method.as_str(), request.uri.as_str(), headers, &body))
}

fn respond(reply: Reply, mut headers: HeaderMap) -> Result<Response, Reject> {
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(reply.content_type));
    if reply.server {
        headers.insert(SERVER, HeaderValue::from_static(workload::SERVER));
    }
    let bytes = match reply.body {
        Cow::Borrowed(bytes) => Bytes::from_static(bytes),
        Cow::Owned(bytes) => Bytes::from(bytes),
    };
    let status = StatusCode::from_u16(reply.status).map_err(|_| Reject::InvalidResponse)?;
    Ok(Response { status, headers, body: ResponseBody::Full(bytes) })
}

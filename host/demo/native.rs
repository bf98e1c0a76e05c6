//! The demo workloads as native handlers: the twins that guests are measured against.
//!
//! Owns nothing but the translation of a request and a reply; the work itself is the guests' own
//! source. Knows neither hyper nor wasmtime.

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

/// A demo workload that is called as native code.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Twin {
    Hello,
    Fib,
    Plaintext,
    Json,
    Echo,
    Render,
    Stream,
}

impl Twin {
    pub const ALL: [Twin; 7] = [
        Twin::Hello,
        Twin::Fib,
        Twin::Plaintext,
        Twin::Json,
        Twin::Echo,
        Twin::Render,
        Twin::Stream,
    ];

    /// By what the route table knows it: its place in [`Twin::ALL`].
    pub fn number(self) -> usize {
        self as usize
    }

    /// The name of the guest that it is the twin of.
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

    /// Answers at once, where the workload is short and does not look at the request. Gives the map
    /// back otherwise.
    ///
    /// # Errors
    /// The map, for [`Twin::respond`].
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

    /// Answers a request that has to be read. `headers` is an empty map to build the response in.
    ///
    /// # Errors
    /// The rejects of reading a request's body, and of the deadline.
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

/// The largest number whose Fibonacci number is worked out on the worker's own thread: 0.3 ms.
const FIB_INLINE_MAX: u32 = 24;

/// `fib` grows by 1.6 with each number, so a large one runs off the worker's thread.
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
    // What it gives back would be too large, too.
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

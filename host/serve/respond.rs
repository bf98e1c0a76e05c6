//! The last step of every request: a response or a reject becomes what hyper sends.
//!
//! Owns the host's framing and hop-by-hop headers, and the only match from a reject to a status.
//! Clients see fixed texts; what happened is in the log under the request's id.

use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Instant;

use bytes::Bytes;
use http::header::{CONNECTION, CONTENT_LENGTH, CONTENT_TYPE, HeaderName, RETRY_AFTER, TRAILER};
use http::{HeaderMap, HeaderValue, Method, StatusCode, Version};
use http_body::{Frame, SizeHint};

use crate::grants::{Grants, Limits};
use crate::message::fields::{head_bytes, strip_hop_by_hop, unify_length};
use crate::message::{Reject, RequestId, Response, ResponseBody, Streamed};

const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

/// The response's body as hyper pulls it.
pub struct Body(Inner);

impl Body {
    /// How many trailers there are behind it, that are known.
    pub fn trailer_count(&self) -> usize {
        match &self.0 {
            Inner::Trailed(_, Some(trailers)) => trailers.len(),
            _ => 0,
        }
    }
}

enum Inner {
    Full(Bytes),
    Trailed(Bytes, Option<Box<HeaderMap>>),
    Stream(Streamed),
}

impl http_body::Body for Body {
    type Data = Bytes;
    type Error = Reject;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Reject>>> {
        match &mut self.0 {
            Inner::Full(bytes) | Inner::Trailed(bytes, _) if !bytes.is_empty() => {
                Poll::Ready(Some(Ok(Frame::data(std::mem::take(bytes)))))
            }
            Inner::Full(_) => Poll::Ready(None),
            Inner::Trailed(_, trailers) => {
                Poll::Ready(trailers.take().map(|trailers| Ok(Frame::trailers(*trailers))))
            }
            Inner::Stream(stream) => stream.as_mut().poll_frame(cx),
        }
    }

    fn is_end_stream(&self) -> bool {
        match &self.0 {
            Inner::Full(bytes) => bytes.is_empty(),
            Inner::Trailed(bytes, trailers) => bytes.is_empty() && trailers.is_none(),
            Inner::Stream(stream) => stream.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match &self.0 {
            Inner::Full(bytes) => SizeHint::with_exact(bytes.len() as u64),
            // Without an exact size hyper sends it chunked, which trailers need.
            Inner::Trailed(..) => SizeHint::default(),
            Inner::Stream(stream) => stream.size_hint(),
        }
    }
}

/// What holds for a request: that of its handler, or of nobody.
#[derive(Clone, Copy)]
pub struct Conditions {
    /// The handler that it goes to, by its id.
    pub handler: Option<usize>,
    /// When the head of the response is due.
    pub deadline: Instant,
    /// Bytes that this may have.
    pub header_bytes_max: usize,
}

impl Conditions {
    pub fn new(handler: Option<usize>, grants: &Grants, started: Instant) -> Self {
        let Limits { deadline, header_bytes_max, .. } = grants.limits;
        Conditions { handler, deadline: started + deadline, header_bytes_max }
    }
}

/// What the last step has to know of the request.
pub struct Asked {
    pub id: RequestId,
    pub method: Method,
    /// Whether the client said that it takes trailers (`TE: trailers`).
    pub trailers: bool,
    /// Whether it speaks HTTP/1.0.
    pub is_old: bool,
    pub conditions: Conditions,
}

/// Makes the response that is sent. `last` closes the connection behind it.
pub fn respond(
    asked: &Asked,
    result: Result<Response, Reject>,
    header_bytes_max: usize,
    last: bool,
) -> (http::Response<Body>, Option<Reject>) {
    let (response, reject) = match result.and_then(|response| check(response, header_bytes_max)) {
        Ok(response) => (response, None),
        Err(reject) => (problem(reject, asked.id), Some(reject)),
    };
    (frame(asked, response, last), reject)
}

/// A handler may name any status but those that are the connection's own, and its head is bounded.
fn check(response: Response, header_bytes_max: usize) -> Result<Response, Reject> {
    let too_large = head_bytes(&response.headers) > header_bytes_max;
    if response.status.is_informational() || too_large {
        return Err(Reject::InvalidResponse);
    }
    Ok(response)
}

fn frame(asked: &Asked, response: Response, last: bool) -> http::Response<Body> {
    let Response { status, mut headers, body } = response;
    // The length that a HEAD or a 304 names is that of a body which is not sent.
    let is_stream = matches!(body, ResponseBody::Stream(_));
    let bodiless = asked.method == Method::HEAD || status == StatusCode::NOT_MODIFIED;
    // hyper sends nothing at all where it is not one number.
    if !(bodiless && is_stream && unify_length(&mut headers)) {
        headers.remove(CONTENT_LENGTH);
    }
    // Whoever sends a body as it is made has to say beforehand which trailers there will be.
    if !(is_stream && asked.trailers) {
        headers.remove(TRAILER);
    }
    strip_hop_by_hop(&mut headers);
    let no_content = matches!(
        status,
        StatusCode::NO_CONTENT | StatusCode::RESET_CONTENT | StatusCode::NOT_MODIFIED
    );
    let body = match body {
        _ if no_content => Inner::Full(Bytes::new()),
        ResponseBody::Full(bytes) => Inner::Full(bytes),
        ResponseBody::Trailed(bytes, mut trailers) if asked.trailers => {
            strip_hop_by_hop(&mut trailers);
            trailers.remove(CONTENT_LENGTH);
            trailers.remove(TRAILER);
            let names: Vec<&str> = trailers.keys().map(HeaderName::as_str).collect();
            if let Ok(names) = HeaderValue::from_str(&names.join(", ")) {
                headers.insert(TRAILER, names);
            }
            Inner::Trailed(bytes, Some(trailers))
        }
        ResponseBody::Trailed(bytes, _) => Inner::Full(bytes),
        ResponseBody::Stream(stream) => Inner::Stream(stream),
    };
    // HTTP/1.0 has no chunks: without a length, the end of the connection is that of the body.
    let is_endless = asked.is_old
        && matches!(&body, Inner::Stream(stream) if stream.size_hint().exact().is_none());
    let closes = last || is_endless;
    if closes {
        headers.insert(CONNECTION, HeaderValue::from_static("close"));
    }
    let mut framed = http::Response::new(Body(body));
    if closes && asked.is_old {
        // To the head of a later version, hyper adds that the connection is kept.
        *framed.version_mut() = Version::HTTP_10;
    }
    *framed.status_mut() = status;
    *framed.headers_mut() = headers;
    framed
}

/// The status, title and text that a client gets for a reject. A new reject does not compile until
/// it has them.
fn meaning(reject: Reject) -> (StatusCode, &'static str) {
    match reject {
        Reject::NoRoute => (StatusCode::NOT_FOUND, "no handler serves this path"),
        Reject::BadPath(why) | Reject::BadHost(why) => (StatusCode::BAD_REQUEST, why),
        Reject::BodyBroken => {
            (StatusCode::BAD_REQUEST, "the request's body is not framed as HTTP says")
        }
        Reject::UnknownCoding => {
            (StatusCode::NOT_IMPLEMENTED, "the request's transfer coding is not known here")
        }
        Reject::BodyTimeout => (StatusCode::REQUEST_TIMEOUT, "the request's body came too slowly"),
        Reject::ClientGone => (StatusCode::BAD_REQUEST, "the request's body ended early"),
        Reject::BodyTooLarge => (
            StatusCode::PAYLOAD_TOO_LARGE,
            "the request's body is larger than what is asked for takes",
        ),
        Reject::HeadTooLarge => (
            StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE,
            "the request's head is larger than what is asked for takes",
        ),
        Reject::Trap => (StatusCode::INTERNAL_SERVER_ERROR, "the handler stopped with an error"),
        Reject::Paused => {
            (StatusCode::SERVICE_UNAVAILABLE, "the handler has failed too often; try again later")
        }
        Reject::Panic => (StatusCode::INTERNAL_SERVER_ERROR, "the host has failed"),
        Reject::InvalidResponse => {
            (StatusCode::INTERNAL_SERVER_ERROR, "the handler made an invalid response")
        }
        Reject::InvalidRequest => (
            StatusCode::INTERNAL_SERVER_ERROR,
            "the handler passed on a request that HTTP does not allow",
        ),
        Reject::HandlerError => {
            (StatusCode::INTERNAL_SERVER_ERROR, "the handler answered with an error")
        }
        Reject::Loop => {
            (StatusCode::LOOP_DETECTED, "the handler has called itself through the network")
        }
        Reject::NotLoaded => {
            (StatusCode::SERVICE_UNAVAILABLE, "the handler for this path could not be loaded")
        }
        Reject::Loading => {
            (StatusCode::SERVICE_UNAVAILABLE, "the handler is being loaded; try again shortly")
        }
        Reject::NoInstance => {
            (StatusCode::SERVICE_UNAVAILABLE, "the host is busy; try again shortly")
        }
        Reject::NoMemory => {
            (StatusCode::SERVICE_UNAVAILABLE, "the host is short of memory; try again shortly")
        }
        Reject::UpstreamBusy => {
            (StatusCode::SERVICE_UNAVAILABLE, "the upstream is busy; try again shortly")
        }
        Reject::Deadline => {
            (StatusCode::GATEWAY_TIMEOUT, "the handler did not answer before the deadline")
        }
        Reject::CpuTime => {
            (StatusCode::GATEWAY_TIMEOUT, "the handler used more CPU time than one request may")
        }
        Reject::UpstreamFailed => {
            (StatusCode::BAD_GATEWAY, "the upstream could not be reached or broke off")
        }
        Reject::UpstreamDeadline => {
            (StatusCode::GATEWAY_TIMEOUT, "the upstream did not answer before the deadline")
        }
    }
}

/// When to come back, in seconds, where that helps.
fn retry_after(reject: Reject) -> Option<HeaderValue> {
    match reject {
        Reject::NoInstance | Reject::NoMemory | Reject::UpstreamBusy | Reject::Loading => {
            Some(HeaderValue::from_static("1"))
        }
        Reject::Paused => Some(HeaderValue::from_static("10")),
        Reject::NotLoaded => Some(HeaderValue::from_static("30")),
        _ => None,
    }
}

/// A reject as a problem document (RFC 9457).
pub fn problem(reject: Reject, id: RequestId) -> Response {
    let (status, detail) = meaning(reject);
    let document = serde_json::json!({
        "type": "about:blank",
        "title": status.canonical_reason().unwrap_or("Error"),
        "status": status.as_u16(),
        "detail": detail,
        "request_id": id.to_string(),
    });
    let mut response = Response::new(status, format!("{document}\n"));
    let json = HeaderValue::from_static("application/problem+json");
    response.headers.insert(CONTENT_TYPE, json);
    if let Ok(id) = HeaderValue::from_str(&id.to_string()) {
        response.headers.insert(REQUEST_ID, id);
    }
    if let Some(seconds) = retry_after(reject) {
        response.headers.insert(RETRY_AFTER, seconds);
    }
    response
}

/// The page of a folder without handlers.
pub fn landing() -> Response {
    let mut response = Response::new(StatusCode::OK, include_str!("landing.html"));
    let html = HeaderValue::from_static("text/html; charset=utf-8");
    response.headers.insert(CONTENT_TYPE, html);
    response
}

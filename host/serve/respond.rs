//! The last step of every request: turns a response or a reject into what hyper sends.
//!
//! Owns the host's framing and hop-by-hop headers, and what a reject looks like. Clients see fixed
//! texts; the log has the details under the request's id.

use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};
use std::time::Instant;

use bytes::Bytes;
use http::header::{CONNECTION, CONTENT_LENGTH, CONTENT_TYPE, HeaderName, TE, TRAILER};
use http::{HeaderMap, HeaderValue, Method, Request, StatusCode, Version};
use http_body::{Frame, SizeHint};

use super::counts::CountsEntry;
use crate::grants::{Grants, Limits};
use crate::message;
use crate::message::fields::{head_bytes, strip_hop_by_hop, unify_length};
use crate::message::{BodyStream, Reject, RequestBody, RequestId, Response, ResponseBody};

/// A response body for hyper.
pub struct HyperBody(HyperBodyKind);

impl HyperBody {
    /// How many trailers a complete body has; 0 for a stream, whose trailers are not known yet.
    pub fn trailer_count(&self) -> usize {
        match &self.0 {
            HyperBodyKind::WithTrailers(_, Some(trailers)) => trailers.len(),
            _ => 0,
        }
    }
}

enum HyperBodyKind {
    Full(Bytes),
    WithTrailers(Bytes, Option<Box<HeaderMap>>),
    Stream(BodyStream),
}

impl http_body::Body for HyperBody {
    type Data = Bytes;
    type Error = Reject;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Reject>>> {
        match &mut self.0 {
            HyperBodyKind::Full(bytes) | HyperBodyKind::WithTrailers(bytes, _)
                if !bytes.is_empty() =>
            {
                Poll::Ready(Some(Ok(Frame::data(std::mem::take(bytes)))))
            }
            HyperBodyKind::Full(_) => Poll::Ready(None),
            HyperBodyKind::WithTrailers(_, trailers) => {
                Poll::Ready(trailers.take().map(|trailers| Ok(Frame::trailers(*trailers))))
            }
            HyperBodyKind::Stream(stream) => stream.as_mut().poll_frame(cx),
        }
    }

    fn is_end_stream(&self) -> bool {
        match &self.0 {
            HyperBodyKind::Full(bytes) => bytes.is_empty(),
            HyperBodyKind::WithTrailers(bytes, trailers) => bytes.is_empty() && trailers.is_none(),
            HyperBodyKind::Stream(stream) => stream.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match &self.0 {
            HyperBodyKind::Full(bytes) => SizeHint::with_exact(bytes.len() as u64),
            // Without an exact size, hyper sends the body chunked, which trailers need.
            HyperBodyKind::WithTrailers(..) => SizeHint::default(),
            HyperBodyKind::Stream(stream) => stream.size_hint(),
        }
    }
}

/// Limits and counters of a request: those of its handler, or those of unrouted requests.
pub struct Conditions {
    /// The id and the counters of the request's handler, if it has one.
    pub handler: Option<(usize, Rc<CountsEntry>)>,
    /// When the head of the response is due.
    pub deadline: Instant,
    /// How many bytes the head of the response may have.
    pub header_bytes_max: usize,
}

impl Conditions {
    /// The conditions of a request that began at `started` and has these grants.
    pub fn new(
        handler: Option<(usize, Rc<CountsEntry>)>,
        grants: &Grants,
        started: Instant,
    ) -> Self {
        let Limits { deadline, header_bytes_max, .. } = grants.limits;
        Conditions { handler, deadline: started + deadline, header_bytes_max }
    }
}

/// What the last step needs to know about the request.
pub struct RequestMeta {
    /// The request's id.
    pub id: RequestId,
    /// The request's method.
    pub method: Method,
    /// Whether the client accepts trailers (`TE: trailers`).
    pub trailers: bool,
    /// Whether the client speaks HTTP/1.0.
    pub is_http10: bool,
    /// When the request's head was complete.
    pub started: Instant,
    /// Limits and counters of the request.
    pub conditions: Conditions,
    /// The body of a request that is refused, held until the refusal is sent. While it is held,
    /// hyper reads on, so the connection may be kept alive.
    pub unread_body: RequestBody,
}

impl RequestMeta {
    /// A request that is not routed yet. `unrouted` are the grants of unrouted requests.
    pub fn new<B>(id: RequestId, http: &Request<B>, unrouted: &Grants, started: Instant) -> Self {
        let is_http10 = http.version() < Version::HTTP_11;
        let trailers = !is_http10 && http.headers().get(TE).is_some_and(|te| te == "trailers");
        let (conditions, unread_body) =
            (Conditions::new(None, unrouted, started), RequestBody::default());
        RequestMeta {
            id,
            method: http.method().clone(),
            trailers,
            is_http10,
            started,
            conditions,
            unread_body,
        }
    }

    /// A request that was handed over by another worker, for a handler with these grants.
    pub fn handed_over(request: &message::Request, grants: &Grants, started: Instant) -> Self {
        let (trailers, is_http10, unread_body) = Default::default();
        let (id, method) = (request.id, request.method.clone());
        let conditions = Conditions::new(None, grants, started);
        RequestMeta { id, method, trailers, is_http10, started, conditions, unread_body }
    }
}

/// Makes the response that is sent, and returns the reject if it is one. `last` closes the
/// connection after this response.
pub fn respond(
    meta: &RequestMeta,
    result: Result<Response, Reject>,
    header_bytes_max: usize,
    last: bool,
) -> (http::Response<HyperBody>, Option<Reject>) {
    let (response, reject) = match result.and_then(|response| check(response, header_bytes_max)) {
        Ok(response) => (response, None),
        Err(reject) => (Response::problem(reject, meta.id), Some(reject)),
    };
    (frame(meta, response, last), reject)
}

/// Rejects a response with an interim status (1xx) or with a head that is too large.
fn check(response: Response, header_bytes_max: usize) -> Result<Response, Reject> {
    let too_large = head_bytes(&response.headers) > header_bytes_max;
    if response.status.is_informational() || too_large {
        return Err(Reject::InvalidResponse);
    }
    Ok(response)
}

fn frame(meta: &RequestMeta, response: Response, last: bool) -> http::Response<HyperBody> {
    let Response { status, mut headers, body } = response;
    // In answers to HEAD and in a 304, content-length is the length of a body that is not sent.
    let is_stream = matches!(body, ResponseBody::Stream(_));
    let bodiless = meta.method == Method::HEAD || status == StatusCode::NOT_MODIFIED;
    // hyper sends no answer at all if content-length is not exactly one number.
    if !(bodiless && is_stream && unify_length(&mut headers)) {
        headers.remove(CONTENT_LENGTH);
    }
    // Only a streamed body may announce its trailers itself; for others the host does that below.
    if !(is_stream && meta.trailers) {
        headers.remove(TRAILER);
    }
    strip_hop_by_hop(&mut headers);
    let no_content = matches!(
        status,
        StatusCode::NO_CONTENT | StatusCode::RESET_CONTENT | StatusCode::NOT_MODIFIED
    );
    let body = match body {
        _ if no_content => HyperBodyKind::Full(Bytes::new()),
        ResponseBody::Full(bytes) => HyperBodyKind::Full(bytes),
        ResponseBody::WithTrailers(bytes, mut trailers) if meta.trailers => {
            strip_hop_by_hop(&mut trailers);
            trailers.remove(CONTENT_LENGTH);
            trailers.remove(TRAILER);
            let names: Vec<&str> = trailers.keys().map(HeaderName::as_str).collect();
            if let Ok(names) = HeaderValue::from_str(&names.join(", ")) {
                headers.insert(TRAILER, names);
            }
            HyperBodyKind::WithTrailers(bytes, Some(trailers))
        }
        ResponseBody::WithTrailers(bytes, _) => HyperBodyKind::Full(bytes),
        ResponseBody::Stream(stream) => HyperBodyKind::Stream(stream),
    };
    // HTTP/1.0 has no chunks: a body without a length ends with the connection.
    let is_endless = meta.is_http10
        && matches!(&body, HyperBodyKind::Stream(stream) if stream.size_hint().exact().is_none());
    let closes = last || is_endless;
    if closes {
        headers.insert(CONNECTION, HeaderValue::from_static("close"));
    }
    let mut framed = http::Response::new(HyperBody(body));
    if closes && meta.is_http10 {
        // If the response had a later version, hyper would add `connection: keep-alive`.
        *framed.version_mut() = Version::HTTP_10;
    }
    *framed.status_mut() = status;
    *framed.headers_mut() = headers;
    framed
}

/// The start page of a folder without handlers.
pub fn landing() -> Response {
    let mut response = Response::new(StatusCode::OK, include_str!("landing.html"));
    let html = HeaderValue::from_static("text/html; charset=utf-8");
    response.headers.insert(CONTENT_TYPE, html);
    response
}

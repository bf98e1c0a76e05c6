//! Plain request and response values, as every handler sees them.
//!
//! Owns the types that travel along the request path. `reject.rs` has the reasons why the host
//! answers a request itself. Knows neither hyper nor wasmtime.

pub mod body_progress;
pub mod fields;
mod origin;
pub mod path;
mod problem;
mod reject;
mod spare_headers;

use std::fmt;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::{Bytes, BytesMut};
use http::uri::PathAndQuery;
use http::{HeaderMap, HeaderName, Method, StatusCode, Version};
use http_body::{Body as _, Frame};
use http_body_util::combinators::UnsyncBoxBody;

pub use origin::{Origin, Peer, Scheme};
pub use reject::Reject;
pub use spare_headers::SpareHeaders;

use body_progress::BodyProgress;

/// A request with its head in memory and its body still on the wire.
#[derive(Debug)]
pub struct Request {
    /// Names the request in the log and in problem documents.
    pub id: RequestId,
    /// Any method, also unknown ones.
    pub method: Method,
    /// Path and query as the client sent them, still percent-encoded.
    pub uri: PathAndQuery,
    /// The HTTP version that the client speaks.
    pub version: Version,
    /// The header fields, without those that only the host may set.
    pub headers: HeaderMap,
    /// Whether a guest has set the `Host`, so that it need not be the client's.
    pub is_host_set: bool,
    /// The body, which may still be arriving.
    pub body: RequestBody,
    /// The client's address and scheme.
    pub origin: Origin,
    /// The part of the path that the route has matched.
    pub route_match: RouteMatch,
}

/// How a request's path matches its route.
#[derive(Debug, Default)]
pub struct RouteMatch {
    /// Bytes of the URI's path that belong to the route: the 4 of `/fib` for `/fib/32`.
    pub base_bytes: usize,
    /// A copy of the base path, once a handler has replaced the URI that contained it.
    saved_base: Option<Box<str>>,
    /// Lower-case names and values of `[name]` segments, values still percent-encoded.
    pub params: Vec<(String, String)>,
}

impl RouteMatch {
    /// A match whose base path is the first `base_bytes` bytes of the request's path.
    pub fn new(base_bytes: usize, params: Vec<(String, String)>) -> Self {
        RouteMatch { base_bytes, saved_base: None, params }
    }
}

/// The header that tells a handler its own base path.
pub const BASE_PATH: &str = "guesthouse-base-path";
/// Prefix of the headers that carry the values of `[name]` segments.
pub const MATCH_PREFIX: &str = "guesthouse-match-";

impl Request {
    /// The part of the requested path that belongs to the route: `/fib` for `/fib/32`.
    pub fn base_path(&self) -> &str {
        match &self.route_match.saved_base {
            Some(saved) => saved,
            None => self.uri.path().get(..self.route_match.base_bytes).unwrap_or("/"),
        }
    }

    /// Replaces path and query. The base path does not change.
    pub fn set_uri(&mut self, uri: PathAndQuery) {
        if self.route_match.saved_base.is_none() {
            self.route_match.saved_base = Some(self.base_path().into());
        }
        self.uri = uri;
    }

    /// Removes the headers that only the host may set.
    pub fn strip_reserved(&mut self) {
        if self.headers.keys().any(is_reserved) {
            let reserved: Vec<HeaderName> =
                self.headers.keys().filter(|name| is_reserved(name)).cloned().collect();
            for name in reserved {
                self.headers.remove(name);
            }
        }
    }
}

fn is_reserved(name: &HeaderName) -> bool {
    let name = name.as_str();
    name.starts_with("guesthouse-") && (name == BASE_PATH || name.starts_with(MATCH_PREFIX))
}

/// Names one request in problem documents and in the log. Unique for the life of the process.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct RequestId {
    /// The index of the worker that accepted the connection.
    pub worker: u16,
    /// The number of the request among those of this worker.
    pub count: u64,
}

impl fmt::Display for RequestId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:02x}-{:08x}", self.worker, self.count)
    }
}

/// A request's body. It never hands out more bytes than its limit.
///
/// It is one pointer wide, because most requests have no body and a request is moved often.
#[derive(Default)]
pub struct RequestBody(Option<Box<LimitedBody>>);

/// The body of a request that has one.
struct LimitedBody {
    source: Option<UnsyncBoxBody<Bytes, Reject>>,
    /// What has arrived from the source; `None` for a body that was complete at once.
    progress: Option<Arc<BodyProgress>>,
    /// Bytes that have arrived and have not been read yet.
    buffered: Bytes,
    trailers: Option<HeaderMap>,
    bytes_read: u64,
    /// `None` allows any number.
    bytes_max: Option<u64>,
}

impl fmt::Debug for RequestBody {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let bytes_read = self.0.as_ref().map_or(0, |body| body.bytes_read);
        f.debug_struct("RequestBody").field("bytes_read", &bytes_read).finish_non_exhaustive()
    }
}

impl RequestBody {
    /// A body that arrives over time. Nothing can be read before [`RequestBody::limit`] is called.
    pub fn stream(source: UnsyncBoxBody<Bytes, Reject>, progress: Arc<BodyProgress>) -> Self {
        RequestBody(Some(Box::new(LimitedBody {
            source: Some(source),
            progress: Some(progress),
            buffered: Bytes::new(),
            trailers: None,
            bytes_read: 0,
            bytes_max: Some(0),
        })))
    }

    /// Sets how many bytes the body may have; `None` allows any number. Reading more than that
    /// fails with [`Reject::BodyTooLarge`].
    ///
    /// # Errors
    /// [`Reject::BodyTooLarge`] if the body has announced more than that already.
    pub fn limit(&mut self, bytes_max: Option<u64>) -> Result<(), Reject> {
        let Some(body) = &mut self.0 else { return Ok(()) };
        let announced = body.source.as_ref().map_or(0, |source| source.size_hint().lower());
        body.bytes_max = bytes_max;
        if bytes_max.is_some_and(|most| announced > most) {
            return Err(Reject::BodyTooLarge);
        }
        Ok(())
    }

    /// A body that is already complete.
    pub fn full(bytes: Bytes) -> Self {
        let bytes_read = bytes.len() as u64;
        let (source, progress, trailers, bytes_max) = (None, None, None, None);
        RequestBody(Some(Box::new(LimitedBody {
            source,
            progress,
            buffered: bytes,
            trailers,
            bytes_read,
            bytes_max,
        })))
    }

    /// The progress of a body that arrives over time; `None` for any other.
    pub fn progress(&self) -> Option<&Arc<BodyProgress>> {
        self.0.as_ref()?.progress.as_ref()
    }

    /// Whether all bytes were read and the end was seen.
    pub fn is_end(&self) -> bool {
        self.0.as_ref().is_none_or(|body| body.is_end())
    }

    /// Trailers, known once the end of the body has been read.
    pub fn trailers(&self) -> Option<&HeaderMap> {
        self.0.as_ref()?.trailers.as_ref()
    }

    /// Reads the next bytes, at most `limit` of them. The result is empty only at the end.
    ///
    /// Cancel safe: bytes that have arrived stay in the body.
    ///
    /// # Errors
    /// [`Reject::BodyTooLarge`], or what ended the transfer.
    pub async fn read(&mut self, limit: usize) -> Result<Bytes, Reject> {
        let Some(body) = &mut self.0 else { return Ok(Bytes::new()) };
        std::future::poll_fn(|cx| body.poll_fill(cx)).await?;
        Ok(body.buffered.split_to(limit.min(body.buffered.len())))
    }

    /// Reads the rest of the body; `None` if it has more than `bytes_max` bytes.
    ///
    /// # Errors
    /// As [`RequestBody::read`].
    pub async fn collect(&mut self, bytes_max: usize) -> Result<Option<Bytes>, Reject> {
        let first = self.read(usize::MAX).await?;
        if self.is_end() {
            return Ok((first.len() <= bytes_max).then_some(first));
        }
        let mut whole = BytesMut::from(first);
        while whole.len() <= bytes_max {
            let more = self.read(usize::MAX).await?;
            if more.is_empty() {
                return Ok(Some(whole.freeze()));
            }
            whole.extend_from_slice(&more);
        }
        Ok(None)
    }
}

impl LimitedBody {
    fn is_end(&self) -> bool {
        self.buffered.is_empty() && self.source.as_ref().is_none_or(http_body::Body::is_end_stream)
    }

    /// Waits until `buffered` is not empty or the body has ended.
    fn poll_fill(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Reject>> {
        while self.buffered.is_empty() {
            let Some(source) = &mut self.source else { break };
            // Do not poll past the last byte: hyper may report the end only later.
            if http_body::Body::is_end_stream(source) {
                self.source = None;
                break;
            }
            match std::task::ready!(Pin::new(source).poll_frame(cx)) {
                None => self.source = None,
                Some(Err(reject)) => {
                    self.source = None;
                    return Poll::Ready(Err(reject));
                }
                Some(Ok(frame)) => self.take_frame(frame)?,
            }
        }
        Poll::Ready(Ok(()))
    }

    fn take_frame(&mut self, frame: Frame<Bytes>) -> Result<(), Reject> {
        match frame.into_data() {
            Ok(bytes) => {
                self.bytes_read += bytes.len() as u64;
                if self.bytes_max.is_some_and(|most| self.bytes_read > most) {
                    self.source = None;
                    return Err(Reject::BodyTooLarge);
                }
                self.buffered = bytes;
            }
            Err(frame) => self.trailers = frame.into_trailers().ok(),
        }
        Ok(())
    }
}

/// The request body as a stream, for forwarding.
impl http_body::Body for RequestBody {
    type Data = Bytes;
    type Error = Reject;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Reject>>> {
        let Some(body) = &mut self.0 else { return Poll::Ready(None) };
        std::task::ready!(body.poll_fill(cx))?;
        if !body.buffered.is_empty() {
            let bytes = std::mem::take(&mut body.buffered);
            return Poll::Ready(Some(Ok(Frame::data(bytes))));
        }
        Poll::Ready(body.trailers.take().map(|trailers| Ok(Frame::trailers(trailers))))
    }

    fn is_end_stream(&self) -> bool {
        self.is_end() && self.trailers().is_none()
    }

    fn size_hint(&self) -> http_body::SizeHint {
        let Some(body) = &self.0 else { return http_body::SizeHint::with_exact(0) };
        let front = body.buffered.len() as u64;
        let Some(source) = &body.source else { return http_body::SizeHint::with_exact(front) };
        let mut hint = source.size_hint();
        match hint.exact() {
            Some(rest) => hint.set_exact(rest + front),
            None => hint.set_lower(hint.lower() + front),
        }
        hint
    }
}

/// A response before the host adds its framing and its own header fields.
#[derive(Debug)]
pub struct Response {
    /// Any final status. `serve` rejects a response with an interim one (1xx).
    pub status: StatusCode,
    /// The header fields. `serve` removes hop-by-hop ones.
    pub headers: HeaderMap,
    /// The body; `serve` chooses its framing.
    pub body: ResponseBody,
}

/// A response's body.
pub enum ResponseBody {
    /// A complete body, sent with its length.
    Full(Bytes),
    /// A complete body with trailers, sent chunked.
    WithTrailers(Bytes, Box<HeaderMap>),
    /// A body that the upstream or the handler still makes, sent as it comes.
    Stream(BodyStream),
}

/// A body that its worker's thread produces while it is sent.
pub type BodyStream = Pin<Box<dyn http_body::Body<Data = Bytes, Error = Reject>>>;

impl fmt::Debug for ResponseBody {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ResponseBody::Full(bytes) | ResponseBody::WithTrailers(bytes, _) => {
                write!(f, "{} bytes", bytes.len())
            }
            ResponseBody::Stream(_) => f.write_str("stream"),
        }
    }
}

impl Response {
    /// A response with a complete body and no header fields.
    pub fn new(status: StatusCode, body: impl Into<Bytes>) -> Self {
        Response { status, headers: HeaderMap::new(), body: ResponseBody::Full(body.into()) }
    }
}

//! Plain request and response values, as every handler sees them.
//!
//! Owns the shapes that travel along the request path; `reject.rs` has the reasons for which the
//! host itself answers. Knows neither hyper nor wasmtime.

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
    pub id: RequestId,
    pub method: Method,
    /// Path and query as the client sent them, still percent-encoded.
    pub uri: PathAndQuery,
    pub version: Version,
    pub headers: HeaderMap,
    pub body: RequestBody,
    pub origin: Origin,
    pub route_match: RouteMatch,
}

/// Where in the route table a request was placed.
#[derive(Debug, Default)]
pub struct RouteMatch {
    /// Bytes of the URI's path which are the route's own: `/fib` of `/fib/32`.
    pub base_bytes: usize,
    /// The base path itself, once a handler has replaced the URI that held it.
    saved_base: Option<Box<str>>,
    /// Lower-case names and values of `[name]` segments, values still percent-encoded.
    pub params: Vec<(String, String)>,
}

impl RouteMatch {
    pub fn new(base_bytes: usize, params: Vec<(String, String)>) -> Self {
        RouteMatch { base_bytes, saved_base: None, params }
    }
}

/// The header that tells a handler its own base path.
pub const BASE_PATH: &str = "guesthouse-base-path";
/// Prefix of the headers that carry the values of `[name]` segments.
pub const MATCH_PREFIX: &str = "guesthouse-match-";

impl Request {
    /// The route's own part of the path the request was routed by, `/fib` of `/fib/32`.
    pub fn base_path(&self) -> &str {
        match &self.route_match.saved_base {
            Some(saved) => saved,
            None => self.uri.path().get(..self.route_match.base_bytes).unwrap_or("/"),
        }
    }

    /// Replaces path and query; the route's base path stays what it was.
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
    pub worker: u16,
    pub count: u64,
}

impl fmt::Display for RequestId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:02x}-{:08x}", self.worker, self.count)
    }
}

/// A request's body. No more than its limit is ever handed out.
///
/// One pointer wide: most requests have none, and a request is moved several times.
#[derive(Default)]
pub struct RequestBody(Option<Box<LimitedBody>>);

/// A body that there is.
struct LimitedBody {
    source: Option<UnsyncBoxBody<Bytes, Reject>>,
    /// How the source gets on.
    progress: Option<Arc<BodyProgress>>,
    /// Bytes that have arrived and not been taken yet.
    buffered: Bytes,
    trailers: Option<HeaderMap>,
    bytes_read: u64,
    /// `None` is any number.
    bytes_max: Option<u64>,
}

impl fmt::Debug for RequestBody {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let bytes_read = self.0.as_ref().map_or(0, |body| body.bytes_read);
        f.debug_struct("RequestBody").field("bytes_read", &bytes_read).finish_non_exhaustive()
    }
}

impl RequestBody {
    /// A body that arrives over time. [`RequestBody::limit`] says how much of it there may be.
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

    /// Says how large it may be: from now on, reading more is a [`Reject::BodyTooLarge`].
    ///
    /// # Errors
    /// [`Reject::BodyTooLarge`], where it is known to be larger.
    pub fn limit(&mut self, bytes_max: Option<u64>) -> Result<(), Reject> {
        let Some(body) = &mut self.0 else { return Ok(()) };
        let announced = body.source.as_ref().map_or(0, |source| source.size_hint().lower());
        body.bytes_max = bytes_max;
        if bytes_max.is_some_and(|most| announced > most) {
            return Err(Reject::BodyTooLarge);
        }
        Ok(())
    }

    /// A body that is here in full.
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

    /// How it gets on, where it arrives over time.
    pub fn progress(&self) -> Option<&Arc<BodyProgress>> {
        self.0.as_ref()?.progress.as_ref()
    }

    /// Whether every byte has been taken and the end was seen.
    pub fn is_end(&self) -> bool {
        self.0.as_ref().is_none_or(|body| body.is_end())
    }

    /// Trailers, known once the end of the body has been read.
    pub fn trailers(&self) -> Option<&HeaderMap> {
        self.0.as_ref()?.trailers.as_ref()
    }

    /// The next bytes, at most `limit` of them; empty only at the end.
    ///
    /// Cancel safe: bytes that arrived stay in the body.
    pub async fn read(&mut self, limit: usize) -> Result<Bytes, Reject> {
        let Some(body) = &mut self.0 else { return Ok(Bytes::new()) };
        std::future::poll_fn(|cx| body.poll_fill(cx)).await?;
        Ok(body.buffered.split_to(limit.min(body.buffered.len())))
    }

    /// The rest of the body in one piece; `None` if that has more than `bytes_max` bytes.
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

    /// Makes `front` non-empty, or sees the end.
    fn poll_fill(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Reject>> {
        while self.buffered.is_empty() {
            let Some(source) = &mut self.source else { break };
            // Asked for more behind its last byte, a body may have its end told late.
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

/// A response that is complete but for the host's own framing.
#[derive(Debug)]
pub struct Response {
    pub status: StatusCode,
    pub headers: HeaderMap,
    pub body: ResponseBody,
}

/// A response's body.
pub enum ResponseBody {
    /// All of it, sent with its length.
    Full(Bytes),
    /// All of it, with trailers behind it: sent chunked.
    WithTrailers(Bytes, Box<HeaderMap>),
    /// Sent as it comes from the upstream or from the handler.
    Stream(BodyStream),
}

/// A body that is made on its worker's thread while it is sent.
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
    /// A response with a body and nothing else.
    pub fn new(status: StatusCode, body: impl Into<Bytes>) -> Self {
        Response { status, headers: HeaderMap::new(), body: ResponseBody::Full(body.into()) }
    }
}

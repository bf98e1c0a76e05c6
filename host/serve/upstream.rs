//! The upstream: where requests go that no guest answers.
//!
//! Owns the pooled connections to it, the bound on requests in flight and the bounded queue before
//! it. Bodies stream both ways.

use std::cell::Cell;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::header::{CONTENT_LENGTH, HOST, HeaderName, TRANSFER_ENCODING};
use http::uri::{Authority, PathAndQuery, Scheme, Uri};
use http::{HeaderValue, Version};
use http_body::{Body, Frame, SizeHint};
use hyper::body::Incoming;
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::{TokioExecutor, TokioTimer};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::config;
use crate::message::fields::{head_bytes, strip_hop_by_hop};
use crate::message::{Reject, Request, RequestBody, Response, ResponseBody};

/// Requests on their way to the upstream at once, per worker.
const IN_FLIGHT_MAX: usize = 256;
/// Requests that wait for one of those places.
const QUEUE_MAX: usize = 256;
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
const IDLE_TIMEOUT: Duration = Duration::from_secs(30);
/// The longest pause in the middle of a response's body.
const STALL_TIMEOUT: Duration = Duration::from_secs(30);

/// One worker's way to the upstream.
pub struct Upstream {
    authority: Authority,
    base_path: String,
    client: Client<HttpConnector, RequestBody>,
    places: std::sync::Arc<Semaphore>,
    queued: Cell<usize>,
    header_bytes_max: usize,
}

/// A request that waits for a place.
struct Queued<'a>(&'a Cell<usize>);

impl Drop for Queued<'_> {
    fn drop(&mut self) {
        self.0.set(self.0.get() - 1);
    }
}

impl Upstream {
    pub fn new(upstream: &config::Upstream, header_bytes_max: usize) -> Self {
        let mut connector = HttpConnector::new();
        connector.set_nodelay(true);
        connector.set_connect_timeout(Some(CONNECT_TIMEOUT));
        let client = Client::builder(TokioExecutor::new())
            .pool_timer(TokioTimer::new())
            .pool_idle_timeout(IDLE_TIMEOUT)
            .pool_max_idle_per_host(IN_FLIGHT_MAX)
            .build(connector);
        Upstream {
            authority: upstream.authority.clone(),
            base_path: upstream.base_path.clone(),
            client,
            places: std::sync::Arc::new(Semaphore::new(IN_FLIGHT_MAX)),
            queued: Cell::new(0),
            header_bytes_max,
        }
    }

    /// Sends a request on, taking its body. Returns at the response's head; the body streams.
    ///
    /// # Errors
    /// [`Reject::UpstreamBusy`], [`Reject::UpstreamFailed`], [`Reject::UpstreamDeadline`].
    pub async fn forward(
        &self,
        request: &mut Request,
        deadline: Instant,
    ) -> Result<Response, Reject> {
        let sent = async {
            let place = self.place().await?;
            let id = request.id;
            let sent = self.client.request(self.outbound(request)?).await;
            match sent {
                // Nobody asked for another protocol, and hyper keeps the other 1xx to itself.
                Ok(response) if response.status().is_informational() => {
                    tracing::warn!(request = %id, "upstream {}: a 1xx answer", self.authority);
                    Err(Reject::UpstreamFailed)
                }
                Ok(response) if head_bytes(response.headers()) > self.header_bytes_max => {
                    tracing::warn!(request = %id, "upstream {}: too many headers", self.authority);
                    Err(Reject::UpstreamFailed)
                }
                Ok(response) => Ok(inbound(response, place)),
                Err(error) => {
                    let cause = root_cause(&error);
                    tracing::warn!(request = %id, "upstream {}: {cause}", self.authority);
                    Err(body_reject(&error).unwrap_or(Reject::UpstreamFailed))
                }
            }
        };
        let sent = tokio::time::timeout_at(deadline.into(), sent).await;
        sent.unwrap_or(Err(Reject::UpstreamDeadline))
    }

    /// Takes a place, or waits for one in the queue.
    async fn place(&self) -> Result<OwnedSemaphorePermit, Reject> {
        if let Ok(place) = self.places.clone().try_acquire_owned() {
            return Ok(place);
        }
        if self.queued.get() >= QUEUE_MAX {
            return Err(Reject::UpstreamBusy);
        }
        self.queued.set(self.queued.get() + 1);
        let _queued = Queued(&self.queued);
        self.places.clone().acquire_owned().await.map_err(|_| Reject::UpstreamBusy)
    }

    fn outbound(&self, request: &mut Request) -> Result<http::Request<RequestBody>, Reject> {
        // A guest may have set them, but to the upstream they would be the host's word.
        request.strip_reserved();
        let path = format!("{}{}", self.base_path, request.uri);
        let path = PathAndQuery::try_from(path).map_err(|_| Reject::BadPath("path too long"))?;
        let mut headers = request.headers.clone();
        strip_hop_by_hop(&mut headers);
        let body = std::mem::take(&mut request.body);
        // hyper frames the body by what it is, whatever a guest says of it.
        headers.remove(CONTENT_LENGTH);
        if !body.is_end_stream() && body.size_hint().exact().is_none() {
            // Without it hyper would send no body with a GET.
            headers.insert(TRANSFER_ENCODING, HeaderValue::from_static("chunked"));
        }
        add_forwarded(&mut headers, request);
        let uri = Uri::builder()
            .scheme(Scheme::HTTP)
            .authority(self.authority.clone())
            .path_and_query(path)
            .build()
            .map_err(|_| Reject::BadPath("not a path that can be passed on"))?;
        let mut outbound = http::Request::new(body);
        *outbound.method_mut() = request.method.clone();
        *outbound.version_mut() = Version::HTTP_11;
        *outbound.uri_mut() = uri;
        *outbound.headers_mut() = headers;
        Ok(outbound)
    }
}

/// Tells the upstream who asked: the client's address is added to the list, host and scheme are
/// set.
fn add_forwarded(headers: &mut http::HeaderMap, request: &Request) {
    const FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
    let client = request.peer.ip().to_canonical().to_string();
    let earlier: Vec<&str> =
        headers.get_all(FOR).iter().filter_map(|value| value.to_str().ok()).collect();
    let list = [earlier.as_slice(), &[client.as_str()]].concat().join(", ");
    if let Ok(list) = HeaderValue::from_str(&list) {
        headers.insert(FOR, list);
    }
    headers.insert("x-forwarded-proto", HeaderValue::from_static("http"));
    if let Some(host) = request.headers.get(HOST) {
        headers.insert("x-forwarded-host", host.clone());
    }
}

fn inbound(response: http::Response<Incoming>, place: OwnedSemaphorePermit) -> Response {
    let (parts, body) = response.into_parts();
    let mut headers = parts.headers;
    strip_hop_by_hop(&mut headers);
    let stream = Returning { body, stall: None, _place: place };
    let body = ResponseBody::Stream(Box::pin(stream));
    Response { status: parts.status, headers, body }
}

/// A response's body on its way to the client. It holds its place until it ends.
struct Returning {
    body: Incoming,
    stall: Option<Pin<Box<tokio::time::Sleep>>>,
    _place: OwnedSemaphorePermit,
}

impl Body for Returning {
    type Data = Bytes;
    type Error = Reject;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Reject>>> {
        let this = &mut *self;
        if let Poll::Ready(frame) = Pin::new(&mut this.body).poll_frame(cx) {
            this.stall = None;
            return Poll::Ready(frame.map(|frame| frame.map_err(|_| Reject::UpstreamFailed)));
        }
        let stall = this.stall.get_or_insert_with(|| Box::pin(tokio::time::sleep(STALL_TIMEOUT)));
        stall.as_mut().poll(cx).map(|()| Some(Err(Reject::UpstreamDeadline)))
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

fn root_cause<'a>(
    error: &'a (dyn std::error::Error + 'static),
) -> &'a (dyn std::error::Error + 'static) {
    let mut cause = error;
    while let Some(deeper) = cause.source() {
        cause = deeper;
    }
    cause
}

/// The reject that the request's own body ended with, if that is why sending failed.
fn body_reject(error: &(dyn std::error::Error + 'static)) -> Option<Reject> {
    root_cause(error).downcast_ref().copied()
}

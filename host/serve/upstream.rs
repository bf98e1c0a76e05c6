//! The upstream: where requests go that no guest answers.
//!
//! Owns the pooled connections to it, and the places of requests that are in flight there: handlers
//! and clients have shares of them. Bodies stream both ways.

use std::error::Error;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::header::{CONTENT_LENGTH, HOST, HeaderName, TRANSFER_ENCODING, VIA};
use http::uri::{Authority, PathAndQuery, Scheme, Uri};
use http::{Extensions, HeaderValue, Method, Version};
use http_body::{Body, Frame, SizeHint};
use hyper::body::Incoming;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::client::legacy::{self, Client};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use tokio::net::TcpStream;
use tower_service::Service;

use crate::config;
use crate::grants::{Grants, Share};
use crate::log::Quota;
use crate::message::fields::{
    FIELDS_FEW, check_framing, compact, has_good_host, head_bytes, strip_hop_by_hop,
};
use crate::message::path;
use crate::message::progress::{Deadline, Progress};
use crate::message::{Reject, Request, RequestBody, RequestId, Response, ResponseBody};
use crate::outbound::paced::{self, Paced, Served, TURN_BYTES, too_many_interim};
use crate::outbound::spare;
use crate::queue::Holder;
use crate::registry::admit::{GuestGates, Permit};

const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
const IDLE_TIMEOUT: Duration = Duration::from_secs(30);
/// The longest pause in the middle of a response's body.
const STALL_TIMEOUT: Duration = Duration::from_secs(30);
/// An upstream may take nothing for so many times `--stall-timeout`: the kernel of one that reads
/// slowly lets more come only when a good part of what it has is read.
const UNTAKEN_TIMES: u32 = 4;
/// But for so long in any case: what is lost on the way is sent again within that.
const UNTAKEN_MIN: Duration = Duration::from_secs(5);
/// So many connections may turn out to be closed, one after the other, before a request fails.
const STALE_MAX: usize = 3;

/// Lines of the log about it, a second.
const LINES_MAX: usize = 100;

/// One worker's way to the upstream.
pub struct Upstream {
    authority: Authority,
    base_path: String,
    client: Client<Connector, RequestBody>,
    places: GuestGates,
    /// For what goes wrong.
    quota: Quota,
}

impl Upstream {
    /// `header_bytes_max` is the most that anybody takes of a response's head, `in_flight_max` how
    /// many requests of this worker may be on their way to it. `stall_max` is how long a body may
    /// pause.
    pub fn new(
        upstream: &config::Upstream,
        header_bytes_max: usize,
        in_flight_max: usize,
        stall_max: Duration,
    ) -> Self {
        let mut connector = HttpConnector::new();
        connector.set_nodelay(true);
        connector.set_connect_timeout(Some(CONNECT_TIMEOUT));
        // An upstream that has answered and reads no more of the request holds no connection.
        let untaken_max = stall_max.saturating_mul(UNTAKEN_TIMES).max(UNTAKEN_MIN);
        connector.set_tcp_user_timeout(Some(untaken_max));
        let client = Client::builder(TokioExecutor::new())
            .pool_timer(TokioTimer::new())
            .pool_idle_timeout(IDLE_TIMEOUT)
            .pool_max_idle_per_host(in_flight_max)
            .http1_max_buf_size(TURN_BYTES.max(header_bytes_max))
            .build(Connector(connector));
        Upstream {
            authority: upstream.authority.clone(),
            base_path: upstream.base_path.clone(),
            client,
            places: GuestGates::new(in_flight_max),
            quota: Quota::new(LINES_MAX, usize::MAX),
        }
    }

    /// Sends a request on, taking its body. Returns at the response's head; the body streams.
    /// `guest` is the id of the handler that passes it on, if one does, `grants` what it may use or
    /// a request that no handler answers, `client` what the client has of the places.
    ///
    /// # Errors
    /// [`Reject::UpstreamBusy`], [`Reject::UpstreamFailed`], [`Reject::UpstreamDeadline`],
    /// [`Reject::InvalidRequest`].
    pub async fn forward(
        &self,
        request: &mut Request,
        deadline: &Deadline,
        (guest, grants): (Option<usize>, &Grants),
        client: &Rc<Holder>,
    ) -> Result<Response, Reject> {
        let header_bytes_max = grants.limits.header_bytes_max;
        let sent = async {
            let place = self.place(guest, client, grants).await?;
            let (id, body) = (request.id, request.body.progress().cloned());
            let mut outbound = self.outbound(request)?;
            let too_many = too_many_interim(&mut outbound);
            let has_many_fields = outbound.headers().len() > FIELDS_FEW;
            let sent = tokio::select! {
                biased;
                // First: the answer may have come with them.
                () = too_many => {
                    self.warn(id, "1xx without end");
                    return Err(Reject::UpstreamFailed);
                }
                mut sent = self.send(outbound) => {
                    if let (true, Ok(response)) = (has_many_fields, &mut sent) {
                        // hyper puts the answer's fields into the request's map.
                        compact(response.headers_mut());
                    }
                    sent
                }
            };
            match sent {
                // Nobody asked for another protocol, and hyper keeps the other 1xx to itself.
                Ok(response) if response.status().is_informational() => {
                    self.warn(id, "a 1xx answer");
                    Err(Reject::UpstreamFailed)
                }
                Ok(response) if head_bytes(response.headers()) > header_bytes_max => {
                    self.warn(id, "too many headers");
                    Err(Reject::UpstreamFailed)
                }
                Ok(response) => inbound(response, place, body).map_err(|what| {
                    self.warn(id, what);
                    Reject::UpstreamFailed
                }),
                Err(error) => {
                    self.warn(id, &root_cause(&error).to_string());
                    Err(body_reject(&error).unwrap_or(Reject::UpstreamFailed))
                }
            }
        };
        let sent = deadline.within(sent).await;
        sent.unwrap_or(Err(Reject::UpstreamDeadline))
    }

    /// Sends a request, and again where it met its connection's end: an upstream may close one that
    /// has served a request at any time, and whether it has read this one, nobody knows. What may
    /// have been done once is not done twice (RFC 9112, 9.3.1).
    async fn send(
        &self,
        outbound: http::Request<RequestBody>,
    ) -> Result<http::Response<Incoming>, legacy::Error> {
        let again = spare(&outbound);
        let mut sent = self.sent_once(outbound).await;
        for _ in 0..STALE_MAX {
            match (&sent, &again) {
                (Err(error), Some(again)) if is_stale(error) => {
                    sent = self.sent_once(again.clone().map(|()| RequestBody::default())).await;
                }
                _ => break,
            }
        }
        sent
    }

    /// Sends a request by one connection, which has served one then.
    async fn sent_once(
        &self,
        outbound: http::Request<RequestBody>,
    ) -> Result<http::Response<Incoming>, legacy::Error> {
        let sent = self.client.request(outbound).await?;
        if let Some(served) = sent.extensions().get::<Served>() {
            served.note();
        }
        Ok(sent)
    }

    /// Says in the log what went wrong with a request, unless that would be too much: any client
    /// may have it happen.
    pub fn warn(&self, request: RequestId, what: &str) {
        let Some(dropped) = self.quota.take(what.len()) else { return };
        if dropped > 0 {
            tracing::warn!("{dropped} more requests failed, too fast to be listed");
        }
        tracing::warn!(%request, "upstream {}: {what}", self.authority);
    }

    /// Takes a place, or waits for one in its handler's queue. A request that no handler has seen
    /// is its client's, which has a share like that of a handler. Ids count from 0, so none is the
    /// address of anything.
    async fn place(
        &self,
        guest: Option<usize>,
        client: &Rc<Holder>,
        grants: &Grants,
    ) -> Result<Permit, Reject> {
        let queue = grants.concurrency.queue;
        let gate = match guest {
            Some(guest) => self.places.of(guest, grants.share(), queue),
            None => {
                let client = Rc::as_ptr(client).addr();
                self.places.of(client, Share::of_other(client), queue)
            }
        };
        if let Ok(place) = gate.admit(client) {
            return Ok(place);
        }
        let latest = Instant::now() + queue.wait_max;
        gate.wait(client, latest).await.map_err(|_| Reject::UpstreamBusy)
    }

    fn outbound(&self, request: &mut Request) -> Result<http::Request<RequestBody>, Reject> {
        // A guest may have set them, but to the upstream they would be the host's word.
        request.strip_reserved();
        if let Err(what) = check(request) {
            self.warn(request.id, &format!("a request is not passed on: {what}"));
            return Err(Reject::InvalidRequest);
        }
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

/// Whether a request has failed because its connection, which had served another, was closed.
fn is_stale(error: &legacy::Error) -> bool {
    let mut told = Extensions::new();
    if let Some(connected) = error.connect_info() {
        connected.get_extras(&mut told);
    }
    told.get().is_some_and(Served::is_noted) && is_closed(error)
}

fn is_closed(error: &(dyn Error + 'static)) -> bool {
    let by_hyper = error.downcast_ref().is_some_and(hyper::Error::is_incomplete_message);
    let by_io = error.downcast_ref().is_some_and(paced::is_closed);
    by_hyper || by_io || error.source().is_some_and(is_closed)
}

/// Makes connections that are read from in pieces.
#[derive(Clone)]
struct Connector(HttpConnector);

impl Service<Uri> for Connector {
    type Response = TokioIo<Paced<TcpStream>>;
    type Error = <HttpConnector as Service<Uri>>::Error;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Self::Error>> + Send>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        self.0.poll_ready(cx)
    }

    fn call(&mut self, to: Uri) -> Self::Future {
        let connected = self.0.call(to);
        Box::pin(async {
            Ok(TokioIo::new(Paced::new(connected.await?.into_inner(), TURN_BYTES, None)))
        })
    }
}

/// Looks at what a guest may have changed; of a client, the same has been refused before. The text
/// of an error says what is wrong.
fn check(request: &Request) -> Result<(), &'static str> {
    // Behind CONNECT there is no body, and the connection is no longer one of HTTP: whoever sends
    // one there sends the upstream's next request.
    if request.method == Method::CONNECT {
        return Err("its method is CONNECT");
    }
    path::check(request.uri.path()).map_err(path::BadPath::reason)?;
    if has_good_host(&request.headers) { Ok(()) } else { Err("it does not name one host") }
}

/// Tells the upstream who asked and by whom: the client's address is added to the list, host and
/// scheme are set, and the host adds its name (RFC 9110, 7.6.3).
fn add_forwarded(headers: &mut http::HeaderMap, request: &Request) {
    const FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
    let client = request.origin.peer.address.ip().to_canonical().to_string();
    let earlier: Vec<&str> =
        headers.get_all(FOR).iter().filter_map(|value| value.to_str().ok()).collect();
    let list = [earlier.as_slice(), &[client.as_str()]].concat().join(", ");
    if let Ok(list) = HeaderValue::from_str(&list) {
        headers.insert(FOR, list);
    }
    let by_old = request.version == Version::HTTP_10;
    let via = if by_old { "1.0 guesthouse" } else { "1.1 guesthouse" };
    headers.append(VIA, HeaderValue::from_static(via));
    let scheme = HeaderValue::from_static(request.origin.scheme.as_str());
    headers.insert("x-forwarded-proto", scheme);
    if let Some(host) = request.headers.get(HOST) {
        headers.insert("x-forwarded-host", host.clone());
    }
}

/// Takes a response in. The text of an error says what is wrong with its framing.
fn inbound(
    response: http::Response<Incoming>,
    place: Permit,
    asked: Option<Arc<Progress>>,
) -> Result<Response, &'static str> {
    let (parts, body) = response.into_parts();
    let mut headers = parts.headers;
    check_framing(&mut headers)?;
    strip_hop_by_hop(&mut headers);
    let stream = Returning { body, asked, stall: None, _place: place };
    let body = ResponseBody::Stream(Box::pin(stream));
    Ok(Response { status: parts.status, headers, body })
}

/// A response's body on its way to the client. It holds its place until it ends.
struct Returning {
    body: Incoming,
    /// The request's body, which may still be on its way: while that is waited for, it is not the
    /// upstream that pauses.
    asked: Option<Arc<Progress>>,
    stall: Option<(Deadline, Pin<Box<tokio::time::Sleep>>)>,
    _place: Permit,
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
        let (deadline, timer) = this.stall.get_or_insert_with(|| {
            let deadline = Deadline::after(STALL_TIMEOUT, this.asked.clone());
            let timer = Box::pin(deadline.timer());
            (deadline, timer)
        });
        let passed = deadline.poll_passed(timer.as_mut(), cx);
        passed.map(|()| Some(Err(Reject::UpstreamDeadline)))
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

fn root_cause<'a>(error: &'a (dyn Error + 'static)) -> &'a (dyn Error + 'static) {
    let mut cause = error;
    while let Some(deeper) = cause.source() {
        cause = deeper;
    }
    cause
}

/// The reject that the request's own body ended with, if that is why sending failed.
fn body_reject(error: &(dyn Error + 'static)) -> Option<Reject> {
    root_cause(error).downcast_ref().copied()
}

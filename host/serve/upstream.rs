//! The upstream: the server for requests that no guest answers.
//!
//! Owns how many requests are in flight to it, and the shares of handlers and clients. Bodies
//! stream both ways. `outbound` owns the connections.

use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::header::{CONTENT_LENGTH, HOST, HeaderName, VIA};
use http::uri::{Authority, PathAndQuery, Uri};
use http::{HeaderValue, Method, StatusCode, Version};
use http_body::{Body, Frame, SizeHint};
use http_body_util::BodyExt as _;
use hyper::body::Incoming;

use super::worker_clients::ClientShares;
use crate::config;
use crate::grants::{Grants, Share};
use crate::log::Quota;
use crate::message::body_progress::{BodyProgress, Deadline};
use crate::message::fields::{
    FIELDS_FEW, check_framing, compact, has_good_host, head_bytes, strip_hop_by_hop,
};
use crate::message::path;
use crate::message::{Reject, Request, RequestBody, RequestId, Response, ResponseBody};
use crate::outbound::{self, POLL_BYTES_MAX, SentRequest, UpstreamClient, UpstreamError};
use crate::queue::Holder;
use crate::registry::admission_gate::{GuestGates, Permit};

/// The longest pause in the middle of a response's body.
const STALL_TIMEOUT: Duration = Duration::from_secs(30);
/// How long to wait for the end of a response once all its bytes have arrived.
const END_MAX: Duration = Duration::from_secs(1);
/// The timeout for unacknowledged data (`TCP_USER_TIMEOUT`), in multiples of `--stall-timeout`. If
/// an upstream reads slowly, its kernel reopens the window only after much of it has been read.
const USER_TIMEOUT_TIMES: u32 = 4;
/// The shortest such timeout, long enough for lost packets to be sent again.
const USER_TIMEOUT_MIN: Duration = Duration::from_secs(5);
/// How many log lines a second are about the upstream.
const LINES_MAX: usize = 100;

/// One worker's client for the upstream, with admission.
pub struct Upstream {
    authority: Authority,
    base_path: String,
    client: Rc<UpstreamClient>,
    gates: GuestGates,
    /// Bounds the log lines about failures.
    quota: Quota,
}

impl Upstream {
    /// A client without connections. `header_bytes_max` is the largest response head that any
    /// handler accepts, `in_flight_max` how many requests this worker may have in flight to the
    /// upstream, and `stall_max` how long a body may pause.
    pub fn new(
        shared: &outbound::OutboundShared,
        upstream: &config::UpstreamUrl,
        header_bytes_max: usize,
        in_flight_max: usize,
        stall_max: Duration,
    ) -> Self {
        // Without this, an upstream that stops reading a request would hold its connection forever.
        let untaken_max = stall_max.saturating_mul(USER_TIMEOUT_TIMES).max(USER_TIMEOUT_MIN);
        let authority = upstream.authority.clone();
        let head_bytes_max = POLL_BYTES_MAX.max(header_bytes_max);
        let server = (upstream.is_secure, &authority);
        let client =
            UpstreamClient::new(shared, server, in_flight_max, head_bytes_max, untaken_max);
        Upstream {
            authority,
            base_path: upstream.base_path.clone(),
            client: Rc::new(client),
            gates: GuestGates::new(in_flight_max),
            quota: Quota::new(LINES_MAX, usize::MAX),
        }
    }

    /// Sends a request to the upstream and takes its body. Returns with the response's head; the
    /// body streams. `guest` is the id of the handler that passes the request on, if any. `grants`
    /// are those of that handler or of unrouted requests, `client` is the client's share.
    ///
    /// # Errors
    /// [`Reject::UpstreamBusy`], [`Reject::UpstreamFailed`], [`Reject::UpstreamDeadline`],
    /// [`Reject::InvalidRequest`].
    pub async fn forward(
        &self,
        request: &mut Request,
        deadline: &Deadline,
        (guest, grants): (Option<usize>, &Grants),
        client: &Rc<ClientShares>,
    ) -> Result<Response, Reject> {
        let header_bytes_max = grants.limits.header_bytes_max;
        let sent = async {
            let permit = self.admit(guest, &client.upstream, grants).await?;
            let permit = UpstreamPermit { _permit: permit, _client: client.clone() };
            let (id, body) = (request.id, request.body.progress().cloned());
            let is_head = request.method == Method::HEAD;
            let outbound = self.forwarded_request(request)?;
            let has_many_fields = outbound.headers().len() > FIELDS_FEW;
            let (mut response, sent) = match self.client.send(outbound).await {
                Ok(sent) => sent,
                Err(UpstreamError::Rejected(reject)) => return Err(reject),
                // Validation accepts a Host with a `%`, which no URL may have.
                Err(UpstreamError::BadHost) if request.is_host_set => {
                    return Err(Reject::InvalidRequest);
                }
                Err(UpstreamError::BadHost) => {
                    return Err(Reject::BadHost("the Host header is not a valid host in a URL"));
                }
                Err(UpstreamError::Ended(ended)) => {
                    self.warn(id, &ended.to_string());
                    return Err(Reject::UpstreamFailed);
                }
            };
            if has_many_fields {
                // hyper puts the response's fields into the large map of the request.
                compact(response.headers_mut());
            }
            judge(&mut response, header_bytes_max).map_err(|what| {
                self.warn(id, what);
                Reject::UpstreamFailed
            })?;
            let (head, content) = response.into_parts();
            let is_bodiless = is_head
                || [StatusCode::NO_CONTENT, StatusCode::NOT_MODIFIED].contains(&head.status);
            let mut stream = UpstreamBody::new(content, body, self.client.clone(), sent, permit);
            stream.is_bodiless = is_bodiless;
            let body = ResponseBody::Stream(Box::pin(stream));
            Ok(Response { status: head.status, headers: head.headers, body })
        };
        let sent = deadline.within(sent).await;
        sent.unwrap_or(Err(Reject::UpstreamDeadline))
    }

    /// Closes connections that have been idle for too long. To be called every second or so.
    pub fn sweep(&self) {
        self.client.sweep();
    }

    /// Logs what went wrong with a request. Lines are bounded, because any client can cause them.
    pub fn warn(&self, request: RequestId, what: &str) {
        let Some(dropped) = self.quota.take(what.len()) else { return };
        if dropped > 0 {
            tracing::warn!("{dropped} more requests failed, too fast to be listed");
        }
        tracing::warn!(%request, "upstream {}: {what}", self.authority);
    }

    /// Takes a permit, or waits for one in the handler's queue. For requests without a handler,
    /// each client has a share like a handler's, under the address of its holder in memory. Ids of
    /// handlers count from 0, so no id equals such an address.
    async fn admit(
        &self,
        guest: Option<usize>,
        client: &Rc<Holder>,
        grants: &Grants,
    ) -> Result<Permit, Reject> {
        let queue = grants.concurrency.queue;
        let gate = match guest {
            Some(guest) => self.gates.of(guest, grants.share(), queue),
            None => {
                let client = Rc::as_ptr(client).addr();
                self.gates.of(client, Share::of_other(client), queue)
            }
        };
        if let Ok(permit) = gate.admit(client) {
            return Ok(permit);
        }
        let latest = Instant::now() + queue.wait_max;
        gate.wait(client, latest).await.map_err(|_| Reject::UpstreamBusy)
    }

    fn forwarded_request(
        &self,
        request: &mut Request,
    ) -> Result<http::Request<RequestBody>, Reject> {
        // A guest may have set these fields, but the upstream trusts them as the host's.
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
        // hyper frames the body by its real length, not by what a guest says.
        headers.remove(CONTENT_LENGTH);
        add_forwarded(&mut headers, request);
        let mut outbound = http::Request::new(body);
        *outbound.method_mut() = request.method.clone();
        *outbound.uri_mut() = Uri::from(path);
        *outbound.headers_mut() = headers;
        Ok(outbound)
    }
}

/// Checks what a guest may have changed. Validation has refused the same from clients. The error
/// says what is wrong.
fn check(request: &Request) -> Result<(), &'static str> {
    // A CONNECT has no body, and its connection leaves HTTP. The upstream would take a body for
    // the next request.
    if request.method == Method::CONNECT {
        return Err("its method is CONNECT");
    }
    path::check(request.uri.path()).map_err(path::BadPath::reason)?;
    if has_good_host(&request.headers) { Ok(()) } else { Err("it does not name one host") }
}

/// Adds the fields that tell the upstream about the client and this host: appends the client's
/// address to `x-forwarded-for`, sets `x-forwarded-proto` and `-host`, and adds `via` (RFC 9110,
/// 7.6.3).
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

/// Checks a response's head and removes hop-by-hop fields. The error says what is wrong.
fn judge(
    response: &mut http::Response<Incoming>,
    header_bytes_max: usize,
) -> Result<(), &'static str> {
    if response.status().is_informational() {
        // This is a 101, although no upgrade was requested; hyper hides all other 1xx.
        return Err("a 1xx answer");
    }
    if head_bytes(response.headers()) > header_bytes_max {
        return Err("too many headers");
    }
    check_framing(response.headers_mut())?;
    strip_hop_by_hop(response.headers_mut());
    Ok(())
}

/// A response's body on its way to the client. It holds the permit until it ends and the request's
/// body ends, too, which may take longer.
struct UpstreamBody {
    /// `Some` until this is dropped.
    body: Option<Incoming>,
    /// Whether the response has no body even if its head states a length.
    is_bodiless: bool,
    /// The request's body, which may still be arriving. While the host waits for the client, the
    /// upstream is not the one that stalls.
    request_body: Option<Arc<BodyProgress>>,
    stall: Option<(Deadline, Pin<Box<tokio::time::Sleep>>)>,
    client: Rc<UpstreamClient>,
    /// The connection, until the body is complete.
    sent: Option<SentRequest>,
    permit: Option<UpstreamPermit>,
}

/// A permit, and the share of the client that counts it. Holding the share keeps the count alive
/// after the client's last connection has closed.
struct UpstreamPermit {
    _permit: Permit,
    _client: Rc<ClientShares>,
}

impl UpstreamBody {
    fn new(
        body: Incoming,
        request_body: Option<Arc<BodyProgress>>,
        client: Rc<UpstreamClient>,
        sent: SentRequest,
        permit: UpstreamPermit,
    ) -> Self {
        let (body, sent, permit) = (Some(body), Some(sent), Some(permit));
        let (is_bodiless, stall) = (false, None);
        let mut returning =
            UpstreamBody { body, is_bodiless, request_body, stall, client, sent, permit };
        returning.end_if_complete();
        returning
    }

    /// Gives the connection back to the pool if the body is complete, once the request's body is
    /// sent, too.
    fn end_if_complete(&mut self) {
        if self.is_end_stream()
            && let Some(sent) = self.sent.take()
        {
            let client = self.client.clone();
            let permit = if sent.is_uploading() { self.permit.take() } else { None };
            tokio::task::spawn_local(async move {
                client.release(sent).await;
                drop(permit);
            });
        }
    }
}

impl Body for UpstreamBody {
    type Data = Bytes;
    type Error = Reject;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Reject>>> {
        let this = &mut *self;
        let Some(body) = &mut this.body else { return Poll::Ready(None) };
        if let Poll::Ready(frame) = Pin::new(&mut *body).poll_frame(cx) {
            this.stall = None;
            if let Some(sent) = &this.sent {
                sent.note_consumed();
                if frame.is_none() && sent.is_truncated(body) {
                    return Poll::Ready(Some(Err(Reject::UpstreamFailed)));
                }
            }
            this.end_if_complete();
            return Poll::Ready(frame.map(|frame| frame.map_err(|_| Reject::UpstreamFailed)));
        }
        let (deadline, timer) = this.stall.get_or_insert_with(|| {
            let deadline = Deadline::after(STALL_TIMEOUT, this.request_body.clone());
            let timer = Box::pin(deadline.timer());
            (deadline, timer)
        });
        let passed = deadline.poll_passed(timer.as_mut(), cx);
        passed.map(|()| Some(Err(Reject::UpstreamDeadline)))
    }

    fn is_end_stream(&self) -> bool {
        self.body.as_ref().is_none_or(Body::is_end_stream)
    }

    fn size_hint(&self) -> SizeHint {
        self.body.as_ref().map_or_else(SizeHint::default, Body::size_hint)
    }
}

/// The client's connection drops the body once it has all bytes. In HTTP/2, the end of the stream
/// may arrive after the last byte. Without waiting for it, the request would be cancelled.
impl Drop for UpstreamBody {
    fn drop(&mut self) {
        let Some(mut body) = self.body.take() else { return };
        let Some(sent) = self.sent.take() else { return };
        if !self.is_bodiless && body.size_hint().exact() != Some(0) {
            return;
        }
        let (client, permit) = (self.client.clone(), self.permit.take());
        tokio::task::spawn_local(async move {
            let ended = tokio::time::timeout(END_MAX, end(&mut body)).await;
            if ended.unwrap_or(false) && !sent.is_truncated(&body) {
                client.release(sent).await;
            }
            drop(permit);
        });
    }
}

/// Reads the rest of a body. Returns whether it has ended without an error.
async fn end(body: &mut Incoming) -> bool {
    while let Some(frame) = body.frame().await {
        if frame.is_err() {
            return false;
        }
    }
    true
}

//! The upstream: where requests go that no guest answers.
//!
//! Owns the places of requests that are in flight there: handlers and clients have shares of them.
//! Bodies stream both ways. `outbound` has the connections.

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
/// How long the end of a response may take of which all bytes are there: its client has it already.
const END_MAX: Duration = Duration::from_secs(1);
/// An upstream may take nothing for so many times `--stall-timeout`: the kernel of one that reads
/// slowly lets more come only when a good part of what it has is read.
const USER_TIMEOUT_TIMES: u32 = 4;
/// But for so long in any case: what is lost on the way is sent again within that.
const USER_TIMEOUT_MIN: Duration = Duration::from_secs(5);
/// Lines of the log about it, a second.
const LINES_MAX: usize = 100;

/// One worker's way to the upstream.
pub struct Upstream {
    authority: Authority,
    base_path: String,
    client: Rc<UpstreamClient>,
    gates: GuestGates,
    /// For what goes wrong.
    quota: Quota,
}

impl Upstream {
    /// `header_bytes_max` is the most that anybody takes of a response's head, `in_flight_max` how
    /// many requests of this worker may be on their way to it. `stall_max` is how long a body may
    /// pause.
    pub fn new(
        shared: &outbound::OutboundShared,
        upstream: &config::UpstreamUrl,
        header_bytes_max: usize,
        in_flight_max: usize,
        stall_max: Duration,
    ) -> Self {
        // An upstream that has answered and reads no more of the request holds no connection.
        let untaken_max = stall_max.saturating_mul(USER_TIMEOUT_TIMES).max(USER_TIMEOUT_MIN);
        let authority = upstream.authority.clone();
        let head_bytes_max = POLL_BYTES_MAX.max(header_bytes_max);
        let server = (upstream.is_secure, &authority);
        let service =
            UpstreamClient::new(shared, server, in_flight_max, head_bytes_max, untaken_max);
        Upstream {
            authority,
            base_path: upstream.base_path.clone(),
            client: Rc::new(service),
            gates: GuestGates::new(in_flight_max),
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
        client: &Rc<ClientShares>,
    ) -> Result<Response, Reject> {
        let header_bytes_max = grants.limits.header_bytes_max;
        let sent = async {
            let permit = self.admit(guest, &client.upstream, grants).await?;
            let place = UpstreamPermit { _permit: permit, _client: client.clone() };
            let (id, body) = (request.id, request.body.progress().cloned());
            let is_head = request.method == Method::HEAD;
            let outbound = self.forwarded_request(request)?;
            let has_many_fields = outbound.headers().len() > FIELDS_FEW;
            let (mut response, passage) = match self.client.send(outbound).await {
                Ok(sent) => sent,
                Err(UpstreamError::Rejected(reject)) => return Err(reject),
                // What a client says has been looked at, and a guest may have changed it.
                Err(UpstreamError::BadHost) if guest.is_some() => {
                    return Err(Reject::InvalidRequest);
                }
                Err(UpstreamError::BadHost) => {
                    return Err(Reject::BadHost("the Host header cannot be said in a URL"));
                }
                Err(UpstreamError::Ended(ended)) => {
                    self.warn(id, &ended.to_string());
                    return Err(Reject::UpstreamFailed);
                }
            };
            if has_many_fields {
                // hyper puts the answer's fields into the request's map.
                compact(response.headers_mut());
            }
            judge(&mut response, header_bytes_max).map_err(|what| {
                self.warn(id, what);
                Reject::UpstreamFailed
            })?;
            let (head, content) = response.into_parts();
            let is_bodiless = is_head
                || [StatusCode::NO_CONTENT, StatusCode::NOT_MODIFIED].contains(&head.status);
            let mut stream = UpstreamBody::new(content, body, self.client.clone(), passage, place);
            stream.is_bodiless = is_bodiless;
            let body = ResponseBody::Stream(Box::pin(stream));
            Ok(Response { status: head.status, headers: head.headers, body })
        };
        let sent = deadline.within(sent).await;
        sent.unwrap_or(Err(Reject::UpstreamDeadline))
    }

    /// Closes connections that have been idle for long.
    pub fn sweep(&self) {
        self.client.sweep();
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
        if let Ok(place) = gate.admit(client) {
            return Ok(place);
        }
        let latest = Instant::now() + queue.wait_max;
        gate.wait(client, latest).await.map_err(|_| Reject::UpstreamBusy)
    }

    fn forwarded_request(
        &self,
        request: &mut Request,
    ) -> Result<http::Request<RequestBody>, Reject> {
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
        add_forwarded(&mut headers, request);
        let mut outbound = http::Request::new(body);
        *outbound.method_mut() = request.method.clone();
        *outbound.uri_mut() = Uri::from(path);
        *outbound.headers_mut() = headers;
        Ok(outbound)
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

/// Judges a response's head. The text of an error says what is wrong with it.
fn judge(
    response: &mut http::Response<Incoming>,
    header_bytes_max: usize,
) -> Result<(), &'static str> {
    if response.status().is_informational() {
        // Nobody asked for another protocol, and hyper keeps the other 1xx to itself.
        return Err("a 1xx answer");
    }
    if head_bytes(response.headers()) > header_bytes_max {
        return Err("too many headers");
    }
    check_framing(response.headers_mut())?;
    strip_hop_by_hop(response.headers_mut());
    Ok(())
}

/// A response's body on its way to the client. It holds its place until it ends, and until the
/// request's body has, which may go on behind it.
struct UpstreamBody {
    /// There until it is dropped.
    body: Option<Incoming>,
    /// Whether the response has none, whatever its head says of it.
    is_bodiless: bool,
    /// The request's body, which may still be on its way: while that is waited for, it is not the
    /// upstream that pauses.
    request_body: Option<Arc<BodyProgress>>,
    stall: Option<(Deadline, Pin<Box<tokio::time::Sleep>>)>,
    client: Rc<UpstreamClient>,
    /// Its connection, until the body is complete.
    sent: Option<SentRequest>,
    permit: Option<UpstreamPermit>,
}

/// A place, and what its client has of this worker: another would begin with nothing, were this
/// forgotten with the client's last connection.
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
        let (body, passage, place) = (Some(body), Some(sent), Some(permit));
        let (is_bodiless, stall) = (false, None);
        let mut returning = UpstreamBody {
            body,
            is_bodiless,
            request_body,
            stall,
            client,
            sent: passage,
            permit: place,
        };
        returning.end_if_complete();
        returning
    }

    /// Gives the connection back if the body is complete. The request's body may still be on its
    /// way.
    fn end_if_complete(&mut self) {
        if self.is_end_stream()
            && let Some(passage) = self.sent.take()
        {
            let service = self.client.clone();
            let place = if passage.is_uploading() { self.permit.take() } else { None };
            tokio::task::spawn_local(async move {
                service.release(passage).await;
                drop(place);
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
            if let Some(passage) = &this.sent {
                passage.note_consumed();
                if frame.is_none() && passage.is_truncated(body) {
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

/// The client's connection reads no more once it has all bytes. By HTTP/2 the word that these were
/// all may come behind them: without it the request would count as given up.
impl Drop for UpstreamBody {
    fn drop(&mut self) {
        let Some(mut body) = self.body.take() else { return };
        let Some(passage) = self.sent.take() else { return };
        if !self.is_bodiless && body.size_hint().exact() != Some(0) {
            return;
        }
        let (service, place) = (self.client.clone(), self.permit.take());
        tokio::task::spawn_local(async move {
            let ended = tokio::time::timeout(END_MAX, end(&mut body)).await;
            if ended.unwrap_or(false) && !passage.is_truncated(&body) {
                service.release(passage).await;
            }
            drop(place);
        });
    }
}

/// Reads what is left of a body; whether it has ended well.
async fn end(body: &mut Incoming) -> bool {
    while let Some(frame) = body.frame().await {
        if frame.is_err() {
            return false;
        }
    }
    true
}

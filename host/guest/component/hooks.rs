//! Where the host decides in wasi:http: which fields are forbidden, and how a guest's own requests
//! are sent.
//!
//! Owns what becomes of a request's body when its guest is stopped, and which error code a failure
//! has. Knows no network: requests are sent through an [`OutboundHandle`].

use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};

use bytes::Bytes;
use http::{HeaderName, Request, Response};
use http_body::{Body, Frame, SizeHint};
use http_body_util::BodyExt as _;
use wasmtime_wasi_http::{
    DEFAULT_FORBIDDEN_HEADERS, Error, ForbiddenHeaderFilter, RequestOptions, WasiBody,
    WasiHttpHooks,
};

use super::limits::CHUNK_BYTES_MAX;
use super::outgoing_body;
use super::store_liveness::StoreLiveness;
use crate::guest::engine::guest_info::GuestInfo;
use crate::message::RequestId;
use crate::outbound::{
    CdnLoop, OutboundFailure, OutboundHandle, OutboundRequestBody, OutboundResponse,
    OutboundResponseBody, RequestTimeouts, Requester,
};

/// What a store needs for the requests that its guest makes.
pub struct Hooks {
    info: Arc<GuestInfo>,
    /// `None` where guests are not called, such as in a compiler.
    outbound: Option<OutboundHandle>,
    cdn_loop: CdnLoop,
    request: Option<RequestId>,
    /// Stops the bodies that are being sent.
    abort: Option<AbortFlag>,
    liveness: StoreLiveness,
    /// Each request that waits for its answer has a clone, and so has each answer.
    in_flight: Arc<()>,
}

/// Set when a guest is stopped. A server that has got a part of its body must not take that for all
/// of it.
#[derive(Clone, Default)]
struct AbortFlag(Arc<AtomicBool>);

type SendOutput = (Response<WasiBody>, Box<dyn Future<Output = Result<(), Error>> + Send>);

impl Hooks {
    /// Hooks that deny all requests, until [`Hooks::enable_outbound`].
    pub fn new(info: Arc<GuestInfo>, liveness: StoreLiveness) -> Self {
        let (cdn_loop, in_flight) = Default::default();
        Hooks { info, outbound: None, cdn_loop, request: None, abort: None, liveness, in_flight }
    }

    /// Whether the guest has left behind a request that waits for its answer, or an answer.
    pub fn has_in_flight(&self) -> bool {
        Arc::strong_count(&self.in_flight) > 1
    }

    /// Allows requests, which are sent through this handle.
    pub fn enable_outbound(&mut self, outbound: &OutboundHandle) {
        if self.outbound.is_none() {
            self.outbound = Some(outbound.clone());
        }
    }

    /// Sets the request that is served now; without its id if there are others. Then nobody can
    /// tell which of them a guest's own request follows from, so the one with the most hops counts.
    pub fn set_request(&mut self, cdn_loop: CdnLoop, request: Option<RequestId>) {
        if request.is_some() || cdn_loop.hops() > self.cdn_loop.hops() {
            self.cdn_loop = cdn_loop;
        }
        self.request = request;
    }

    /// Fails the bodies that are still being sent, as the store that they come from is dropped.
    pub fn abort_sends(&mut self) {
        if let Some(abort) = self.abort.take() {
            abort.0.store(true, Ordering::Release);
        }
    }

    fn send(
        &mut self,
        request: Request<WasiBody>,
        options: Option<RequestOptions>,
    ) -> impl Future<Output = Result<SendOutput, Error>> + Send + use<> {
        let outbound = self.outbound.clone();
        let abort = self.abort.get_or_insert_default().clone();
        let fault = BodyFault::default();
        let body_fault = fault.clone();
        let request =
            request.map(|body| AbortableBody { body, abort, fault: body_fault }.boxed_unsync());
        let timeouts = options.map_or_else(RequestTimeouts::default, |options| RequestTimeouts {
            connect: options.connect_timeout,
            first_byte: options.first_byte_timeout,
            between_bytes: options.between_bytes_timeout,
        });
        let (info, id, cdn_loop) = (self.info.clone(), self.request, self.cdn_loop.clone());
        let (liveness, in_flight) = (self.liveness.clone(), self.in_flight.clone());
        async move {
            let outbound = outbound.ok_or(Error::HttpRequestDenied)?;
            let (head, body) = request.into_parts();
            let request = Request::from_parts(head, OutboundRequestBody::peeked(body).await);
            let requester = Requester {
                guest: &info.name,
                grants: &info.grants,
                request: id,
                cdn_loop: &cdn_loop,
            };
            let answer =
                outbound.send(&requester, request, timeouts).map_err(|it| error(it, &fault))?;
            let answered = answer.await.unwrap_or(Err(OutboundFailure::Terminated));
            let OutboundResponse { response, sent } = answered.map_err(|it| error(it, &fault))?;
            let response = response.map(|body| {
                TrackedBody { body, liveness, in_flight: Some(in_flight) }.boxed_unsync()
            });
            let sent = async move {
                let sent = sent.await.unwrap_or(Err(OutboundFailure::Terminated));
                if sent.is_err() {
                    // The answer stays good: a server that has answered may want no more of the
                    // request. A failure that wasmtime sees at once would replace the answer; one
                    // that comes later is the request's.
                    tokio::task::yield_now().await;
                }
                sent.map_err(|it| error(it, &fault))
            };
            Ok((response, Box::new(sent) as Box<dyn Future<Output = _> + Send>))
        }
    }
}

impl WasiHttpHooks for Hooks {
    fn is_forbidden_header(&mut self, name: &HeaderName) -> bool {
        DEFAULT_FORBIDDEN_HEADERS.contains(name)
    }

    fn forbidden_header_filter(&mut self) -> ForbiddenHeaderFilter {
        Arc::new(|name| DEFAULT_FORBIDDEN_HEADERS.contains(name))
    }

    fn send_request(
        &mut self,
        request: Request<WasiBody>,
        options: Option<RequestOptions>,
        _read: Box<dyn Future<Output = Result<(), Error>> + Send>,
    ) -> Box<dyn Future<Output = Result<SendOutput, Error>> + Send> {
        Box::new(self.send(request, options))
    }

    /// Enough for any number of writes: `outgoing_body.rs` bounds those that wait.
    fn p2_outgoing_body_buffer_chunks(&mut self) -> usize {
        outgoing_body::writes_max(&self.info.grants.limits)
    }

    fn p2_outgoing_body_chunk_size(&mut self) -> usize {
        CHUNK_BYTES_MAX
    }

    fn p3_outgoing_body_chunk_size(&mut self) -> usize {
        CHUNK_BYTES_MAX
    }
}

/// Why a request's own body has failed, in the guest's error codes.
#[derive(Clone, Default)]
struct BodyFault(Arc<Mutex<Option<Error>>>);

/// The body of a guest's own request. It does not end well if the guest is stopped.
struct AbortableBody {
    body: WasiBody,
    abort: AbortFlag,
    fault: BodyFault,
}

impl AbortableBody {
    fn is_aborted(&self) -> bool {
        self.abort.0.load(Ordering::Acquire)
    }
}

impl Body for AbortableBody {
    type Data = Bytes;
    type Error = OutboundFailure;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, OutboundFailure>>> {
        match std::task::ready!(Pin::new(&mut self.body).poll_frame(cx)) {
            None if self.is_aborted() => Poll::Ready(Some(Err(OutboundFailure::Body))),
            Some(Err(error)) => {
                if let Ok(mut fault) = self.fault.0.lock() {
                    *fault = Some(error);
                }
                Poll::Ready(Some(Err(OutboundFailure::Body)))
            }
            frame => Poll::Ready(frame.map(|frame| frame.map_err(|_| OutboundFailure::Body))),
        }
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream() && !self.is_aborted()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

/// The body of the answer to a guest's own request.
struct TrackedBody {
    body: OutboundResponseBody,
    liveness: StoreLiveness,
    /// Dropped at the end of the body.
    in_flight: Option<Arc<()>>,
}

impl Body for TrackedBody {
    type Data = Bytes;
    type Error = Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Error>>> {
        self.liveness.note_poll();
        let polled = Pin::new(&mut self.body).poll_frame(cx);
        if matches!(polled, Poll::Ready(None)) || self.body.is_end_stream() {
            self.in_flight = None;
        }
        polled.map_err(|failure| error(failure, &BodyFault::default()))
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

/// The error code for a failure of a guest's own request.
fn error(failure: OutboundFailure, fault: &BodyFault) -> Error {
    match failure {
        OutboundFailure::Denied => Error::HttpRequestDenied,
        OutboundFailure::BadUri => Error::HttpRequestUriInvalid,
        OutboundFailure::BadMethod => Error::HttpRequestMethodInvalid,
        OutboundFailure::NameTimeout => Error::DnsTimeout,
        OutboundFailure::NoName => Error::DnsError { rcode: None, info_code: None },
        OutboundFailure::Prohibited => Error::DestinationIpProhibited,
        OutboundFailure::Unroutable => Error::DestinationIpUnroutable,
        OutboundFailure::Unavailable => Error::DestinationUnavailable,
        OutboundFailure::Refused => Error::ConnectionRefused,
        OutboundFailure::ConnectTimeout => Error::ConnectionTimeout,
        OutboundFailure::WriteTimeout => Error::ConnectionWriteTimeout,
        OutboundFailure::ReadTimeout => Error::ConnectionReadTimeout,
        OutboundFailure::Terminated => Error::ConnectionTerminated,
        OutboundFailure::Incomplete => Error::HttpResponseIncomplete,
        OutboundFailure::Full => Error::ConnectionLimitReached,
        OutboundFailure::Tls => Error::TlsProtocolError,
        OutboundFailure::Certificate => Error::TlsCertificateError,
        OutboundFailure::Alert(alert) => {
            Error::TlsAlertReceived { alert_id: Some(alert), alert_message: None }
        }
        OutboundFailure::HeadTooLarge => Error::HttpResponseHeaderSectionSize(None),
        OutboundFailure::Upgrade => Error::HttpUpgradeFailed,
        OutboundFailure::Protocol => Error::HttpProtocolError,
        OutboundFailure::Body => {
            let fault = fault.0.lock().ok().and_then(|mut fault| fault.take());
            fault.unwrap_or(Error::HttpRequestBodySize(None))
        }
    }
}

//! What the host has a say in, of wasi:http: forbidden fields, and the requests that a guest makes.
//!
//! Owns what becomes of a request's body when its guest is stopped, and which error code says what.
//! Knows no network: a request leaves by a [`Door`].

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

use super::gone::Gone;
use super::limits::CHUNK_BYTES_MAX;
use super::outgoing_body;
use crate::guest::engine::about::About;
use crate::message::RequestId;
use crate::outbound::{Answer, Door, Failure, Maker, Outgoing, Returning, Trail, Wanted};

/// What a store knows of the requests that its guest makes.
pub struct Hooks {
    about: Arc<About>,
    /// There is none where no request is served.
    door: Option<Door>,
    trail: Trail,
    request: Option<RequestId>,
    /// Of the bodies that are being sent.
    cut: Option<Cut>,
    gone: Gone,
    /// Held by each request that waits for its answer, and by each answer.
    open: Arc<()>,
}

/// Tells whether a guest was stopped: to whom it has sent a part of a body, that would look like
/// all of it.
#[derive(Clone, Default)]
struct Cut(Arc<AtomicBool>);

type Sent = (Response<WasiBody>, Box<dyn Future<Output = Result<(), Error>> + Send>);

impl Hooks {
    pub fn new(about: Arc<About>, gone: Gone) -> Self {
        let (trail, open) = Default::default();
        Hooks { about, door: None, trail, request: None, cut: None, gone, open }
    }

    /// Whether the guest has left a request that waits for its answer, or an answer.
    pub fn has_open(&self) -> bool {
        Arc::strong_count(&self.open) > 1
    }

    /// Lets requests out.
    pub fn open(&mut self, door: &Door) {
        if self.door.is_none() {
            self.door = Some(door.clone());
        }
    }

    /// Takes note of the request that is served now, without its id where others are, too. Of which
    /// a guest's own request follows cannot be told then, so it is taken to be the one that has
    /// come the longest way.
    pub fn follow(&mut self, trail: Trail, request: Option<RequestId>) {
        if request.is_some() || trail.hops() > self.trail.hops() {
            self.trail = trail;
        }
        self.request = request;
    }

    /// Ends the bodies that are still being sent: what is behind them is about to go.
    pub fn cut(&mut self) {
        if let Some(cut) = self.cut.take() {
            cut.0.store(true, Ordering::Release);
        }
    }

    fn send(
        &mut self,
        request: Request<WasiBody>,
        options: Option<RequestOptions>,
    ) -> impl Future<Output = Result<Sent, Error>> + Send + use<> {
        let door = self.door.clone();
        let cut = self.cut.get_or_insert_default().clone();
        let fault = Fault::default();
        let told = fault.clone();
        let request = request.map(|body| Sending { body, cut, fault: told }.boxed_unsync());
        let wanted = options.map_or_else(Wanted::default, |options| Wanted {
            connect: options.connect_timeout,
            first_byte: options.first_byte_timeout,
            between_bytes: options.between_bytes_timeout,
        });
        let (about, id, trail) = (self.about.clone(), self.request, self.trail.clone());
        let (gone, open) = (self.gone.clone(), self.open.clone());
        async move {
            let door = door.ok_or(Error::HttpRequestDenied)?;
            let (head, body) = request.into_parts();
            let request = Request::from_parts(head, Outgoing::asked(body).await);
            let maker =
                Maker { guest: &about.name, grants: &about.grants, request: id, trail: &trail };
            let answer = door.send(&maker, request, wanted).map_err(|it| error(it, &fault))?;
            let answered = answer.await.unwrap_or(Err(Failure::Terminated));
            let Answer { response, sent } = answered.map_err(|it| error(it, &fault))?;
            let response =
                response.map(|body| Handed { body, gone, open: Some(open) }.boxed_unsync());
            let sent = async move {
                let sent = sent.await.unwrap_or(Err(Failure::Terminated));
                if sent.is_err() {
                    // The answer is there, and stays good: a server that has answered may want no
                    // more of the request. wasmtime takes a failure that it finds at once for one
                    // of the answer, and a later one for what it is.
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
    ) -> Box<dyn Future<Output = Result<Sent, Error>> + Send> {
        Box::new(self.send(request, options))
    }

    /// Room for any number of them: how many there are at once is decided where they are written.
    fn p2_outgoing_body_buffer_chunks(&mut self) -> usize {
        outgoing_body::writes_max(&self.about.grants.limits)
    }

    fn p2_outgoing_body_chunk_size(&mut self) -> usize {
        CHUNK_BYTES_MAX
    }

    fn p3_outgoing_body_chunk_size(&mut self) -> usize {
        CHUNK_BYTES_MAX
    }
}

/// Why a request's own body has failed, as the guest is told it.
#[derive(Clone, Default)]
struct Fault(Arc<Mutex<Option<Error>>>);

/// A request's body, whose end is one only as long as its guest is there.
struct Sending {
    body: WasiBody,
    cut: Cut,
    fault: Fault,
}

impl Sending {
    fn is_cut(&self) -> bool {
        self.cut.0.load(Ordering::Acquire)
    }
}

impl Body for Sending {
    type Data = Bytes;
    type Error = Failure;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Failure>>> {
        match std::task::ready!(Pin::new(&mut self.body).poll_frame(cx)) {
            None if self.is_cut() => Poll::Ready(Some(Err(Failure::Body))),
            Some(Err(error)) => {
                if let Ok(mut fault) = self.fault.0.lock() {
                    *fault = Some(error);
                }
                Poll::Ready(Some(Err(Failure::Body)))
            }
            frame => Poll::Ready(frame.map(|frame| frame.map_err(|_| Failure::Body))),
        }
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream() && !self.is_cut()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

/// A response's body on its way to the guest.
struct Handed {
    body: Returning,
    gone: Gone,
    /// Let go of with the end.
    open: Option<Arc<()>>,
}

impl Body for Handed {
    type Data = Bytes;
    type Error = Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Error>>> {
        self.gone.look();
        let polled = Pin::new(&mut self.body).poll_frame(cx);
        if matches!(polled, Poll::Ready(None)) || self.body.is_end_stream() {
            self.open = None;
        }
        polled.map_err(|failure| error(failure, &Fault::default()))
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

/// What a guest is told of a failure.
fn error(failure: Failure, fault: &Fault) -> Error {
    match failure {
        Failure::Denied => Error::HttpRequestDenied,
        Failure::BadUri => Error::HttpRequestUriInvalid,
        Failure::BadMethod => Error::HttpRequestMethodInvalid,
        Failure::NameTimeout => Error::DnsTimeout,
        Failure::NoName => Error::DnsError { rcode: None, info_code: None },
        Failure::Prohibited => Error::DestinationIpProhibited,
        Failure::Unroutable => Error::DestinationIpUnroutable,
        Failure::Unavailable => Error::DestinationUnavailable,
        Failure::Refused => Error::ConnectionRefused,
        Failure::ConnectTimeout => Error::ConnectionTimeout,
        Failure::WriteTimeout => Error::ConnectionWriteTimeout,
        Failure::ReadTimeout => Error::ConnectionReadTimeout,
        Failure::Terminated => Error::ConnectionTerminated,
        Failure::Incomplete => Error::HttpResponseIncomplete,
        Failure::Full => Error::ConnectionLimitReached,
        Failure::Tls => Error::TlsProtocolError,
        Failure::Certificate => Error::TlsCertificateError,
        Failure::Alert(alert) => {
            Error::TlsAlertReceived { alert_id: Some(alert), alert_message: None }
        }
        Failure::HeadTooLarge => Error::HttpResponseHeaderSectionSize(None),
        Failure::Upgrade => Error::HttpUpgradeFailed,
        Failure::Protocol => Error::HttpProtocolError,
        Failure::Body => {
            let fault = fault.0.lock().ok().and_then(|mut fault| fault.take());
            fault.unwrap_or(Error::HttpRequestBodySize(None))
        }
    }
}

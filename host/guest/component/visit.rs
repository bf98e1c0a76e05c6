//! One request's stay with a component: the call, the response that comes of it while it still
//! runs, and what the guest does afterwards.
//!
//! Owns the order of these. The body of a response drives the call that makes it: a client that
//! does not read holds its guest up, and one that goes away ends the call.

use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

use bytes::{Bytes, BytesMut};
use http::header::CONTENT_LENGTH;
use http::uri::{Authority, Scheme};
use http::{HeaderName, HeaderValue, Method, StatusCode, Uri};
use http_body::{Body, Frame, SizeHint};
use http_body_util::{BodyExt, Empty};
use tokio::sync::oneshot;
use wasmtime_wasi_http::p2::bindings::http::types::ErrorCode;

use super::ComponentInstance;
use super::body::{Arriving, Departing, Fault};
use super::instance::{Called, Head};
use super::state::Gone;
use crate::guest::instance::{Instance, judge, log_end};
use crate::guest::lane::Movable;
use crate::guest::meter::Meter;
use crate::guest::{About, Guest, Pool, header};
use crate::message::{BASE_PATH, Reject, Request, RequestId, Response, ResponseBody};
use crate::outbound::{Circle, Trail};

/// How long a guest may go on once its response is complete.
const AFTERWARDS_MAX: Duration = Duration::from_secs(10);
/// How long a response's body may make no progress although the client would take more.
const SILENCE_MAX: Duration = Duration::from_secs(60);
/// Empty pieces of a body that are passed over in one go.
const EMPTY_MAX: usize = 16;

/// A call that ends with the instance, if that is still good.
type Call = Pin<Box<dyn Future<Output = Ended>>>;
type Ended = Result<Box<ComponentInstance>, Broken>;

/// A call that came to a bad end. As long as its instance is there, a body that the guest has
/// finished can be told from one that it has not.
struct Broken {
    reject: Reject,
    instance: Option<Box<ComponentInstance>>,
}

/// A request that a component handles.
pub struct Visit {
    call: Call,
    /// How the call has ended.
    ended: Option<Ended>,
    head: oneshot::Receiver<Head>,
    gone: Gone,
    fault: Option<Fault>,
    about: Arc<About>,
    id: RequestId,
    method: Method,
    pool: Rc<Pool>,
}

/// What a visit is given, beside the request.
pub struct Terms<K> {
    pub pool: Rc<Pool>,
    /// When the request began, and whether all the time since then was the guest's.
    pub started: Instant,
    pub waited: bool,
    /// Whether the call may go on in the slow lane.
    pub in_lanes: bool,
    /// Is dropped when the call has ended.
    pub keep: K,
}

impl Visit {
    /// Begins a request; [`Visit::response`] is to follow.
    ///
    /// # Errors
    /// [`Reject::BadHost`] and the like, where the request cannot be handed to a component.
    pub fn begin<K: 'static>(
        mut instance: Box<ComponentInstance>,
        request: Box<Request>,
        terms: Terms<K>,
    ) -> Result<Self, Reject> {
        let (id, method, pool) = (request.id, request.method.clone(), terms.pool.clone());
        let (sender, head) = oneshot::channel();
        let has_body = !request.body.is_end();
        let fault = has_body.then(Fault::default);
        let trail = Trail::of(&request.headers).map_err(|Circle| Reject::Loop)?;
        let request = standard(request, fault.clone())?;
        instance.open(terms.pool.door(), trail, id);
        let accepted = instance.accept(id, request, sender).map_err(|_| {
            Reject::BadHost("the Host header is not one that a component can be handed")
        });
        let handed = accepted?;
        let gone = instance.gone();
        let guest = instance.guest().clone();
        let about = guest.about.clone();
        let call = instance.call(handed);
        let call = Box::pin(drive(call, guest, id, terms));
        Ok(Visit { call, ended: None, head, gone, fault, about, id, method, pool })
    }

    /// The guest's response. Its body may still be coming.
    ///
    /// # Errors
    /// The instance is gone, and the reject says what the client is told.
    pub async fn response(mut self, deadline: Instant) -> Result<Response, Reject> {
        let head = std::future::poll_fn(|cx| self.poll_head(cx));
        let head = match tokio::time::timeout_at(deadline.into(), head).await {
            Ok(Ok(head)) => head,
            Ok(Err(reject)) => return Err(self.blame(reject)),
            Err(_) => {
                self.log("no response before the deadline");
                return Err(Reject::Deadline);
            }
        };
        let (head, body) = head.into_parts();
        let bodiless = self.method == Method::HEAD
            || matches!(
                head.status,
                StatusCode::NO_CONTENT | StatusCode::RESET_CONTENT | StatusCode::NOT_MODIFIED
            );
        let announced = head.headers.get(CONTENT_LENGTH).and_then(number);
        let body = if bodiless {
            drop(body);
            self.leave();
            ResponseBody::Stream(Box::pin(Empty::new().map_err(never)))
        } else {
            Departure::new(self, body, announced).settle()?
        };
        Ok(Response { status: head.status, headers: head.headers, body })
    }

    /// Ready with the response's head, or where there will be none.
    fn poll_head(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<Result<http::Response<Departing>, Reject>> {
        let has_ended = self.poll_call(cx);
        if self.head.is_terminated() {
            return self.poll_end(cx);
        }
        match Pin::new(&mut self.head).poll(cx) {
            // Nobody is left who could answer.
            Poll::Pending if has_ended => self.poll_end(cx),
            Poll::Pending => Poll::Pending,
            Poll::Ready(Ok(Ok(head))) => Poll::Ready(Ok(head)),
            Poll::Ready(Ok(Err(code))) => {
                self.log(&format!("answered with an error: {code:?}"));
                Poll::Ready(Err(match code {
                    ErrorCode::LoopDetected => Reject::Loop,
                    _ => Reject::HandlerError,
                }))
            }
            Poll::Ready(Err(_)) => self.poll_end(cx),
        }
    }

    /// Ready where nobody is left who could answer, with the reason once that is known.
    fn poll_end(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<Result<http::Response<Departing>, Reject>> {
        // The slow lane lets go of the instance before it says why.
        if self.gone.is_gone() && !self.poll_call(cx) {
            return Poll::Pending;
        }
        Poll::Ready(Err(match self.ended.take() {
            Some(Err(broken)) => {
                dispose(&self.pool, broken.instance);
                broken.reject
            }
            _ => {
                self.log("it ended, or dropped its response-outparam, without a response");
                Reject::InvalidResponse
            }
        }))
    }

    /// Lets the call go on; whether it has ended.
    fn poll_call(&mut self, cx: &mut Context<'_>) -> bool {
        if self.ended.is_none()
            && let Poll::Ready(ended) = self.call.as_mut().poll(cx)
        {
            self.ended = Some(ended);
        }
        self.ended.is_some()
    }

    /// What the client is told: if the request's own body was at fault, that.
    fn blame(&self, reject: Reject) -> Reject {
        self.fault.as_ref().and_then(|fault| fault.get().copied()).unwrap_or(reject)
    }

    fn log(&self, why: &str) {
        log_end(&self.about, Some(self.id), format_args!("{why}"));
    }

    /// Lets the guest go on for a while without its client, if it has not ended.
    fn leave(self) {
        let Visit { call, ended, pool, .. } = self;
        match ended {
            Some(Ok(instance)) => pool.give_back(Instance::Component(instance)),
            Some(Err(Broken { instance, .. })) => dispose(&pool, instance),
            None => {
                tokio::task::spawn_local(async move {
                    match tokio::time::timeout(AFTERWARDS_MAX, call).await {
                        Ok(Ok(instance)) => pool.give_back(Instance::Component(instance)),
                        Ok(Err(broken)) => dispose(&pool, broken.instance),
                        Err(_) => {}
                    }
                });
            }
        }
    }
}

fn dispose(pool: &Pool, instance: Option<Box<ComponentInstance>>) {
    if let Some(instance) = instance {
        pool.dispose(Instance::Component(instance));
    }
}

/// Runs a call to its end.
async fn drive<K>(
    call: Movable<Called>,
    guest: Arc<Guest>,
    id: RequestId,
    terms: Terms<K>,
) -> Ended {
    let Terms { pool, started, waited, in_lanes, keep: _keep } = terms;
    let about = &guest.about;
    let _out = pool.lend();
    let mut meter = Meter::new(&about.limits, started).without_deadline();
    if in_lanes {
        meter = meter.in_lanes(&pool, guest.id);
    }
    if waited {
        meter.resume();
    }
    let running = pool.pulse().begin();
    let ended = meter.call(call).await;
    drop(running);
    match ended {
        Ok((instance, result)) => {
            instance.end_log();
            match judge(about, Some(id), result) {
                Ok(()) => Ok(instance),
                Err(reject) => Err(Broken { reject, instance: Some(instance) }),
            }
        }
        Err(reject) => {
            log_end(about, Some(id), format_args!("{reject}"));
            Err(Broken { reject, instance: None })
        }
    }
}

/// A request as components get it.
fn standard(
    request: Box<Request>,
    fault: Option<Fault>,
) -> Result<http::Request<Arriving>, Reject> {
    let mut made = Vec::new();
    header::host_made(&request, |prefix, name, value| {
        let name = match name {
            "" => Ok(HeaderName::from_static(BASE_PATH)),
            name => HeaderName::from_bytes(format!("{prefix}{name}").as_bytes()),
        };
        if let (Ok(name), Ok(value)) = (name, HeaderValue::from_str(value)) {
            made.push((name, value));
        }
    });
    let Request { method, uri, mut headers, body, .. } = *request;
    headers.extend(made);
    let has_host = headers.get(http::header::HOST).is_some_and(|host| !host.is_empty());
    let mut parts = http::uri::Parts::default();
    parts.path_and_query = Some(uri);
    if !has_host {
        // HTTP/1.0 without a Host: the guest is to have an absolute URI all the same.
        parts.scheme = Some(Scheme::HTTP);
        parts.authority = Some(Authority::from_static("localhost"));
    }
    let mut standard = http::Request::new(Arriving { body, fault });
    *standard.method_mut() = method;
    *standard.uri_mut() = Uri::from_parts(parts).map_err(|_| Reject::BadPath("not a path"))?;
    *standard.headers_mut() = headers;
    Ok(standard)
}

fn number(length: &HeaderValue) -> Option<u64> {
    length.to_str().ok()?.parse().ok()
}

fn never(never: std::convert::Infallible) -> Reject {
    match never {}
}

/// A response's body, which drives the call that makes it.
struct Departure {
    /// Taken when the body is complete.
    visit: Option<Visit>,
    body: Departing,
    /// Bytes that are still to come, where the guest has said how many.
    left: Option<u64>,
    silence: Option<Pin<Box<tokio::time::Sleep>>>,
}

impl Departure {
    fn new(visit: Visit, body: Departing, announced: Option<u64>) -> Self {
        Departure { visit: Some(visit), body, left: announced, silence: None }
    }

    /// The body in one piece if the guest has ended, else as it comes.
    fn settle(mut self) -> Result<ResponseBody, Reject> {
        if self.visit.as_ref().is_none_or(|visit| visit.ended.is_none()) {
            return Ok(ResponseBody::Stream(Box::pin(self)));
        }
        let mut cx = Context::from_waker(Waker::noop());
        let (mut first, mut more, mut trailers) = (Bytes::new(), BytesMut::new(), None);
        loop {
            // The guest has ended, so this never waits.
            match Pin::new(&mut self).poll_frame(&mut cx) {
                Poll::Pending => return Err(Reject::InvalidResponse),
                Poll::Ready(None) => break,
                Poll::Ready(Some(frame)) => match frame?.into_data() {
                    Ok(data) if first.is_empty() => first = data,
                    Ok(data) => more.extend_from_slice(&data),
                    Err(frame) => trailers = frame.into_trailers().ok(),
                },
            }
        }
        let bytes = if more.is_empty() { first } else { [&first[..], &more[..]].concat().into() };
        Ok(match trailers {
            None => ResponseBody::Full(bytes),
            Some(trailers) => ResponseBody::Trailed(bytes, Box::new(trailers)),
        })
    }

    /// The next piece as the guest has made it, with the guest going on as long as there is none.
    fn poll_piece(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Reject>>> {
        for _ in 0..EMPTY_MAX {
            let mut polled = Pin::new(&mut self.body).poll_frame(cx);
            if polled.is_pending() {
                let Some(visit) = &mut self.visit else { return Poll::Ready(None) };
                let has_ended = visit.poll_call(cx);
                polled = Pin::new(&mut self.body).poll_frame(cx);
                if polled.is_pending() && has_ended {
                    // Nobody is left who could write to it.
                    return Poll::Ready(Some(Err(Reject::InvalidResponse)));
                }
            }
            match std::task::ready!(polled) {
                Some(Ok(frame)) if frame.data_ref().is_some_and(Bytes::is_empty) => {}
                Some(Ok(frame)) => return Poll::Ready(Some(Ok(frame))),
                // A short body, or one that was dropped.
                Some(Err(_)) => return Poll::Ready(Some(Err(Reject::InvalidResponse))),
                None => return Poll::Ready(None),
            }
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    }

    /// Whether the guest has been silent for too long.
    fn poll_silence(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let sleep = || Box::pin(tokio::time::sleep(SILENCE_MAX));
        self.silence.get_or_insert_with(sleep).as_mut().poll(cx)
    }

    /// Gives up, with the instance.
    fn fail(&mut self, reject: Reject, why: &str) -> Poll<Option<Result<Frame<Bytes>, Reject>>> {
        let Some(visit) = self.visit.take() else { return Poll::Ready(None) };
        let reject = match visit.ended {
            Some(Err(broken)) => {
                dispose(&visit.pool, broken.instance);
                broken.reject
            }
            // The reason is on its way to the log.
            _ if visit.gone.is_gone() => reject,
            _ => {
                visit.log(why);
                visit.blame(reject)
            }
        };
        Poll::Ready(Some(Err(reject)))
    }
}

impl Body for Departure {
    type Data = Bytes;
    type Error = Reject;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Reject>>> {
        let this = &mut *self;
        if this.visit.is_none() {
            return Poll::Ready(None);
        }
        match this.poll_piece(cx) {
            Poll::Pending => match this.poll_silence(cx) {
                Poll::Pending => Poll::Pending,
                Poll::Ready(()) => this.fail(Reject::Deadline, "silent for too long"),
            },
            Poll::Ready(Some(Err(reject))) => this.fail(reject, "its body was not finished"),
            Poll::Ready(Some(Ok(frame))) => {
                this.silence = None;
                let bytes = frame.data_ref().map_or(0, |data| data.len() as u64);
                match &mut this.left {
                    Some(left) if bytes > *left => {
                        this.fail(Reject::InvalidResponse, "its body is longer than announced")
                    }
                    Some(left) => {
                        *left -= bytes;
                        Poll::Ready(Some(Ok(frame)))
                    }
                    None => Poll::Ready(Some(Ok(frame))),
                }
            }
            Poll::Ready(None) => {
                // The body of an instance that is gone looks complete.
                let is_cut = this.visit.as_ref().is_some_and(|visit| visit.gone.is_gone());
                if is_cut && !this.visit.as_mut().is_some_and(|visit| visit.poll_call(cx)) {
                    return Poll::Pending;
                }
                if is_cut || this.left.is_some_and(|left| left > 0) {
                    return this
                        .fail(Reject::InvalidResponse, "its body is shorter than announced");
                }
                if let Some(visit) = this.visit.take() {
                    visit.leave();
                }
                Poll::Ready(None)
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        self.visit.is_none()
    }

    fn size_hint(&self) -> SizeHint {
        self.left.map_or_else(SizeHint::default, SizeHint::with_exact)
    }
}

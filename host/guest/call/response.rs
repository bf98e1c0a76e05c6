//! A response's body on its way to the client. Polling it drives the call that makes it.
//!
//! Owns when a body is complete. A client that does not read holds up its guest, one that goes away
//! ends the call, and a body that is short, long or cut off never looks complete.

use std::collections::VecDeque;
use std::pin::{Pin, pin};
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

use bytes::{Bytes, BytesMut};
use http::header::CONTENT_LENGTH;
use http::{HeaderMap, HeaderValue, Method, StatusCode};
use http_body::{Body, Frame, SizeHint};
use http_body_util::{BodyExt as _, Empty};
use wasmtime_wasi_http::Error;

use super::component::ComponentCall;
use crate::guest::component::body::GuestResponseBody;
use crate::message::body_progress::Deadline;
use crate::message::{Reject, Response, ResponseBody};

/// How long a response's body may make no progress while the client would take more.
const BODY_IDLE_MAX: Duration = Duration::from_secs(60);
/// Empty frames that one poll skips before it yields.
const EMPTY_FRAMES_MAX: usize = 16;
/// How often a guest is polled before its response begins, and how many frames are collected by
/// then. A guest of 0.3 yields once before it writes.
const EARLY_POLLS_MAX: usize = 2;
const EARLY_FRAMES_MAX: usize = 4;

/// The deadline of a body that makes no progress, and its timer. It stands still while the guest
/// waits for the request's body.
type IdleTimer = (Deadline, Pin<Box<tokio::time::Sleep>>);

/// Waits for the head of the guest's response until `deadline`. The body may still be coming.
///
/// # Errors
/// The reject says what the client is told. The instance is gone.
pub async fn response(mut call: ComponentCall, deadline: Instant) -> Result<Response, Reject> {
    let deadline = Deadline::new(deadline, call.progress.clone());
    let head = std::future::poll_fn(|cx| call.poll_head(cx));
    let head = match deadline.within(head).await {
        Some(Ok(head)) => head,
        Some(Err(reject)) => return Err(call.root_cause(reject)),
        None => {
            call.log("no response before the deadline");
            return Err(Reject::Deadline);
        }
    };
    let (head, body) = head.into_parts();
    let bodiless = call.method == Method::HEAD
        || matches!(
            head.status,
            StatusCode::NO_CONTENT | StatusCode::RESET_CONTENT | StatusCode::NOT_MODIFIED
        );
    let announced = head.headers.get(CONTENT_LENGTH).and_then(number);
    let body = if bodiless {
        drop(body);
        call.detach();
        ResponseBody::Stream(Box::pin(Empty::new().map_err(never)))
    } else {
        DrivenBody::new(call, body, announced).collect_or_stream()?
    };
    Ok(Response { status: head.status, headers: head.headers, body })
}

/// A response's body. Polling it drives the call that makes it.
pub struct DrivenBody {
    /// Taken when the body is complete.
    call: Option<ComponentCall>,
    body: GuestResponseBody,
    /// Bytes still to come, if the guest has sent a Content-Length.
    left: Option<u64>,
    idle_timer: Option<IdleTimer>,
    /// Why the body failed, kept until the call's own reason is known.
    failure: Option<Reject>,
    /// Frames that were collected before the connection asked for them.
    early: VecDeque<Frame<Bytes>>,
}

impl DrivenBody {
    /// `announced` is the response's Content-Length, if it has one.
    pub fn new(call: ComponentCall, body: GuestResponseBody, announced: Option<u64>) -> Self {
        let early = VecDeque::new();
        DrivenBody {
            call: Some(call),
            body,
            left: announced,
            idle_timer: None,
            failure: None,
            early,
        }
    }

    /// The whole body if the guest has finished it, else a stream. A guest that has merely yielded
    /// is polled a few times more: most have written everything by then.
    ///
    /// # Errors
    /// The body failed before it began to be sent.
    pub fn collect_or_stream(mut self) -> Result<ResponseBody, Reject> {
        let mut cx = Context::from_waker(Waker::noop());
        let mut polls_left = if self.call.as_ref().is_some_and(ComponentCall::has_ended) {
            0
        } else {
            EARLY_POLLS_MAX
        };
        loop {
            match self.poll_checked_frame(&mut cx) {
                Poll::Pending if polls_left == 0 => {
                    return Ok(ResponseBody::Stream(Box::pin(self)));
                }
                Poll::Pending => polls_left -= 1,
                Poll::Ready(None) => break,
                Poll::Ready(Some(frame)) => self.early.push_back(frame?),
            }
            if self.early.len() > EARLY_FRAMES_MAX {
                return Ok(ResponseBody::Stream(Box::pin(self)));
            }
        }
        Ok(collected_body(self.early))
    }

    /// The next frame as the guest made it. Drives the call as long as there is none.
    fn poll_guest_frame(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Reject>>> {
        if let Some(reject) = self.failure {
            return Poll::Ready(Some(Err(reject)));
        }
        for _ in 0..EMPTY_FRAMES_MAX {
            let mut polled = poll_body(&mut self.body, cx);
            if polled.is_pending() {
                let Some(call) = &mut self.call else { return Poll::Ready(None) };
                let has_ended = call.poll_call(cx);
                let polls = call.body_polls();
                polled = poll_body(&mut self.body, cx);
                if polled.is_pending() && has_ended && call.body_polls() == polls {
                    // No task is left that could write to it.
                    return Poll::Ready(Some(Err(Reject::InvalidResponse)));
                }
            }
            match std::task::ready!(polled) {
                Some(Ok(frame)) if frame.data_ref().is_some_and(Bytes::is_empty) => {}
                Some(Ok(frame)) => return Poll::Ready(Some(Ok(frame))),
                // The body is shorter than announced, or the guest dropped it.
                Some(Err(_)) => return Poll::Ready(Some(Err(Reject::InvalidResponse))),
                None => return Poll::Ready(None),
            }
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    }

    /// Ready when the guest has been silent for too long.
    fn poll_idle_timeout(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let (deadline, timer) = self.idle_timer.get_or_insert_with(|| {
            let body = self.call.as_ref().and_then(|call| call.progress.clone());
            let deadline = Deadline::after(BODY_IDLE_MAX, body);
            let timer = Box::pin(deadline.timer());
            (deadline, timer)
        });
        deadline.poll_passed(timer.as_mut(), cx)
    }

    /// Ends the call and fails the body. Logs `why`, unless the call's own reason gets into the
    /// log.
    fn fail(&mut self, reject: Reject, why: &str) -> Poll<Option<Result<Frame<Bytes>, Reject>>> {
        let Some(mut call) = self.call.take() else { return Poll::Ready(None) };
        // If the store is gone but the call has not ended, its reason is about to be logged.
        let is_told = call.liveness.is_dropped() && !call.has_ended();
        let reject = match call.end.reject() {
            Some(reject) => call.root_cause(reject),
            None if is_told => reject,
            None => {
                call.log(why);
                call.root_cause(reject)
            }
        };
        Poll::Ready(Some(Err(reject)))
    }

    /// Whether the instance is gone but the reason is not known yet: the slow lane drops it first.
    fn is_unexplained(&mut self, cx: &mut Context<'_>) -> bool {
        self.call.as_mut().is_some_and(|call| call.liveness.is_dropped() && !call.poll_call(cx))
    }

    /// The next frame behind the early ones, checked against the announced length.
    fn poll_checked_frame(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Reject>>> {
        if self.call.is_none() {
            return Poll::Ready(None);
        }
        match self.poll_guest_frame(cx) {
            Poll::Pending => match self.poll_idle_timeout(cx) {
                Poll::Pending => Poll::Pending,
                Poll::Ready(()) => self.fail(Reject::Deadline, "silent for too long"),
            },
            Poll::Ready(Some(Err(reject))) => {
                if self.is_unexplained(cx) {
                    self.failure = Some(reject);
                    return Poll::Pending;
                }
                self.fail(reject, "its body was not finished")
            }
            Poll::Ready(Some(Ok(frame))) => {
                self.idle_timer = None;
                let bytes = frame.data_ref().map_or(0, |data| data.len() as u64);
                self.call.as_ref().inspect(|call| call.moved_bytes.add(bytes));
                match &mut self.left {
                    Some(left) if bytes > *left => {
                        self.fail(Reject::InvalidResponse, "its body is longer than announced")
                    }
                    Some(left) => {
                        *left -= bytes;
                        Poll::Ready(Some(Ok(frame)))
                    }
                    None => Poll::Ready(Some(Ok(frame))),
                }
            }
            Poll::Ready(None) => {
                if self.is_unexplained(cx) {
                    return Poll::Pending;
                }
                // A body whose store is gone ends as if it were complete.
                let is_cut = self.call.as_ref().is_some_and(|call| call.liveness.is_dropped());
                if is_cut || self.left.is_some_and(|left| left > 0) {
                    return self
                        .fail(Reject::InvalidResponse, "its body is shorter than announced");
                }
                if let Some(call) = self.call.take() {
                    call.detach();
                }
                Poll::Ready(None)
            }
        }
    }
}

impl Body for DrivenBody {
    type Data = Bytes;
    type Error = Reject;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Reject>>> {
        match self.early.pop_front() {
            Some(frame) => Poll::Ready(Some(Ok(frame))),
            None => self.poll_checked_frame(cx),
        }
    }

    fn is_end_stream(&self) -> bool {
        self.call.is_none() && self.early.is_empty()
    }

    fn size_hint(&self) -> SizeHint {
        let early: usize = self.early.iter().filter_map(Frame::data_ref).map(Bytes::len).sum();
        self.left.map_or_else(SizeHint::default, |left| SizeHint::with_exact(left + early as u64))
    }
}

/// Polls a body outside of tokio's cooperative budget. When that is used up, tokio has tasks yield,
/// and the body would look as if it had no more frames ready.
fn poll_body(
    body: &mut GuestResponseBody,
    cx: &mut Context<'_>,
) -> Poll<Option<Result<Frame<Bytes>, Error>>> {
    let mut body = Pin::new(body);
    let next = std::future::poll_fn(|cx| body.as_mut().poll_frame(cx));
    pin!(tokio::task::unconstrained(next)).poll(cx)
}

/// Joins the frames of a complete body.
fn collected_body(mut frames: VecDeque<Frame<Bytes>>) -> ResponseBody {
    if frames.len() == 1
        && let Some(frame) = frames.pop_front()
    {
        return match frame.into_data() {
            Ok(data) => ResponseBody::Full(data),
            Err(frame) => with_trailers_if_any(Bytes::new(), frame.into_trailers().ok()),
        };
    }
    let (mut bytes, mut trailers) = (BytesMut::new(), None);
    for frame in frames {
        match frame.into_data() {
            Ok(data) => bytes.extend_from_slice(&data),
            Err(frame) => trailers = frame.into_trailers().ok(),
        }
    }
    with_trailers_if_any(bytes.freeze(), trailers)
}

fn with_trailers_if_any(bytes: Bytes, trailers: Option<HeaderMap>) -> ResponseBody {
    match trailers {
        None => ResponseBody::Full(bytes),
        Some(trailers) => ResponseBody::WithTrailers(bytes, Box::new(trailers)),
    }
}

fn number(length: &HeaderValue) -> Option<u64> {
    length.to_str().ok()?.parse().ok()
}

fn never(never: std::convert::Infallible) -> Reject {
    match never {}
}

//! The bodies of a guest's outbound request and of its response.
//!
//! Owns which side is awaited: time in which the host waits for the guest does not count against
//! the server's timeouts.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt as _, Empty};
use hyper::body::Incoming;
use tokio::sync::oneshot;
use tokio::time::Sleep;

use super::failure::OutboundFailure;
use super::outbound_connection::UploadBody;
use super::paced_stream::UnconsumedBytes;

/// How often a body is polled for its first piece before its request is sent without one. An empty
/// body of wasi:http 0.3 shows its end at the second poll, once the guest has run in between; 4
/// leave the guest room for steps of its own.
const PEEKS_MAX: usize = 4;

/// A request's body, as the guest makes it.
pub struct OutboundRequestBody {
    body: UnsyncBoxBody<Bytes, OutboundFailure>,
    /// A piece that was read ahead, and the body's size hint from before that.
    peeked_frame: Option<(Result<Frame<Bytes>, OutboundFailure>, SizeHint)>,
    /// Whether a poll has found the end.
    has_ended: bool,
}

impl OutboundRequestBody {
    /// Wraps a body and polls it for its first piece, as long as that takes no time.
    ///
    /// Some bodies know only when they are polled that they are empty. A request should go out as
    /// one without a body then: a server that answers before it has read a body to its end closes
    /// the connection.
    pub async fn peeked(body: UnsyncBoxBody<Bytes, OutboundFailure>) -> Self {
        let has_ended = body.is_end_stream();
        let mut peeking = OutboundRequestBody { body, peeked_frame: None, has_ended };
        for turn in 0..PEEKS_MAX {
            if turn > 0 {
                yield_in_order().await;
            }
            // No waker is needed: sending the body polls it again.
            peeking.peek(&mut Context::from_waker(Waker::noop()));
            if peeking.has_ended || peeking.peeked_frame.is_some() {
                break;
            }
        }
        peeking
    }

    /// Waits until it is known whether the body is empty. If a request announces a length of 0, its
    /// head is all that the server gets, so the body has to be checked before the head is sent.
    pub async fn wait_peeked(&mut self) {
        std::future::poll_fn(|cx| {
            self.peek(cx);
            if self.has_ended || self.peeked_frame.is_some() {
                Poll::Ready(())
            } else {
                Poll::Pending
            }
        })
        .await;
    }

    /// Why the body cannot be sent with the length `announced`, if the first piece shows it.
    pub fn fault(&self, announced: u64) -> Option<OutboundFailure> {
        match &self.peeked_frame.as_ref()?.0 {
            Err(failure) => Some(*failure),
            Ok(first) => {
                let bytes = first.data_ref().map_or(0, |data| data.len() as u64);
                (bytes > announced).then_some(OutboundFailure::Body)
            }
        }
    }

    /// Polls for the next piece and keeps it.
    fn peek(&mut self, cx: &mut Context<'_>) {
        if self.has_ended || self.peeked_frame.is_some() {
            return;
        }
        let hint = self.body.size_hint();
        match Pin::new(&mut self.body).poll_frame(cx) {
            // An empty piece says nothing about the end. Poll again in the next turn.
            Poll::Ready(Some(Ok(piece))) if piece.data_ref().is_some_and(Bytes::is_empty) => {
                cx.waker().wake_by_ref();
            }
            Poll::Ready(Some(piece)) => self.peeked_frame = Some((piece, hint)),
            Poll::Ready(None) => self.has_ended = true,
            Poll::Pending => {}
        }
    }
}

/// Lets other tasks of the same executor run, and keeps the order of tasks that yield. tokio's
/// `yield_now` resumes the last task first, so the last of many requests would become the first.
async fn yield_in_order() {
    let mut is_over = false;
    std::future::poll_fn(|cx| {
        if std::mem::replace(&mut is_over, true) {
            return Poll::Ready(());
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    })
    .await;
}

impl Body for OutboundRequestBody {
    type Data = Bytes;
    type Error = OutboundFailure;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, OutboundFailure>>> {
        match self.peeked_frame.take() {
            Some((piece, _)) => Poll::Ready(Some(piece)),
            None if self.has_ended => Poll::Ready(None),
            None => Pin::new(&mut self.body).poll_frame(cx),
        }
    }

    fn is_end_stream(&self) -> bool {
        self.has_ended || self.peeked_frame.is_none() && self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.peeked_frame.as_ref().map_or_else(|| self.body.size_hint(), |(_, hint)| *hint)
    }
}

/// Which side a request's body waits for. It is the server until the body is first polled.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum AwaitedParty {
    /// The guest, which has to produce more. For a forwarded body, the client.
    Guest,
    /// The server, which has to take the last piece.
    Server,
    /// Nobody: everything is sent.
    Nobody,
}

/// How far a request's body has come. Sending and receiving share it.
#[derive(Clone)]
pub struct UploadProgress(Arc<UploadState>);

struct UploadState {
    began: Instant,
    /// Milliseconds since `began` in the upper 62 bits, the [`AwaitedParty`] in the lower two.
    last: AtomicU64,
}

impl UploadProgress {
    fn new(turn: AwaitedParty) -> Self {
        let progress = UploadProgress(Arc::new(UploadState {
            began: Instant::now(),
            last: AtomicU64::new(0),
        }));
        progress.set(turn);
        progress
    }

    fn set(&self, turn: AwaitedParty) {
        let ms = self.0.began.elapsed().as_millis() as u64;
        self.0.last.store(ms << 2 | turn as u64, Ordering::Relaxed);
    }

    /// Which side is awaited, and since when.
    pub fn get(&self) -> (AwaitedParty, Instant) {
        let last = self.0.last.load(Ordering::Relaxed);
        let turn = match last & 3 {
            0 => AwaitedParty::Guest,
            1 => AwaitedParty::Server,
            _ => AwaitedParty::Nobody,
        };
        (turn, self.0.began + Duration::from_millis(last >> 2))
    }
}

/// A guest's request body, as hyper sends it.
pub struct GuestUpload {
    body: OutboundRequestBody,
    progress: UploadProgress,
    /// How many bytes are still to come, if the guest has announced a length.
    left: Option<u64>,
    /// Whether the body ends by its length alone, without trailers. Then hyper drops the body after
    /// the last byte and does not poll for the end.
    ends_by_length: bool,
    /// Receives how the upload ends.
    ended: Option<oneshot::Sender<Result<(), OutboundFailure>>>,
    /// The connection's counter, which is reset whenever the server takes a piece.
    unconsumed: Option<UnconsumedBytes>,
}

impl GuestUpload {
    /// Returns the upload, its progress, and a receiver for how it ends. `left` is the length that
    /// the guest has announced.
    pub fn new(
        body: OutboundRequestBody,
        left: Option<u64>,
        has_trailers: bool,
    ) -> (Self, UploadProgress, oneshot::Receiver<Result<(), OutboundFailure>>) {
        let is_empty = body.is_end_stream();
        let progress =
            UploadProgress::new(if is_empty { AwaitedParty::Nobody } else { AwaitedParty::Server });
        let (ended, end) = oneshot::channel();
        let mut upload = GuestUpload {
            body,
            progress: progress.clone(),
            left,
            ends_by_length: !has_trailers,
            ended: Some(ended),
            unconsumed: None,
        };
        if is_empty {
            upload.end(Ok(()));
        }
        (upload, progress, end)
    }

    /// Counts a piece, or the end, against the announced length. With the last byte it also checks
    /// that the body has no more. Otherwise the server would take the beginning of a body that is
    /// too long for a complete one.
    fn count(
        &mut self,
        piece: Option<&Frame<Bytes>>,
        cx: &mut Context<'_>,
    ) -> Result<(), OutboundFailure> {
        let Some(left) = self.left else { return Ok(()) };
        let data = piece.and_then(Frame::data_ref);
        let left = left.checked_sub(data.map_or(0, |data| data.len() as u64));
        let left = left.ok_or(OutboundFailure::Body)?;
        self.left = Some(left);
        if left > 0 {
            // After trailers or the end there are no more bytes.
            let is_open = data.is_some() && !self.body.is_end_stream();
            return if is_open { Ok(()) } else { Err(OutboundFailure::Body) };
        }
        self.body.peek(cx);
        match &self.body.peeked_frame {
            Some((Err(failure), _)) => Err(*failure),
            Some((Ok(more), _)) if more.data_ref().is_some_and(|data| !data.is_empty()) => {
                Err(OutboundFailure::Body)
            }
            _ => Ok(()),
        }
    }

    fn end(&mut self, result: Result<(), OutboundFailure>) {
        self.progress.set(AwaitedParty::Nobody);
        if let Some(ended) = self.ended.take() {
            // Sending fails if the guest has dropped the receiver.
            let _ = ended.send(result);
        }
    }
}

impl UploadBody for GuestUpload {
    fn empty() -> Self {
        let none = Empty::new().map_err(|never| match never {}).boxed_unsync();
        let body = OutboundRequestBody { body: none, peeked_frame: None, has_ended: true };
        let progress = UploadProgress::new(AwaitedParty::Nobody);
        GuestUpload {
            body,
            progress,
            left: None,
            ends_by_length: true,
            ended: None,
            unconsumed: None,
        }
    }

    fn bind_counter(&mut self, unconsumed: &UnconsumedBytes) {
        self.unconsumed = Some(unconsumed.clone());
    }
}

impl Body for GuestUpload {
    type Data = Bytes;
    type Error = OutboundFailure;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, OutboundFailure>>> {
        let this = &mut *self;
        let Poll::Ready(piece) = Pin::new(&mut this.body).poll_frame(cx) else {
            this.progress.set(AwaitedParty::Guest);
            return Poll::Pending;
        };
        let piece = piece.transpose();
        let piece = piece.and_then(|piece| this.count(piece.as_ref(), cx).map(|()| piece));
        if let (Ok(Some(_)), Some(unconsumed)) = (&piece, &this.unconsumed) {
            // Bytes that a server sends because it takes the body (window updates) are of use.
            unconsumed.reset();
        }
        match &piece {
            Ok(Some(_)) if !this.body.is_end_stream() => this.progress.set(AwaitedParty::Server),
            Ok(_) => this.end(Ok(())),
            Err(failure) => this.end(Err(*failure)),
        }
        Poll::Ready(piece.transpose())
    }

    fn is_end_stream(&self) -> bool {
        self.ended.is_none() || self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

/// An upload that is dropped early has failed, unless all of it was sent.
impl Drop for GuestUpload {
    fn drop(&mut self) {
        let is_whole = self.left == Some(0) && self.ends_by_length;
        self.end(if is_whole { Ok(()) } else { Err(OutboundFailure::Terminated) });
    }
}

/// A response's body, as the guest reads it. Dropping it cancels the exchange.
pub struct OutboundResponseBody {
    body: Incoming,
    progress: UploadProgress,
    /// The longest allowed pause.
    pause_max: Duration,
    pause: Option<Pin<Box<Sleep>>>,
    /// The connection's counter, which is reset whenever the guest reads a piece.
    unconsumed: UnconsumedBytes,
    is_h2: bool,
    /// Tells the exchange whether the body has ended well.
    over: Option<oneshot::Sender<bool>>,
}

/// Whether a body that seems to have ended was cut off.
///
/// If an HTTP/2 stream is reset with `NO_ERROR`, hyper reports the end of the body. A server may
/// send this reset after a complete response, to stop the request's body (RFC 9113, 8.1). Only then
/// has h2 seen the real end.
pub fn is_truncated(body: &Incoming, is_h2: bool) -> bool {
    is_h2 && !body.is_end_stream()
}

impl OutboundResponseBody {
    /// Returns the body, and a receiver that gets whether it has ended well. `pause_max` is the
    /// longest allowed pause. `is_h2` says that the connection is HTTP/2.
    pub fn new(
        body: Incoming,
        progress: UploadProgress,
        pause_max: Duration,
        (unconsumed, is_h2): (UnconsumedBytes, bool),
    ) -> (Self, oneshot::Receiver<bool>) {
        let (over, end) = oneshot::channel();
        let over = Some(over);
        let mut returning = OutboundResponseBody {
            body,
            progress,
            pause_max,
            pause: None,
            unconsumed,
            is_h2,
            over,
        };
        if returning.body.is_end_stream() {
            returning.end(true);
        }
        (returning, end)
    }

    fn end(&mut self, is_whole: bool) {
        if let Some(over) = self.over.take() {
            // Sending fails if the exchange has ended already.
            let _ = over.send(is_whole);
        }
    }

    /// Ready if nothing has arrived for too long. Time spent waiting for the guest does not count.
    fn poll_pause(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let max = self.pause_max;
        let pause = self.pause.get_or_insert_with(|| Box::pin(tokio::time::sleep(max)));
        loop {
            std::task::ready!(pause.as_mut().poll(cx));
            // The server's time begins once it has all that the guest has sent so far.
            let now = Instant::now();
            match self.progress.get() {
                (AwaitedParty::Guest, _) => pause.set(tokio::time::sleep(max)),
                (_, since) if since + max > now => {
                    pause.set(tokio::time::sleep_until((since + max).into()));
                }
                _ => return Poll::Ready(()),
            }
        }
    }
}

impl Body for OutboundResponseBody {
    type Data = Bytes;
    type Error = OutboundFailure;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, OutboundFailure>>> {
        let this = &mut *self;
        let Poll::Ready(frame) = Pin::new(&mut this.body).poll_frame(cx) else {
            return this.poll_pause(cx).map(|()| {
                this.end(false);
                Some(Err(OutboundFailure::ReadTimeout))
            });
        };
        this.pause = None;
        this.unconsumed.reset();
        if frame.is_none() && is_truncated(&this.body, this.is_h2) {
            this.end(false);
            return Poll::Ready(Some(Err(OutboundFailure::Incomplete)));
        }
        match &frame {
            Some(Ok(_)) if !this.body.is_end_stream() => {}
            Some(Ok(_)) | None => this.end(true),
            Some(Err(_)) => this.end(false),
        }
        Poll::Ready(frame.map(|frame| frame.map_err(|error| OutboundFailure::of_body(&error))))
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

//! The bodies of an exchange: the request's on its way out, the response's on its way to the guest.
//!
//! Owns whose turn it is: time in which the host waits for the guest is not counted.

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

/// How often a body is asked for its first piece before its request is sent without. The end of an
/// empty one of wasi:http 0.3 is known at the second, once the guest has had its turn; 4 leave it
/// room for steps of its own.
const PEEKS_MAX: usize = 4;

/// A request's body, as the guest makes it.
pub struct OutboundRequestBody {
    body: UnsyncBoxBody<Bytes, OutboundFailure>,
    /// A piece that was asked for before its turn, and what the body said about its size before.
    peeked_frame: Option<(Result<Frame<Bytes>, OutboundFailure>, SizeHint)>,
    /// Whether it was asked and had nothing more.
    has_ended: bool,
}

impl OutboundRequestBody {
    /// Asks a body what is in it, as long as that costs no time: some know only when they are asked
    /// that there is nothing. Of a request without a body servers take no second part, and those
    /// that answer before they have read all of it close the connection.
    pub async fn peeked(body: UnsyncBoxBody<Bytes, OutboundFailure>) -> Self {
        let has_ended = body.is_end_stream();
        let mut asked = OutboundRequestBody { body, peeked_frame: None, has_ended };
        for turn in 0..PEEKS_MAX {
            if turn > 0 {
                yield_in_order().await;
            }
            // It is asked again by who sends it.
            asked.peek(&mut Context::from_waker(Waker::noop()));
            if asked.has_ended || asked.peeked_frame.is_some() {
                break;
            }
        }
        asked
    }

    /// Waits until it is known whether there is anything in it. With the head of a request that
    /// announces no bytes its server has all of it, so that is sent once there are none.
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

    /// Why it is not to be sent as one of so many bytes, if that is known before.
    pub fn fault(&self, announced: u64) -> Option<OutboundFailure> {
        match &self.peeked_frame.as_ref()?.0 {
            Err(failure) => Some(*failure),
            Ok(first) => {
                let bytes = first.data_ref().map_or(0, |data| data.len() as u64);
                (bytes > announced).then_some(OutboundFailure::Body)
            }
        }
    }

    /// Asks for the next piece, which is kept.
    fn peek(&mut self, cx: &mut Context<'_>) {
        if self.has_ended || self.peeked_frame.is_some() {
            return;
        }
        let hint = self.body.size_hint();
        match Pin::new(&mut self.body).poll_frame(cx) {
            // Nothing is known by it. It is asked again, in its turn.
            Poll::Ready(Some(Ok(piece))) if piece.data_ref().is_some_and(Bytes::is_empty) => {
                cx.waker().wake_by_ref();
            }
            Poll::Ready(Some(piece)) => self.peeked_frame = Some((piece, hint)),
            Poll::Ready(None) => self.has_ended = true,
            Poll::Pending => {}
        }
    }
}

/// Lets the others of the same executor have a turn, and goes on in the order in which it came:
/// tokio's `yield_now` takes the last first, and so the last of many requests would be the first.
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

/// Whose turn it is with a request's body. Until the guest is asked, it is the server's. Of a body
/// that is passed on, the guest is the client.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum AwaitedParty {
    /// The guest's: it has to give more.
    Guest,
    /// The server's, which has the last piece so far.
    Server,
    /// Everything is sent.
    Nobody,
}

/// How far a request's body has come, for both directions to see.
#[derive(Clone)]
pub struct UploadProgress(Arc<UploadState>);

struct UploadState {
    began: Instant,
    /// Milliseconds since then, times four, and the turn.
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

    /// Whose turn it is, and since when.
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

/// A request's body as hyper pulls it.
pub struct GuestUpload {
    body: OutboundRequestBody,
    progress: UploadProgress,
    /// Bytes that are still to come, where the guest has said how many.
    left: Option<u64>,
    /// Whether it is sent with its length alone: once hyper has so much, it lets go of the body
    /// without a look at its end.
    ends_by_length: bool,
    /// Told how it ended.
    ended: Option<oneshot::Sender<Result<(), OutboundFailure>>>,
    /// Of the connection: that its server takes something of the guest's.
    unconsumed: Option<UnconsumedBytes>,
}

impl GuestUpload {
    /// The body, how far it is, and what is told of its end. `left` is how long the guest has said
    /// that it is, `is_trailed` whether something comes behind it.
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

    /// Counts a piece, or the end, against what the guest has announced. With the last byte of that
    /// it is looked whether there is more: the server would take the beginning of a body that is
    /// too long for a whole one.
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
            // Behind trailers, and behind the end, nothing comes.
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
            // It fails where nobody asks.
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
        if let (Ok(Some(_)), Some(heard)) = (&piece, &this.unconsumed) {
            // What a server says to what it takes, as that it takes more, is not for nobody.
            heard.reset();
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

/// An upload that nobody pulls any more has failed, unless all of it has gone out.
impl Drop for GuestUpload {
    fn drop(&mut self) {
        let is_whole = self.left == Some(0) && self.ends_by_length;
        self.end(if is_whole { Ok(()) } else { Err(OutboundFailure::Terminated) });
    }
}

/// A response's body as the guest reads it. Dropping it ends the exchange.
pub struct OutboundResponseBody {
    body: Incoming,
    progress: UploadProgress,
    /// The longest pause.
    pause_max: Duration,
    pause: Option<Pin<Box<Sleep>>>,
    /// Of the connection: that the guest gets something of it.
    unconsumed: UnconsumedBytes,
    is_h2: bool,
    /// Tells the exchange that the body is complete, or is read no more.
    over: Option<oneshot::Sender<bool>>,
}

/// Whether a body that has ended was broken off: hyper takes a stream of HTTP/2 that is reset
/// without an error for one that has ended. A server that wants no more of the request may do so
/// behind its response (RFC 9113, 8.1), whose end h2 keeps in mind then.
pub fn is_truncated(body: &Incoming, is_h2: bool) -> bool {
    is_h2 && !body.is_end_stream()
}

impl OutboundResponseBody {
    /// A body, and what is told whether it was read to its end. Its connection may be of HTTP/2.
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
            // The exchange may have ended before.
            let _ = over.send(is_whole);
        }
    }

    /// Ready where nothing has come for too long, and it is not the guest who is waited for.
    fn poll_pause(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let max = self.pause_max;
        let pause = self.pause.get_or_insert_with(|| Box::pin(tokio::time::sleep(max)));
        loop {
            std::task::ready!(pause.as_mut().poll(cx));
            // The server's time begins when it has what there is so far.
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

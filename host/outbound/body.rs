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

use super::failure::Failure;
use super::link::Sent;
use super::paced::Heard;

/// How often a body is asked for its first piece before its request is sent without. The end of an
/// empty one of wasi:http 0.3 is known at the second, once the guest has had its turn; 4 leave it
/// room for steps of its own.
const TURNS_BEFORE: usize = 4;

/// A request's body, as the guest makes it.
pub struct Outgoing {
    body: UnsyncBoxBody<Bytes, Failure>,
    /// A piece that was asked for before its turn, and what the body said about its size before.
    next: Option<(Result<Frame<Bytes>, Failure>, SizeHint)>,
    /// Whether it was asked and had nothing more.
    has_ended: bool,
}

impl Outgoing {
    /// Asks a body what is in it, as long as that costs no time: some know only when they are asked
    /// that there is nothing. Of a request without a body servers take no second part, and those
    /// that answer before they have read all of it close the connection.
    pub async fn asked(body: UnsyncBoxBody<Bytes, Failure>) -> Self {
        let has_ended = body.is_end_stream();
        let mut asked = Outgoing { body, next: None, has_ended };
        for turn in 0..TURNS_BEFORE {
            if turn > 0 {
                pause().await;
            }
            // It is asked again by who sends it.
            asked.ask(&mut Context::from_waker(Waker::noop()));
            if asked.has_ended || asked.next.is_some() {
                break;
            }
        }
        asked
    }

    /// Waits until it is known whether there is anything in it. With the head of a request that
    /// announces no bytes its server has all of it, so that is sent once there are none.
    pub async fn known(&mut self) {
        std::future::poll_fn(|cx| {
            self.ask(cx);
            if self.has_ended || self.next.is_some() { Poll::Ready(()) } else { Poll::Pending }
        })
        .await;
    }

    /// Why it is not to be sent as one of so many bytes, if that is known before.
    pub fn fault(&self, announced: u64) -> Option<Failure> {
        match &self.next.as_ref()?.0 {
            Err(failure) => Some(*failure),
            Ok(first) => {
                let bytes = first.data_ref().map_or(0, |data| data.len() as u64);
                (bytes > announced).then_some(Failure::Body)
            }
        }
    }

    /// Asks for the next piece, which is kept.
    fn ask(&mut self, cx: &mut Context<'_>) {
        if self.has_ended || self.next.is_some() {
            return;
        }
        let hint = self.body.size_hint();
        match Pin::new(&mut self.body).poll_frame(cx) {
            // Nothing is known by it. It is asked again, in its turn.
            Poll::Ready(Some(Ok(piece))) if piece.data_ref().is_some_and(Bytes::is_empty) => {
                cx.waker().wake_by_ref();
            }
            Poll::Ready(Some(piece)) => self.next = Some((piece, hint)),
            Poll::Ready(None) => self.has_ended = true,
            Poll::Pending => {}
        }
    }
}

/// Lets the others of the same executor have a turn, and goes on in the order in which it came:
/// tokio's `yield_now` takes the last first, and so the last of many requests would be the first.
async fn pause() {
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

impl Body for Outgoing {
    type Data = Bytes;
    type Error = Failure;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Failure>>> {
        match self.next.take() {
            Some((piece, _)) => Poll::Ready(Some(piece)),
            None if self.has_ended => Poll::Ready(None),
            None => Pin::new(&mut self.body).poll_frame(cx),
        }
    }

    fn is_end_stream(&self) -> bool {
        self.has_ended || self.next.is_none() && self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.next.as_ref().map_or_else(|| self.body.size_hint(), |(_, hint)| *hint)
    }
}

/// Whose turn it is with a request's body. Until the guest is asked, it is the server's. Of a body
/// that is passed on, the guest is the client.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Turn {
    /// The guest's: it has to give more.
    Guest,
    /// The server's, which has the last piece so far.
    Server,
    /// Everything is sent.
    Nobody,
}

/// How far a request's body has come, for both directions to see.
#[derive(Clone)]
pub struct Progress(Arc<Marks>);

struct Marks {
    began: Instant,
    /// Milliseconds since then, times four, and the turn.
    last: AtomicU64,
}

impl Progress {
    fn new(turn: Turn) -> Self {
        let progress = Progress(Arc::new(Marks { began: Instant::now(), last: AtomicU64::new(0) }));
        progress.set(turn);
        progress
    }

    fn set(&self, turn: Turn) {
        let ms = self.0.began.elapsed().as_millis() as u64;
        self.0.last.store(ms << 2 | turn as u64, Ordering::Relaxed);
    }

    /// Whose turn it is, and since when.
    pub fn get(&self) -> (Turn, Instant) {
        let last = self.0.last.load(Ordering::Relaxed);
        let turn = match last & 3 {
            0 => Turn::Guest,
            1 => Turn::Server,
            _ => Turn::Nobody,
        };
        (turn, self.0.began + Duration::from_millis(last >> 2))
    }
}

/// A request's body as hyper pulls it.
pub struct Upload {
    body: Outgoing,
    progress: Progress,
    /// Bytes that are still to come, where the guest has said how many.
    left: Option<u64>,
    /// Whether it is sent with its length alone: once hyper has so much, it lets go of the body
    /// without a look at its end.
    ends_by_length: bool,
    /// Told how it ended.
    ended: Option<oneshot::Sender<Result<(), Failure>>>,
    /// Of the connection: that its server takes something of the guest's.
    heard: Option<Heard>,
}

impl Upload {
    /// The body, how far it is, and what is told of its end. `left` is how long the guest has said
    /// that it is, `is_trailed` whether something comes behind it.
    pub fn new(
        body: Outgoing,
        left: Option<u64>,
        is_trailed: bool,
    ) -> (Self, Progress, oneshot::Receiver<Result<(), Failure>>) {
        let is_empty = body.is_end_stream();
        let progress = Progress::new(if is_empty { Turn::Nobody } else { Turn::Server });
        let (ended, end) = oneshot::channel();
        let mut upload = Upload {
            body,
            progress: progress.clone(),
            left,
            ends_by_length: !is_trailed,
            ended: Some(ended),
            heard: None,
        };
        if is_empty {
            upload.end(Ok(()));
        }
        (upload, progress, end)
    }

    /// Counts a piece, or the end, against what the guest has announced. With the last byte of that
    /// it is looked whether there is more: the server would take the beginning of a body that is
    /// too long for a whole one.
    fn count(&mut self, piece: Option<&Frame<Bytes>>, cx: &mut Context<'_>) -> Result<(), Failure> {
        let Some(left) = self.left else { return Ok(()) };
        let data = piece.and_then(Frame::data_ref);
        let left = left.checked_sub(data.map_or(0, |data| data.len() as u64));
        let left = left.ok_or(Failure::Body)?;
        self.left = Some(left);
        if left > 0 {
            // Behind trailers, and behind the end, nothing comes.
            let is_open = data.is_some() && !self.body.is_end_stream();
            return if is_open { Ok(()) } else { Err(Failure::Body) };
        }
        self.body.ask(cx);
        match &self.body.next {
            Some((Err(failure), _)) => Err(*failure),
            Some((Ok(more), _)) if more.data_ref().is_some_and(|data| !data.is_empty()) => {
                Err(Failure::Body)
            }
            _ => Ok(()),
        }
    }

    fn end(&mut self, result: Result<(), Failure>) {
        self.progress.set(Turn::Nobody);
        if let Some(ended) = self.ended.take() {
            // It fails where nobody asks.
            let _ = ended.send(result);
        }
    }
}

impl Sent for Upload {
    fn none() -> Self {
        let none = Empty::new().map_err(|never| match never {}).boxed_unsync();
        let body = Outgoing { body: none, next: None, has_ended: true };
        let progress = Progress::new(Turn::Nobody);
        Upload { body, progress, left: None, ends_by_length: true, ended: None, heard: None }
    }

    fn go_by(&mut self, heard: &Heard) {
        self.heard = Some(heard.clone());
    }
}

impl Body for Upload {
    type Data = Bytes;
    type Error = Failure;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Failure>>> {
        let this = &mut *self;
        let Poll::Ready(piece) = Pin::new(&mut this.body).poll_frame(cx) else {
            this.progress.set(Turn::Guest);
            return Poll::Pending;
        };
        let piece = piece.transpose();
        let piece = piece.and_then(|piece| this.count(piece.as_ref(), cx).map(|()| piece));
        if let (Ok(Some(_)), Some(heard)) = (&piece, &this.heard) {
            // What a server says to what it takes, as that it takes more, is not for nobody.
            heard.note();
        }
        match &piece {
            Ok(Some(_)) if !this.body.is_end_stream() => this.progress.set(Turn::Server),
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
impl Drop for Upload {
    fn drop(&mut self) {
        let is_whole = self.left == Some(0) && self.ends_by_length;
        self.end(if is_whole { Ok(()) } else { Err(Failure::Terminated) });
    }
}

/// A response's body as the guest reads it. Dropping it ends the exchange.
pub struct Returning {
    body: Incoming,
    progress: Progress,
    /// The longest pause.
    pause_max: Duration,
    pause: Option<Pin<Box<Sleep>>>,
    /// Of the connection: that the guest gets something of it.
    heard: Heard,
    is_h2: bool,
    /// Tells the exchange that the body is complete, or is read no more.
    over: Option<oneshot::Sender<bool>>,
}

/// Whether a body that has ended was broken off: hyper takes a stream of HTTP/2 that is reset
/// without an error for one that has ended. A server that wants no more of the request may do so
/// behind its response (RFC 9113, 8.1), whose end h2 keeps in mind then.
pub fn is_broken_off(body: &Incoming, is_h2: bool) -> bool {
    is_h2 && !body.is_end_stream()
}

impl Returning {
    /// A body, and what is told whether it was read to its end. Its connection may be of HTTP/2.
    pub fn new(
        body: Incoming,
        progress: Progress,
        pause_max: Duration,
        (heard, is_h2): (Heard, bool),
    ) -> (Self, oneshot::Receiver<bool>) {
        let (over, end) = oneshot::channel();
        let over = Some(over);
        let mut returning =
            Returning { body, progress, pause_max, pause: None, heard, is_h2, over };
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
                (Turn::Guest, _) => pause.set(tokio::time::sleep(max)),
                (_, since) if since + max > now => {
                    pause.set(tokio::time::sleep_until((since + max).into()));
                }
                _ => return Poll::Ready(()),
            }
        }
    }
}

impl Body for Returning {
    type Data = Bytes;
    type Error = Failure;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Failure>>> {
        let this = &mut *self;
        let Poll::Ready(frame) = Pin::new(&mut this.body).poll_frame(cx) else {
            return this.poll_pause(cx).map(|()| {
                this.end(false);
                Some(Err(Failure::ReadTimeout))
            });
        };
        this.pause = None;
        this.heard.note();
        if frame.is_none() && is_broken_off(&this.body, this.is_h2) {
            this.end(false);
            return Poll::Ready(Some(Err(Failure::Incomplete)));
        }
        match &frame {
            Some(Ok(_)) if !this.body.is_end_stream() => {}
            Some(Ok(_)) | None => this.end(true),
            Some(Err(_)) => this.end(false),
        }
        Poll::Ready(frame.map(|frame| frame.map_err(|error| Failure::of_body(&error))))
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

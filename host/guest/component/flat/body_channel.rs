//! The channel for a response's body from a guest of 0.3 to its client: one piece, and how the body
//! ends.
//!
//! Shared by the instance, which may be in the slow lane, and the connection. A body ends well only
//! if the guest says so: when its instance is gone, it fails.

use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};

use bytes::Bytes;
use http::HeaderMap;
use http_body::{Body, Frame};
use wasmtime_wasi_http::Error;

/// The guest's end of the channel.
pub struct BodySender(Arc<Mutex<ChannelState>>);

/// The client's end of the channel.
pub struct ChannelBody(Arc<Mutex<ChannelState>>);

/// Observes how far the client has read.
pub struct BodyCompletion(Arc<Mutex<ChannelState>>);

#[derive(Default)]
struct ChannelState {
    piece: Option<Bytes>,
    /// Whether the guest has written its last piece.
    is_closed: bool,
    /// How the body ends, once the guest has said so.
    end: Option<Result<Option<HeaderMap>, Error>>,
    completion: Completion,
    /// Wake the task that waits to read, and the one that waits to write.
    reader: Option<Waker>,
    writer: Option<Waker>,
}

/// What the client has done with a body.
#[derive(Clone, Copy, Default, PartialEq, Eq)]
pub enum Completion {
    /// It may read more.
    #[default]
    Open,
    /// It has read all of it.
    Read,
    /// It reads no more.
    Dropped,
}

fn lock(shared: &Mutex<ChannelState>) -> MutexGuard<'_, ChannelState> {
    shared.lock().unwrap_or_else(PoisonError::into_inner)
}

impl ChannelState {
    fn wake_reader(&mut self) {
        if let Some(reader) = self.reader.take() {
            reader.wake();
        }
    }

    fn wake_writer(&mut self) {
        if let Some(writer) = self.writer.take() {
            writer.wake();
        }
    }
}

/// Makes the channel of a new body.
pub fn body_channel() -> (BodySender, BodyCompletion, ChannelBody) {
    let shared = Arc::<Mutex<ChannelState>>::default();
    (BodySender(shared.clone()), BodyCompletion(shared.clone()), ChannelBody(shared))
}

impl BodyCompletion {
    /// What the client has done so far. While the body is open, `waker` is woken by a change.
    pub fn completion(&self, waker: &Waker) -> Completion {
        let mut shared = lock(&self.0);
        if shared.completion == Completion::Open {
            shared.writer = Some(waker.clone());
        }
        shared.completion
    }
}

impl BodySender {
    /// Whether there is room for a piece. If not, `waker` is woken when there is, or when the
    /// client reads no more.
    pub fn has_capacity(&self, waker: &Waker) -> bool {
        let mut shared = lock(&self.0);
        if shared.piece.is_none() {
            return true;
        }
        shared.writer = Some(waker.clone());
        false
    }

    /// Puts a piece in. There has to be room for it.
    pub fn put(&self, piece: Bytes) {
        let mut shared = lock(&self.0);
        shared.piece = Some(piece);
        shared.wake_reader();
    }

    /// Says that no more pieces come.
    pub fn close(&self) {
        let mut shared = lock(&self.0);
        shared.is_closed = true;
        shared.wake_reader();
    }

    /// Says how the body ends after its last piece.
    pub fn end(&self, end: Result<Option<HeaderMap>, Error>) {
        let mut shared = lock(&self.0);
        shared.end = Some(end);
        shared.wake_reader();
    }

    /// Whether the client reads no more.
    pub fn is_dropped(&self) -> bool {
        lock(&self.0).completion == Completion::Dropped
    }
}

/// Without an end from the guest, the body fails.
impl Drop for BodySender {
    fn drop(&mut self) {
        let mut shared = lock(&self.0);
        shared.is_closed = true;
        shared.end.get_or_insert(Err(Error::HttpResponseIncomplete));
        shared.wake_reader();
    }
}

impl Body for ChannelBody {
    type Data = Bytes;
    type Error = Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Error>>> {
        let mut shared = lock(&self.0);
        if let Some(piece) = shared.piece.take() {
            shared.wake_writer();
            return Poll::Ready(Some(Ok(Frame::data(piece))));
        }
        if shared.completion == Completion::Read {
            return Poll::Ready(None);
        }
        let end = if shared.is_closed { shared.end.take() } else { None };
        let Some(end) = end else {
            if !shared.reader.as_ref().is_some_and(|reader| reader.will_wake(cx.waker())) {
                shared.reader = Some(cx.waker().clone());
            }
            return Poll::Pending;
        };
        shared.completion = if end.is_ok() { Completion::Read } else { Completion::Dropped };
        shared.wake_writer();
        Poll::Ready(match end {
            Ok(None) => None,
            Ok(Some(trailers)) => Some(Ok(Frame::trailers(trailers))),
            Err(error) => Some(Err(error)),
        })
    }
}

impl Drop for ChannelBody {
    fn drop(&mut self) {
        let mut shared = lock(&self.0);
        if shared.completion == Completion::Open {
            shared.completion = Completion::Dropped;
            shared.wake_writer();
        }
    }
}

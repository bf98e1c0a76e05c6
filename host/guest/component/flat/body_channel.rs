//! A response's body on its way from a guest of 0.3 to its client: one piece, and how it ends.
//!
//! Shared by the instance, which may be in the slow lane, and the connection. A body ends well only
//! if the guest says so: one whose instance is gone never looks whole.

use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};

use bytes::Bytes;
use http::HeaderMap;
use http_body::{Body, Frame};
use wasmtime_wasi_http::Error;

/// The guest's end.
pub struct BodySender(Arc<Mutex<ChannelState>>);

/// The client's end.
pub struct ChannelBody(Arc<Mutex<ChannelState>>);

/// Sees what becomes of it.
pub struct BodyCompletion(Arc<Mutex<ChannelState>>);

#[derive(Default)]
struct ChannelState {
    piece: Option<Bytes>,
    /// No more pieces come.
    is_closed: bool,
    /// How it ends, once the guest has said so.
    end: Option<Result<Option<HeaderMap>, Error>>,
    completion: Completion,
    /// Whoever waits for something to read, and for room to write.
    reader: Option<Waker>,
    writer: Option<Waker>,
}

/// What has become of a body.
#[derive(Clone, Copy, Default, PartialEq, Eq)]
pub enum Completion {
    #[default]
    Open,
    /// It was read to its end.
    Read,
    /// Nobody reads it any more.
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

/// The ends of a new body.
pub fn body_channel() -> (BodySender, BodyCompletion, ChannelBody) {
    let shared = Arc::<Mutex<ChannelState>>::default();
    (BodySender(shared.clone()), BodyCompletion(shared.clone()), ChannelBody(shared))
}

impl BodyCompletion {
    /// What has become of it so far; if nothing, `waker` is told when something has.
    pub fn completion(&self, waker: &Waker) -> Completion {
        let mut shared = lock(&self.0);
        if shared.completion == Completion::Open {
            shared.writer = Some(waker.clone());
        }
        shared.completion
    }
}

impl BodySender {
    /// Whether there is room for a piece; if not, `waker` is told when there is or will be none.
    pub fn has_capacity(&self, waker: &Waker) -> bool {
        let mut shared = lock(&self.0);
        if shared.piece.is_none() {
            return true;
        }
        shared.writer = Some(waker.clone());
        false
    }

    /// Puts a piece where there is room.
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

    /// Says how it ends, behind the last piece.
    pub fn end(&self, end: Result<Option<HeaderMap>, Error>) {
        let mut shared = lock(&self.0);
        shared.end = Some(end);
        shared.wake_reader();
    }

    /// Whether nobody reads it any more.
    pub fn is_dropped(&self) -> bool {
        lock(&self.0).completion == Completion::Dropped
    }
}

/// Nobody is left who could say how it ends.
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

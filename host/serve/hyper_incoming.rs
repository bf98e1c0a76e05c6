//! A request's body on its way here, as hyper reads it.
//!
//! Owns which of hyper's errors is whose fault. The body is read wherever its guest runs; how it
//! gets on is told to [`BodyProgress`], at which its worker's reaper looks.

use std::error::Error as _;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use hyper::body::Incoming;

use crate::message::Reject;
use crate::message::body_progress::BodyProgress;

/// A body as it arrives, with hyper's errors as rejects.
pub struct HyperIncoming {
    body: Incoming,
    progress: Arc<BodyProgress>,
}

impl HyperIncoming {
    pub fn new(body: Incoming) -> (Self, Arc<BodyProgress>) {
        let progress = Arc::<BodyProgress>::default();
        (HyperIncoming { body, progress: progress.clone() }, progress)
    }
}

impl Body for HyperIncoming {
    type Data = Bytes;
    type Error = Reject;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Reject>>> {
        // What comes is told to it, as a guest may ask and never look again.
        let told = Waker::from(self.progress.clone());
        self.progress.register(cx.waker());
        let polled = Pin::new(&mut self.body).poll_frame(&mut Context::from_waker(&told));
        let progress = &self.progress;
        match &polled {
            Poll::Pending if progress.has_expired() => {
                return Poll::Ready(Some(Err(Reject::BodyTimeout)));
            }
            Poll::Pending => progress.note_pending(),
            Poll::Ready(frame) => {
                let bytes = frame.as_ref().and_then(|frame| frame.as_ref().ok()?.data_ref());
                let is_end = frame.is_none() || self.body.is_end_stream();
                progress.note_received(bytes.map_or(0, |it| it.len() as u64), is_end);
            }
        }
        polled.map_err(|error| reject(&error))
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

/// Whose fault it is that a body has ended: where its connection has, hyper tells that by the error
/// behind its own.
fn reject(error: &hyper::Error) -> Reject {
    use std::io::ErrorKind::{BrokenPipe, ConnectionAborted, ConnectionReset, UnexpectedEof};
    let io = error.source().and_then(|source| source.downcast_ref::<std::io::Error>());
    let by_io = io.is_some_and(|io| {
        [BrokenPipe, ConnectionAborted, ConnectionReset, UnexpectedEof].contains(&io.kind())
    });
    let by_hyper = error.is_incomplete_message() || error.is_closed() || error.is_canceled();
    if by_hyper || by_io { Reject::ClientGone } else { Reject::BodyBroken }
}

impl Drop for HyperIncoming {
    fn drop(&mut self) {
        self.progress.note_dropped();
    }
}

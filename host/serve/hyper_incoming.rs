//! A request's body, as hyper receives it.
//!
//! Owns which of hyper's errors are the client's fault. The body may be read on another thread,
//! where its guest runs. It reports to [`BodyProgress`], which the worker's reaper checks.

use std::error::Error as _;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use hyper::body::Incoming;

use crate::message::Reject;
use crate::message::body_progress::BodyProgress;

/// A body that arrives over time, with hyper's errors turned into rejects.
pub struct HyperIncoming {
    body: Incoming,
    progress: Arc<BodyProgress>,
}

impl HyperIncoming {
    /// Wraps hyper's body and returns it with its progress.
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
        // hyper wakes the progress, which wakes the guest. So arrivals are noted even if the guest
        // never polls again.
        let waker = Waker::from(self.progress.clone());
        self.progress.register(cx.waker());
        let polled = Pin::new(&mut self.body).poll_frame(&mut Context::from_waker(&waker));
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

/// Turns hyper's error into a reject. If the connection has ended, that shows in the IO error that
/// is the source of hyper's error.
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

//! A request's body on its way here: whether somebody waits for it, and whether it moves.
//!
//! Owns how slowly a body may come. The body is read wherever its guest runs, and looked at by its
//! worker's reaper.

use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use hyper::body::Incoming;

use super::guard;
use crate::message::Reject;

/// A body as it arrives, with hyper's errors as rejects.
pub struct Arriving {
    body: Incoming,
    progress: Arc<Progress>,
}

/// How a body gets on.
#[derive(Default)]
pub struct Progress {
    bytes: AtomicU64,
    /// All of it is here.
    ended: AtomicBool,
    /// It comes too slowly.
    expired: AtomicBool,
    /// Who waits for it. The reaper never waits for this lock.
    waiting: Mutex<Option<Waker>>,
    /// What the reaper saw last, in ticks of its clock: for how long it has been waited for in all,
    /// when it moved last, and how much of it had come by then.
    waited: AtomicU32,
    moved_at: AtomicU32,
    seen: AtomicU64,
}

impl Arriving {
    pub fn new(body: Incoming) -> (Self, Arc<Progress>) {
        let progress = Arc::<Progress>::default();
        (Arriving { body, progress: progress.clone() }, progress)
    }
}

impl Progress {
    pub fn has_ended(&self) -> bool {
        self.ended.load(Ordering::Relaxed)
    }

    fn wait(&self, waker: Option<Waker>) {
        *self.waiting.lock().unwrap_or_else(PoisonError::into_inner) = waker;
    }

    /// Looks, `ticks` after the last look, whether the body comes too slowly while it is waited
    /// for. Ends the wait if it does.
    pub fn look(&self, now: u32, ticks: u32, stall_max: Duration) {
        let Ok(mut waiting) = self.waiting.try_lock() else { return };
        let bytes = self.bytes.load(Ordering::Relaxed);
        if waiting.is_none() || self.seen.swap(bytes, Ordering::Relaxed) != bytes {
            self.moved_at.store(now, Ordering::Relaxed);
        }
        if waiting.is_none() {
            return;
        }
        let waited = self.waited.fetch_add(ticks, Ordering::Relaxed) + ticks;
        let still = guard::elapsed(self.moved_at.load(Ordering::Relaxed), now);
        let waited = guard::ticks(waited);
        if still > stall_max || waited > guard::time_for(bytes, stall_max) {
            self.expired.store(true, Ordering::Relaxed);
            waiting.take().inspect(Waker::wake_by_ref);
        }
    }
}

impl Body for Arriving {
    type Data = Bytes;
    type Error = Reject;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Reject>>> {
        let polled = Pin::new(&mut self.body).poll_frame(cx);
        let progress = &self.progress;
        match &polled {
            Poll::Pending if progress.expired.load(Ordering::Relaxed) => {
                return Poll::Ready(Some(Err(Reject::BodyTimeout)));
            }
            Poll::Pending => progress.wait(Some(cx.waker().clone())),
            Poll::Ready(frame) => {
                progress.wait(None);
                let bytes = frame.as_ref().and_then(|frame| frame.as_ref().ok()?.data_ref());
                progress.bytes.fetch_add(bytes.map_or(0, |it| it.len() as u64), Ordering::Relaxed);
                if frame.is_none() || self.body.is_end_stream() {
                    progress.ended.store(true, Ordering::Relaxed);
                }
            }
        }
        polled.map_err(|error| {
            let gone = error.is_incomplete_message() || error.is_closed() || error.is_canceled();
            if gone { Reject::ClientGone } else { Reject::BodyBroken }
        })
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

//! A client's request body on its way to the upstream.
//!
//! Owns the progress of such a body: it occupies its connection until it has ended.

use std::cell::Cell;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};
use std::time::Instant;

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};

use super::body::AwaitedParty;
use super::outbound_connection::UploadBody;
use super::paced_stream::UnconsumedBytes;
use crate::message::{Reject, RequestBody};

/// A client's request body, as hyper sends it.
#[derive(Default)]
pub struct ForwardedBody {
    body: RequestBody,
    /// `None` for a request without a body.
    progress: Option<Rc<ForwardProgress>>,
    /// The connection's counter, which is reset whenever the server takes a piece.
    unconsumed: Option<UnconsumedBytes>,
}

/// How far a forwarded body has come.
pub struct ForwardProgress {
    /// Which side is awaited, and since when. `Guest` stands for the client.
    awaited: Cell<(AwaitedParty, Instant)>,
    /// Whether hyper has taken all of the body.
    is_whole: Cell<bool>,
    /// Why the body has failed, if it has.
    reject: Cell<Option<Reject>>,
}

impl ForwardProgress {
    /// Which side is awaited, and since when. `Guest` stands for the client.
    pub fn awaited(&self) -> (AwaitedParty, Instant) {
        self.awaited.get()
    }

    /// Whether hyper has taken all of the body.
    pub fn is_whole(&self) -> bool {
        self.is_whole.get()
    }

    /// Why the body has failed, if it has.
    pub fn reject(&self) -> Option<Reject> {
        self.reject.get()
    }

    fn set(&self, turn: AwaitedParty) {
        self.awaited.set((turn, Instant::now()));
    }
}

impl ForwardedBody {
    /// Wraps a request's body, which has not been polled yet.
    pub fn new(body: RequestBody) -> Self {
        let start = || {
            let awaited = Cell::new((AwaitedParty::Server, Instant::now()));
            Rc::new(ForwardProgress {
                awaited,
                is_whole: Cell::new(false),
                reject: Cell::new(None),
            })
        };
        let progress = (!body.is_end_stream()).then(start);
        ForwardedBody { body, progress, unconsumed: None }
    }

    /// The progress of the body; `None` for a request without one.
    pub fn progress(&self) -> Option<&Rc<ForwardProgress>> {
        self.progress.as_ref()
    }
}

impl UploadBody for ForwardedBody {
    fn empty() -> Self {
        ForwardedBody::default()
    }

    fn bind_counter(&mut self, unconsumed: &UnconsumedBytes) {
        self.unconsumed = self.progress.is_some().then(|| unconsumed.clone());
    }
}

impl Body for ForwardedBody {
    type Data = Bytes;
    type Error = Reject;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Reject>>> {
        let this = &mut *self;
        let polled = Pin::new(&mut this.body).poll_frame(cx);
        let Some(upload) = &this.progress else { return polled };
        match &polled {
            Poll::Pending => upload.set(AwaitedParty::Guest),
            Poll::Ready(Some(Ok(_))) => {
                upload.set(AwaitedParty::Server);
                // Bytes that a server sends because it takes the body (window updates) are of use.
                this.unconsumed.iter().for_each(UnconsumedBytes::reset);
                upload.is_whole.set(this.body.is_end_stream());
            }
            Poll::Ready(None) => {
                upload.is_whole.set(true);
                upload.set(AwaitedParty::Nobody);
            }
            Poll::Ready(Some(Err(reject))) => {
                upload.reject.set(Some(*reject));
                upload.set(AwaitedParty::Nobody);
            }
        }
        polled
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

/// hyper drops the body when it is sent, or when the server takes no more of it.
impl Drop for ForwardedBody {
    fn drop(&mut self) {
        if let Some(upload) = &self.progress {
            upload.set(AwaitedParty::Nobody);
        }
    }
}

//! A client's request body on its way to a server that whoever runs the host has named.
//!
//! Owns how far such a body is: until it has ended, it takes up its connection.

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

/// The body as hyper pulls it.
#[derive(Default)]
pub struct ForwardedBody {
    body: RequestBody,
    /// `None` where there is none.
    progress: Option<Rc<ForwardProgress>>,
    /// Of the connection: that its server takes something.
    unconsumed: Option<UnconsumedBytes>,
}

/// How far it is.
pub struct ForwardProgress {
    /// Whose turn it is, and since when. The guest's is the client's.
    awaited: Cell<(AwaitedParty, Instant)>,
    /// Whether all of it was taken.
    is_whole: Cell<bool>,
    /// What it ended with, if that is no good end.
    reject: Cell<Option<Reject>>,
}

impl ForwardProgress {
    pub fn awaited(&self) -> (AwaitedParty, Instant) {
        self.awaited.get()
    }

    pub fn is_whole(&self) -> bool {
        self.is_whole.get()
    }

    pub fn reject(&self) -> Option<Reject> {
        self.reject.get()
    }

    fn set(&self, turn: AwaitedParty) {
        self.awaited.set((turn, Instant::now()));
    }
}

impl ForwardedBody {
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
                // What a server says to what it takes, as that it takes more, is not for nobody.
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

/// hyper lets go of one that is sent, or that nobody takes any more.
impl Drop for ForwardedBody {
    fn drop(&mut self) {
        if let Some(upload) = &self.progress {
            upload.set(AwaitedParty::Nobody);
        }
    }
}

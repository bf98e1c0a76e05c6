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

use super::body::Turn;
use super::link::Sent;
use super::paced::Heard;
use crate::message::{Reject, RequestBody};

/// The body as hyper pulls it.
#[derive(Default)]
pub struct Passing {
    body: RequestBody,
    /// `None` where there is none.
    upload: Option<Rc<Upload>>,
    /// Of the connection: that its server takes something.
    heard: Option<Heard>,
}

/// How far it is.
pub struct Upload {
    /// Whose turn it is, and since when. The guest's is the client's.
    turn: Cell<(Turn, Instant)>,
    /// Whether all of it was taken.
    is_whole: Cell<bool>,
    /// What it ended with, if that is no good end.
    reject: Cell<Option<Reject>>,
}

impl Upload {
    pub fn turn(&self) -> (Turn, Instant) {
        self.turn.get()
    }

    pub fn is_whole(&self) -> bool {
        self.is_whole.get()
    }

    pub fn reject(&self) -> Option<Reject> {
        self.reject.get()
    }

    fn set(&self, turn: Turn) {
        self.turn.set((turn, Instant::now()));
    }
}

impl Passing {
    pub fn new(body: RequestBody) -> Self {
        let start = || {
            let turn = Cell::new((Turn::Server, Instant::now()));
            Rc::new(Upload { turn, is_whole: Cell::new(false), reject: Cell::new(None) })
        };
        let upload = (!body.is_end_stream()).then(start);
        Passing { body, upload, heard: None }
    }

    pub fn upload(&self) -> Option<&Rc<Upload>> {
        self.upload.as_ref()
    }
}

impl Sent for Passing {
    fn none() -> Self {
        Passing::default()
    }

    fn go_by(&mut self, heard: &Heard) {
        self.heard = self.upload.is_some().then(|| heard.clone());
    }
}

impl Body for Passing {
    type Data = Bytes;
    type Error = Reject;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Reject>>> {
        let this = &mut *self;
        let polled = Pin::new(&mut this.body).poll_frame(cx);
        let Some(upload) = &this.upload else { return polled };
        match &polled {
            Poll::Pending => upload.set(Turn::Guest),
            Poll::Ready(Some(Ok(_))) => {
                upload.set(Turn::Server);
                // What a server says to what it takes, as that it takes more, is not for nobody.
                this.heard.iter().for_each(Heard::note);
                upload.is_whole.set(this.body.is_end_stream());
            }
            Poll::Ready(None) => {
                upload.is_whole.set(true);
                upload.set(Turn::Nobody);
            }
            Poll::Ready(Some(Err(reject))) => {
                upload.reject.set(Some(*reject));
                upload.set(Turn::Nobody);
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
impl Drop for Passing {
    fn drop(&mut self) {
        if let Some(upload) = &self.upload {
            upload.set(Turn::Nobody);
        }
    }
}

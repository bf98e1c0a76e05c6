//! A response's body that is passed on as it comes, and what its connection is told of its end.
//!
//! Owns that a body which breaks off never looks whole: an HTTP/1.0 client is sent neither a length
//! nor chunks with it, so the end of the connection is the end of the body, and only a connection
//! that is reset tells that there was more. And that what came before it breaks off is sent: a
//! client that gets nothing at all takes its request for one that nobody has seen, and asks again.

use std::convert::Infallible;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use http_body_util::{BodyExt as _, Empty};

use super::exchange::Exchange;
use crate::message::{BodyStream, Reject};

/// Has a body tell its connection when it is over. A client that holds its own body back until it
/// is told to send it is told now if that may still be read: behind the head it could not be told.
pub fn attach_exchange(body: &mut BodyStream, exchange: Exchange) {
    let nothing: BodyStream = Box::pin(Empty::new().map_err(never));
    let body_before = std::mem::replace(body, nothing);
    exchange.stream();
    let state = exchange.state();
    let is_told = || exchange.connection().send_continue();
    if state.awaits_continue() && state.is_body_open() && is_told() {
        state.note_continue_sent();
    }
    drop(state);
    *body = Box::pin(StreamingBody::new(body_before, exchange));
}

/// A body on its way out.
struct StreamingBody {
    body: BodyStream,
    /// Ends with it: hyper drops it behind its last byte, or with the connection.
    _exchange: Exchange,
    /// Why it has broken off, which is said when all before it is written.
    broken: Option<Reject>,
}

impl StreamingBody {
    /// Passes a body on. Until the connection has ended well, it is reset where it is closed, if
    /// nothing else tells its client that the body was cut off.
    fn new(body: BodyStream, exchange: Exchange) -> Self {
        if exchange.state().is_http10() && body.size_hint().exact().is_none() {
            exchange.connection().reset_on_close(true);
        }
        StreamingBody { body, _exchange: exchange, broken: None }
    }
}

impl Body for StreamingBody {
    type Data = Bytes;
    type Error = Reject;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Reject>>> {
        if let Some(reject) = self.broken.take() {
            return Poll::Ready(Some(Err(reject)));
        }
        match self.body.as_mut().poll_frame(cx) {
            // hyper drops what it has not written yet, and it writes when there is no more to take.
            Poll::Ready(Some(Err(reject))) => {
                self.broken = Some(reject);
                cx.waker().wake_by_ref();
                Poll::Pending
            }
            polled => polled,
        }
    }

    fn is_end_stream(&self) -> bool {
        self.broken.is_none() && self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

fn never(never: Infallible) -> Reject {
    match never {}
}

//! A streamed response body, which ends the request's [`Exchange`] when it ends.
//!
//! Owns two promises. A body that breaks off never looks complete: for an HTTP/1.0 client a stream
//! has neither a length nor chunks and ends with the connection, so only a TCP reset shows that
//! something is missing. And the part before the break is sent: a client that gets nothing at all
//! would assume that its request was not seen, and send it again.

use std::convert::Infallible;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use http_body_util::{BodyExt as _, Empty};

use super::exchange::Exchange;
use crate::message::{BodyStream, Reject};

/// Attaches a request's exchange to its response body, so that both end together.
///
/// Also sends `100 Continue` if the client waits for it and something still reads the request's
/// body: after the response's head it is too late for that.
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

/// A response body that is being sent.
struct StreamingBody {
    body: BodyStream,
    /// Ends with the body: hyper drops the body after its last byte, or with the connection.
    _exchange: Exchange,
    /// Why the body has broken off. hyper gets this error once all bytes before it are written.
    broken: Option<Reject>,
}

impl StreamingBody {
    /// Wraps a body. If the client could not see that it was cut off, closing the connection sends
    /// a TCP reset until the connection has ended well.
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
            // On an error, hyper drops what it has not written yet. It writes when the body is
            // pending, so return that first and the error at the next poll.
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

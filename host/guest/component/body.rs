//! The two bodies of a call: the request's on its way to the guest, and the response's on its way
//! from it.
//!
//! Owns what happens when a request's body fails.

use std::pin::Pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll};

use bytes::Bytes;
use http_body::{Frame, SizeHint};
use wasmtime_wasi_http::{Error, WasiBody};

use crate::guest::schedule::ByteCounter;
use crate::message::{Reject, RequestBody};

/// A response's body as it comes out of the guest's store.
pub type GuestResponseBody = WasiBody;

/// A request's body on its way to the guest.
pub struct GuestRequestBody {
    /// The body as the server reads it.
    pub body: RequestBody,
    /// Observes the body for the call, if there is one.
    pub monitor: Option<Arc<BodyMonitor>>,
    /// Counts the bytes that the guest has read.
    pub moved_bytes: ByteCounter,
}

/// What the call knows of a request's body while the guest has it.
#[derive(Default)]
pub struct BodyMonitor {
    fault: OnceLock<Reject>,
    polls: AtomicUsize,
}

impl BodyMonitor {
    /// Why the body has failed, if it has. The guest sees an error; if it then fails, too, the
    /// client is told this.
    pub fn fault(&self) -> Option<Reject> {
        self.fault.get().copied()
    }

    /// How often the body has been polled.
    pub fn polls(&self) -> usize {
        self.polls.load(Ordering::Relaxed)
    }
}

impl http_body::Body for GuestRequestBody {
    type Data = Bytes;
    type Error = Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Error>>> {
        if let Some(monitor) = &self.monitor {
            monitor.polls.fetch_add(1, Ordering::Relaxed);
        }
        let polled = Pin::new(&mut self.body).poll_frame(cx);
        if let Poll::Ready(Some(Ok(frame))) = &polled {
            self.moved_bytes.add(frame.data_ref().map_or(0, |data| data.len() as u64));
        }
        polled.map_err(|reject| {
            if let Some(monitor) = &self.monitor {
                monitor.fault.get_or_init(|| reject);
            }
            error(reject)
        })
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

/// The error that the guest sees when a request's body fails.
fn error(reject: Reject) -> Error {
    match reject {
        Reject::BodyTooLarge => Error::HttpRequestBodySize(None),
        Reject::BodyTimeout => Error::ConnectionReadTimeout,
        Reject::ClientGone => Error::ConnectionTerminated,
        _ => Error::HttpProtocolError,
    }
}

//! The two bodies of a call: a request's as it arrives at the guest, and a response's as it leaves
//! it.
//!
//! Owns what is done about a body that is not what was announced.

use std::pin::Pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll};

use bytes::Bytes;
use http_body::{Frame, SizeHint};
use wasmtime_wasi_http::{Error, WasiBody};

use crate::guest::schedule::ByteCounter;
use crate::message::{Reject, RequestBody};

/// A response's body, as the guest's end of it hands it out.
pub type GuestResponseBody = WasiBody;

/// A request's body on its way to the guest.
pub struct GuestRequestBody {
    pub body: RequestBody,
    pub monitor: Option<Arc<BodyMonitor>>,
    pub moved_bytes: ByteCounter,
}

/// What is known of a request's body while the guest has it.
#[derive(Default)]
pub struct BodyMonitor {
    fault: OnceLock<Reject>,
    polls: AtomicUsize,
}

impl BodyMonitor {
    /// Why it came to a bad end, if it did. The guest learns that there was an error; if it then
    /// fails for it, this is what the client is told.
    pub fn fault(&self) -> Option<Reject> {
        self.fault.get().copied()
    }

    /// How often somebody has asked for more of it.
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
        if let Some(watch) = &self.monitor {
            watch.polls.fetch_add(1, Ordering::Relaxed);
        }
        let polled = Pin::new(&mut self.body).poll_frame(cx);
        if let Poll::Ready(Some(Ok(frame))) = &polled {
            self.moved_bytes.add(frame.data_ref().map_or(0, |data| data.len() as u64));
        }
        polled.map_err(|reject| {
            if let Some(watch) = &self.monitor {
                watch.fault.get_or_init(|| reject);
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

/// What the guest is told about a request's body.
fn error(reject: Reject) -> Error {
    match reject {
        Reject::BodyTooLarge => Error::HttpRequestBodySize(None),
        Reject::BodyTimeout => Error::ConnectionReadTimeout,
        Reject::ClientGone => Error::ConnectionTerminated,
        _ => Error::HttpProtocolError,
    }
}

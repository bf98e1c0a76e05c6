//! The two ends of streams of bytes and of futures. Each belongs to the guest or to the host.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::Bytes;
use http::HeaderMap;
use http_body::{Body, Frame};
use wasmtime_wasi_http::Error;
use wasmtime_wasi_http::p2::bindings::http::types::ErrorCode;

use super::body_channel::{BodyCompletion, BodySender};
use super::memory::Result;
use crate::guest::component::body::GuestRequestBody;
use crate::guest::engine::fault::misuse;

/// A stream of bytes, with its two ends.
pub struct Stream {
    pub writer: StreamWriter,
    pub reader: StreamReader,
}

/// The end that writes to a stream.
pub enum StreamWriter {
    Guest(GuestEnd),
    Request(Box<RequestBodyStream>),
    Gone,
}

/// The end that reads from a stream.
pub enum StreamReader {
    Guest(GuestEnd),
    /// The host has taken the end, but does not read yet.
    Host,
    Response(Arc<BodySender>),
    Gone,
}

/// An end that the guest holds, and the buffer in its memory for a copy that has not completed.
#[derive(Clone, Copy)]
pub struct GuestEnd {
    pub handle: u32,
    pub buffer: Option<(u32, u32)>,
}

/// A request's body as a stream that the guest reads.
pub struct RequestBodyStream {
    pub body: GuestRequestBody,
    pub(super) rest: Bytes,
    /// The future of its trailers, until that is resolved. After that the index may be reused.
    trailers: Option<u32>,
    has_ended: bool,
}

/// A future, with its two ends.
pub struct ComponentFuture {
    pub writer: FutureWriter,
    pub reader: FutureReader,
}

/// The end that writes the value.
pub enum FutureWriter {
    Guest(GuestEnd),
    Value(FutureValue),
    /// The host will write it later.
    Host,
    /// The value is how a response's body has ended.
    Response(BodyCompletion),
    Gone,
}

/// The end that reads the value.
pub enum FutureReader {
    Guest(GuestEnd),
    /// The host has taken the end, but does not read yet.
    Host,
    /// The value is how a response's body ends.
    Response(Arc<BodySender>),
    /// The value is dropped when it comes.
    Ignored,
    Gone,
}

/// A value that the host writes.
pub enum FutureValue {
    Sent(Result<(), ErrorCode>),
    Trailers(Result<Option<HeaderMap>, ErrorCode>),
}

impl GuestEnd {
    pub fn new(handle: u32) -> Self {
        GuestEnd { handle, buffer: None }
    }
}

impl Stream {
    /// The guest's readable or writable end.
    ///
    /// # Errors
    /// The guest does not hold that end.
    pub fn end(&mut self, is_read: bool) -> Result<&mut GuestEnd> {
        match (is_read, &mut self.writer, &mut self.reader) {
            (true, _, StreamReader::Guest(end)) | (false, StreamWriter::Guest(end), _) => Ok(end),
            _ => Err(misuse("a stream is used that is not the guest's")),
        }
    }
}

impl RequestBodyStream {
    pub fn new(body: GuestRequestBody, trailers: u32) -> Self {
        RequestBodyStream { body, rest: Bytes::new(), trailers: Some(trailers), has_ended: false }
    }

    /// Takes the future of the trailers, to resolve it.
    pub fn take_trailers(&mut self) -> Option<u32> {
        self.trailers.take()
    }

    /// The rest of the body, as the body of a response.
    pub fn into_body(self) -> RemainingBody {
        RemainingBody { rest: self.rest, body: self.body }
    }

    /// Ready when there are bytes to read. At the end of the body it returns the trailers.
    pub(super) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Option<FutureValue>> {
        while self.rest.is_empty() && !self.has_ended {
            let end = match std::task::ready!(Pin::new(&mut self.body).poll_frame(cx)) {
                Some(Ok(frame)) => match frame.into_data() {
                    Ok(data) => {
                        self.rest = data;
                        continue;
                    }
                    Err(frame) => Ok(frame.into_trailers().ok()),
                },
                Some(Err(error)) => Err(code(&error)),
                None => Ok(None),
            };
            self.has_ended = true;
            return Poll::Ready(Some(FutureValue::Trailers(end)));
        }
        Poll::Ready(None)
    }
}

/// A request's body that the guest has handed on as its response's.
pub struct RemainingBody {
    rest: Bytes,
    body: GuestRequestBody,
}

impl Body for RemainingBody {
    type Data = Bytes;
    type Error = Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Error>>> {
        if self.rest.is_empty() {
            return Pin::new(&mut self.body).poll_frame(cx);
        }
        Poll::Ready(Some(Ok(Frame::data(std::mem::take(&mut self.rest)))))
    }
}

/// The error code that the guest gets when a request's body fails.
fn code(error: &Error) -> ErrorCode {
    match error {
        Error::HttpRequestBodySize(size) => ErrorCode::HttpRequestBodySize(*size),
        Error::ConnectionReadTimeout => ErrorCode::ConnectionReadTimeout,
        Error::ConnectionTerminated => ErrorCode::ConnectionTerminated,
        _ => ErrorCode::HttpProtocolError,
    }
}

//! The ends of a stream of bytes and of a future, each of which is the guest's or the host's.

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

/// A stream of bytes.
pub struct Stream {
    pub writer: StreamWriter,
    pub reader: StreamReader,
}

/// Who writes to a stream.
pub enum StreamWriter {
    Guest(GuestEnd),
    Request(Box<RequestBodyStream>),
    Gone,
}

/// Who reads from a stream.
pub enum StreamReader {
    Guest(GuestEnd),
    /// Somebody in the host who does not read yet.
    Host,
    Response(Arc<BodySender>),
    Gone,
}

/// A guest's end, and the part of its memory that waits to be copied.
#[derive(Clone, Copy)]
pub struct GuestEnd {
    pub handle: u32,
    pub buffer: Option<(u32, u32)>,
}

/// A request's body as the guest gets it.
pub struct RequestBodyStream {
    pub body: GuestRequestBody,
    pub(super) rest: Bytes,
    /// The future of its trailers, until that has its value: then its place may be another one's.
    trailers: Option<u32>,
    has_ended: bool,
}

/// A future of one value.
pub struct ComponentFuture {
    pub writer: FutureWriter,
    pub reader: FutureReader,
}

/// Who gives the value.
pub enum FutureWriter {
    Guest(GuestEnd),
    Value(FutureValue),
    /// It is to follow.
    Host,
    /// It is what becomes of a response's body.
    Response(BodyCompletion),
    Gone,
}

/// Who takes the value.
pub enum FutureReader {
    Guest(GuestEnd),
    /// Somebody in the host who does not look yet.
    Host,
    /// It is the end of a response.
    Response(Arc<BodySender>),
    /// Nobody cares.
    Ignored,
    Gone,
}

/// A value that the host gives.
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
    /// The guest's end to read from, or to write to.
    ///
    /// # Errors
    /// That end is the host's.
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

    /// The future of its trailers, to be given its value.
    pub fn take_trailers(&mut self) -> Option<u32> {
        self.trailers.take()
    }

    /// What is left of it, to be sent on.
    pub fn into_body(self) -> RemainingBody {
        RemainingBody { rest: self.rest, body: self.body }
    }

    /// Ready when there is something to read, or with what the trailers are.
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

/// A request's body that goes back as the response's.
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

/// What the guest is told of a request's body that came to a bad end.
fn code(error: &Error) -> ErrorCode {
    match error {
        Error::HttpRequestBodySize(size) => ErrorCode::HttpRequestBodySize(*size),
        Error::ConnectionReadTimeout => ErrorCode::ConnectionReadTimeout,
        Error::ConnectionTerminated => ErrorCode::ConnectionTerminated,
        _ => ErrorCode::HttpProtocolError,
    }
}

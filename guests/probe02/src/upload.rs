//! A request's body, read as it arrives.

use wasip2::http::types::{ErrorCode, Fields, IncomingBody, IncomingRequest, http_error_code};
use wasip2::io::streams::{InputStream, StreamError};

/// The most bytes of one read.
const PIECE_BYTES_MAX: u64 = 64 << 10;

/// A body that is being read.
pub struct Upload {
    // The stream has to be dropped before its body.
    stream: InputStream,
    body: IncomingBody,
}

impl Upload {
    pub fn of(request: &IncomingRequest) -> Upload {
        Upload::new(request.consume().expect("a body is taken once"))
    }

    pub fn new(body: IncomingBody) -> Upload {
        let stream = body.stream().expect("a stream is taken once");
        Upload { stream, body }
    }

    /// Waits for the next piece. `None` at the end.
    ///
    /// # Errors
    /// The body broke off.
    pub fn next(&self) -> Result<Option<Vec<u8>>, ErrorCode> {
        loop {
            match self.stream.blocking_read(PIECE_BYTES_MAX) {
                Ok(piece) if piece.is_empty() => {}
                Ok(piece) => return Ok(Some(piece)),
                Err(StreamError::Closed) => return Ok(None),
                Err(StreamError::LastOperationFailed(error)) => {
                    return Err(http_error_code(&error).unwrap_or(ErrorCode::InternalError(None)));
                }
            }
        }
    }

    /// Reads the rest, and returns its length and the sum of its bytes.
    ///
    /// # Errors
    /// As [`Upload::next`].
    pub fn count(&self) -> Result<(u64, u64), ErrorCode> {
        let (mut bytes, mut sum) = (0, 0);
        while let Some(piece) = self.next()? {
            bytes += piece.len() as u64;
            sum += piece.iter().map(|byte| u64::from(*byte)).sum::<u64>();
        }
        Ok((bytes, sum))
    }

    /// The trailers of a body that was read to the end.
    ///
    /// # Errors
    /// As [`Upload::next`].
    pub fn trailers(self) -> Result<Option<Fields>, ErrorCode> {
        let Upload { stream, body } = self;
        drop(stream);
        let trailers = IncomingBody::finish(body);
        trailers.subscribe().block();
        match trailers.get() {
            Some(Ok(trailers)) => trailers,
            _ => Err(ErrorCode::InternalError(None)),
        }
    }
}

//! A request's body as it arrives.

use wasip2::http::types::{ErrorCode, Fields, IncomingBody, IncomingRequest, http_error_code};
use wasip2::io::streams::{InputStream, StreamError};

/// Bytes that are read at once.
const PIECE_BYTES_MAX: u64 = 64 << 10;

/// A request's body.
pub struct Upload {
    // A stream has to go before its body does.
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

    /// Waits for the next piece; none at the end.
    ///
    /// # Errors
    /// The body came to a bad end.
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

    /// Reads what is left, and gives how many bytes that were and their sum.
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

    /// The trailers behind a body that has been read.
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

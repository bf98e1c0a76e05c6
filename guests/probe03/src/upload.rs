//! A body as it arrives: a request's, or that of a response to a request of the guest's own.

use wasip3::http::types::{ErrorCode, Fields, Request};
use wasip3::wit_bindgen::{FutureReader, StreamReader, StreamResult};
use wasip3::wit_future;

/// Bytes that are read at once.
const PIECE_BYTES_MAX: usize = 64 << 10;

/// What is behind a body, or why it came to a bad end.
type End = FutureReader<Result<Option<Fields>, ErrorCode>>;

/// A body that arrives.
pub struct Upload {
    pub stream: StreamReader<u8>,
    pub end: End,
}

impl Upload {
    pub fn of(request: Request) -> Upload {
        Upload::new(|handled| Request::consume_body(request, handled))
    }

    /// The body that this takes out of its message, given what is told how it was handled.
    pub fn new(
        take: impl FnOnce(FutureReader<Result<(), ErrorCode>>) -> (StreamReader<u8>, End),
    ) -> Upload {
        let (handled, result) = wit_future::new(|| Ok(()));
        let (stream, end) = take(result);
        drop(handled);
        Upload { stream, end }
    }

    /// Waits for the next piece; none at the end, be that good or bad.
    pub async fn next(&mut self) -> Option<Vec<u8>> {
        loop {
            match self.stream.read(Vec::with_capacity(PIECE_BYTES_MAX)).await {
                (StreamResult::Complete(_), piece) if piece.is_empty() => {}
                (StreamResult::Complete(_), piece) => return Some(piece),
                _ => return None,
            }
        }
    }

    /// Reads what is left, and gives how many bytes that were and their sum.
    pub async fn count(&mut self) -> (u64, u64) {
        let (mut bytes, mut sum) = (0, 0);
        while let Some(piece) = self.next().await {
            bytes += piece.len() as u64;
            sum += piece.iter().map(|byte| u64::from(*byte)).sum::<u64>();
        }
        (bytes, sum)
    }

    /// The trailers behind a body that has been read.
    ///
    /// # Errors
    /// The body came to a bad end.
    pub async fn end(self) -> Result<Option<Fields>, ErrorCode> {
        let Upload { stream, end } = self;
        drop(stream);
        end.await
    }
}

//! A request's body as it arrives.

use wasip3::http::types::{ErrorCode, Fields, Request};
use wasip3::wit_bindgen::{FutureReader, StreamReader, StreamResult};
use wasip3::wit_future;

/// Bytes that are read at once.
const PIECE_BYTES_MAX: usize = 64 << 10;

/// A request's body.
pub struct Upload {
    pub stream: StreamReader<u8>,
    /// What is behind it, or why it came to a bad end.
    pub end: FutureReader<Result<Option<Fields>, ErrorCode>>,
}

impl Upload {
    pub fn of(request: Request) -> Upload {
        let (handled, result) = wit_future::new(|| Ok(()));
        let (stream, end) = Request::consume_body(request, result);
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

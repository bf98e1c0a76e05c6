//! A body that is read as it arrives: of a request, or of the response to an outbound request.

use wasip3::http::types::{ErrorCode, Fields, Request};
use wasip3::wit_bindgen::{FutureReader, StreamReader, StreamResult};
use wasip3::wit_future;

/// The most bytes of one read.
const PIECE_BYTES_MAX: usize = 64 << 10;

/// The trailers after a body, or why it broke off.
type End = FutureReader<Result<Option<Fields>, ErrorCode>>;

/// A body that is being read.
pub struct Upload {
    pub stream: StreamReader<u8>,
    pub end: End,
}

impl Upload {
    pub fn of(request: Request) -> Upload {
        Upload::new(|handled| Request::consume_body(request, handled))
    }

    /// The body that `take` gets from its message. The argument of `take` tells the sender that the
    /// body was handled.
    pub fn new(
        take: impl FnOnce(FutureReader<Result<(), ErrorCode>>) -> (StreamReader<u8>, End),
    ) -> Upload {
        let (handled, result) = wit_future::new(|| Ok(()));
        let (stream, end) = take(result);
        drop(handled);
        Upload { stream, end }
    }

    /// Waits for the next piece. `None` at the end, whether the body ended well or broke off.
    pub async fn next(&mut self) -> Option<Vec<u8>> {
        loop {
            match self.stream.read(Vec::with_capacity(PIECE_BYTES_MAX)).await {
                (StreamResult::Complete(_), piece) if piece.is_empty() => {}
                (StreamResult::Complete(_), piece) => return Some(piece),
                _ => return None,
            }
        }
    }

    /// Reads the rest, and returns its length and the sum of its bytes.
    pub async fn count(&mut self) -> (u64, u64) {
        let (mut bytes, mut sum) = (0, 0);
        while let Some(piece) = self.next().await {
            bytes += piece.len() as u64;
            sum += piece.iter().map(|byte| u64::from(*byte)).sum::<u64>();
        }
        (bytes, sum)
    }

    /// The trailers of a body that was read to the end.
    ///
    /// # Errors
    /// The body broke off.
    pub async fn end(self) -> Result<Option<Fields>, ErrorCode> {
        let Upload { stream, end } = self;
        drop(stream);
        end.await
    }
}

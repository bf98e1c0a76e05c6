//! A message that is being sent, a response or an outbound request: its head is made, and its body
//! is written piece by piece.

use wasip3::http::types::{ErrorCode, Fields, Response};
use wasip3::wit_bindgen::{FutureReader, FutureWriter, StreamReader, StreamResult, StreamWriter};
use wasip3::{wit_future, wit_stream};

use crate::Answer;

/// The trailers after a body.
type End = Result<Option<Fields>, ErrorCode>;

/// A response with an open body. Dropping it ends the body with an error.
pub struct Reply {
    // The body has to end before the trailers.
    stream: StreamWriter<u8>,
    end: FutureWriter<End>,
}

impl Reply {
    pub fn begin(status: u16, fields: &[(&str, &str)]) -> (Response, Reply) {
        Reply::open(status, made(fields)).expect("a status that there is")
    }

    /// A response with an open body. `None` if there is no such status.
    pub fn open(status: u16, fields: Fields) -> Option<(Response, Reply)> {
        let (reply, contents, trailers) = Reply::body();
        let (response, _sent) = Response::new(fields, Some(contents), trailers);
        response.set_status_code(status).ok()?;
        Some((response, reply))
    }

    /// An open body, and the parts that its message is made of.
    pub fn body() -> (Reply, StreamReader<u8>, FutureReader<End>) {
        let (stream, contents) = wit_stream::new();
        let unfinished = || Err(ErrorCode::InternalError(Some("dropped".to_owned())));
        let (end, trailers) = wit_future::new::<End>(unfinished);
        (Reply { stream, end }, contents, trailers)
    }

    /// Answers with this text, which is written after the answer.
    pub fn whole(status: u16, text: impl AsRef<[u8]>) -> Answer {
        let (response, reply) = Reply::begin(status, &[]);
        let text = text.as_ref().to_owned();
        wasip3::spawn_local(reply.end(text));
        Ok(response)
    }

    /// Writes one piece, which may be empty. Returns whether it was accepted, or as much of it as
    /// there was room for.
    pub async fn write_piece(&mut self, piece: Vec<u8>) -> bool {
        matches!(self.stream.write(piece).await, (StreamResult::Complete(_), _))
    }

    /// Writes all bytes, in as many pieces as necessary. Returns whether they were accepted.
    pub async fn write(&mut self, bytes: impl Into<Vec<u8>>) -> bool {
        self.stream.write_all(bytes.into()).await.is_empty()
    }

    /// Writes the last bytes, and finishes the body.
    pub async fn end(mut self, rest: impl Into<Vec<u8>>) {
        self.write(rest).await;
        self.finish(Ok(None)).await;
    }

    /// Finishes the body. Some behaviours get an error here, because the length is not as
    /// announced.
    pub async fn finish(self, end: End) {
        let Reply { stream, end: writer } = self;
        drop(stream);
        // The client may have disconnected.
        let _ = writer.write(end).await;
    }
}

/// A set of fields that are all valid.
pub fn made(fields: &[(&str, &str)]) -> Fields {
    let made = Fields::new();
    for (name, value) in fields {
        made.append(name, value.as_bytes()).expect("a field that is allowed");
    }
    made
}

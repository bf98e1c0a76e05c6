//! A response that is on its way: its head is made, its body is written piece by piece. So is the
//! body of a request of the guest's own.

use wasip3::http::types::{ErrorCode, Fields, Response};
use wasip3::wit_bindgen::{FutureReader, FutureWriter, StreamReader, StreamResult, StreamWriter};
use wasip3::{wit_future, wit_stream};

use crate::Answer;

/// What comes behind a body.
type End = Result<Option<Fields>, ErrorCode>;

/// A response whose body is open. If it is dropped, the body is dropped and comes to a bad end.
pub struct Reply {
    // The body has to end before what is behind it.
    stream: StreamWriter<u8>,
    end: FutureWriter<End>,
}

impl Reply {
    pub fn begin(status: u16, fields: &[(&str, &str)]) -> (Response, Reply) {
        Reply::open(status, made(fields)).expect("a status that there is")
    }

    /// A response with a body that is open. `None` where there is no such status.
    pub fn open(status: u16, fields: Fields) -> Option<(Response, Reply)> {
        let (reply, contents, trailers) = Reply::body();
        let (response, _sent) = Response::new(fields, Some(contents), trailers);
        response.set_status_code(status).ok()?;
        Some((response, reply))
    }

    /// A body that is open, and what its message is made with.
    pub fn body() -> (Reply, StreamReader<u8>, FutureReader<End>) {
        let (stream, contents) = wit_stream::new();
        let unfinished = || Err(ErrorCode::InternalError(Some("dropped".to_owned())));
        let (end, trailers) = wit_future::new::<End>(unfinished);
        (Reply { stream, end }, contents, trailers)
    }

    /// Answers with this text, which is written behind the answer.
    pub fn whole(status: u16, text: impl AsRef<[u8]>) -> Answer {
        let (response, reply) = Reply::begin(status, &[]);
        let text = text.as_ref().to_owned();
        wasip3::spawn_local(reply.end(text));
        Ok(response)
    }

    /// Writes one piece, which may be empty; whether it was taken, or as much of it as there was
    /// room for.
    pub async fn write_piece(&mut self, piece: Vec<u8>) -> bool {
        matches!(self.stream.write(piece).await, (StreamResult::Complete(_), _))
    }

    /// Writes all of it, in as many pieces as it takes; whether it was taken.
    pub async fn write(&mut self, bytes: impl Into<Vec<u8>>) -> bool {
        self.stream.write_all(bytes.into()).await.is_empty()
    }

    /// Writes the rest and finishes.
    pub async fn end(mut self, rest: impl Into<Vec<u8>>) {
        self.write(rest).await;
        self.finish(Ok(None)).await;
    }

    /// Finishes the body. That it was not as long as announced is what some behaviours are for.
    pub async fn finish(self, end: End) {
        let Reply { stream, end: writer } = self;
        drop(stream);
        // The client may be gone.
        let _ = writer.write(end).await;
    }
}

/// Fields that nobody refuses.
pub fn made(fields: &[(&str, &str)]) -> Fields {
    let made = Fields::new();
    for (name, value) in fields {
        made.append(name, value.as_bytes()).expect("a field that is allowed");
    }
    made
}

//! A response that is being sent: its head is set, and its body is written piece by piece.

use wasip2::http::types::{ErrorCode, Fields, OutgoingBody, OutgoingResponse, ResponseOutparam};
use wasip2::io::streams::OutputStream;

/// A response with an open body. Dropping it drops the body without an end.
pub struct Reply {
    // The stream has to be dropped before its body.
    stream: OutputStream,
    body: OutgoingBody,
}

impl Reply {
    pub fn begin(out: ResponseOutparam, status: u16, fields: &[(&str, &str)]) -> Reply {
        let response = OutgoingResponse::new(made(fields));
        response.set_status_code(status).expect("a status that there is");
        Reply::open(out, response)
    }

    /// Sets the response, and opens its body.
    pub fn open(out: ResponseOutparam, response: OutgoingResponse) -> Reply {
        let body = response.body().expect("a body is taken once");
        ResponseOutparam::set(out, Ok(response));
        let stream = body.write().expect("a stream is taken once");
        Reply { stream, body }
    }

    /// Opens the body of a response, calls `write` on it, and only then sets the response.
    pub fn write_first(out: ResponseOutparam, write: impl FnOnce(&Reply) -> bool) -> Reply {
        let response = OutgoingResponse::new(made(&[]));
        let body = response.body().expect("a body is taken once");
        let stream = body.write().expect("a stream is taken once");
        let reply = Reply { stream, body };
        assert!(write(&reply), "it is taken");
        ResponseOutparam::set(out, Ok(response));
        reply
    }

    /// Waits until a piece can be written. Returns its largest size; `None` if the body is closed.
    fn room(&self) -> Option<usize> {
        loop {
            match self.stream.check_write() {
                Ok(0) => self.stream.subscribe().block(),
                Ok(room) => return Some(usize::try_from(room).unwrap_or(usize::MAX)),
                Err(_) => return None,
            }
        }
    }

    /// Writes one piece, which may be empty. Returns whether it was accepted.
    pub fn write_piece(&self, piece: &[u8]) -> bool {
        self.room().is_some() && self.stream.write(piece).is_ok()
    }

    /// Writes all bytes, in as many pieces as necessary. Returns whether they were accepted.
    pub fn write(&self, bytes: impl AsRef<[u8]>) -> bool {
        let mut left = bytes.as_ref();
        while !left.is_empty() {
            let Some(room) = self.room() else { return false };
            let (piece, rest) = left.split_at(left.len().min(room));
            if self.stream.write(piece).is_err() {
                return false;
            }
            left = rest;
        }
        true
    }

    /// Writes the last bytes, and finishes the body.
    pub fn end(self, rest: impl AsRef<[u8]>) {
        self.write(rest);
        self.finish(None);
    }

    /// Finishes the body. Some behaviours get an error here, because the length is not as
    /// announced.
    pub fn finish(self, trailers: Option<Fields>) {
        let Reply { stream, body } = self;
        drop(stream);
        let _: Result<(), ErrorCode> = OutgoingBody::finish(body, trailers);
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

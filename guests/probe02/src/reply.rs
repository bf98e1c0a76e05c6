//! A response that is on its way: its head is set, its body is written piece by piece.

use wasip2::http::types::{ErrorCode, Fields, OutgoingBody, OutgoingResponse, ResponseOutparam};
use wasip2::io::streams::OutputStream;

/// A response whose body is open. If it is dropped, the body is dropped without an end.
pub struct Reply {
    // A stream has to go before its body does.
    stream: OutputStream,
    body: OutgoingBody,
}

impl Reply {
    pub fn begin(out: ResponseOutparam, status: u16, fields: &[(&str, &str)]) -> Reply {
        let response = OutgoingResponse::new(made(fields));
        response.set_status_code(status).expect("a status that there is");
        Reply::open(out, response)
    }

    /// Sets the response and opens its body.
    pub fn open(out: ResponseOutparam, response: OutgoingResponse) -> Reply {
        let body = response.body().expect("a body is taken once");
        ResponseOutparam::set(out, Ok(response));
        let stream = body.write().expect("a stream is taken once");
        Reply { stream, body }
    }

    /// Opens the body of a response, and sets that once `write` has written to it.
    pub fn write_first(out: ResponseOutparam, write: impl FnOnce(&Reply) -> bool) -> Reply {
        let response = OutgoingResponse::new(made(&[]));
        let body = response.body().expect("a body is taken once");
        let stream = body.write().expect("a stream is taken once");
        let reply = Reply { stream, body };
        assert!(write(&reply), "it is taken");
        ResponseOutparam::set(out, Ok(response));
        reply
    }

    /// Waits until there is room for a piece: how large it may be, or none if nobody takes it.
    fn room(&self) -> Option<usize> {
        loop {
            match self.stream.check_write() {
                Ok(0) => self.stream.subscribe().block(),
                Ok(room) => return Some(usize::try_from(room).unwrap_or(usize::MAX)),
                Err(_) => return None,
            }
        }
    }

    /// Writes one piece as it is, which may be empty; whether it was taken.
    pub fn write_piece(&self, piece: &[u8]) -> bool {
        self.room().is_some() && self.stream.write(piece).is_ok()
    }

    /// Writes all of it, in as many pieces as it takes; whether it was taken.
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

    /// Writes the rest and finishes.
    pub fn end(self, rest: impl AsRef<[u8]>) {
        self.write(rest);
        self.finish(None);
    }

    /// Finishes the body. That it was not as long as announced is what some behaviours are for.
    pub fn finish(self, trailers: Option<Fields>) {
        let Reply { stream, body } = self;
        drop(stream);
        let _: Result<(), ErrorCode> = OutgoingBody::finish(body, trailers);
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

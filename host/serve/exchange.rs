//! The request that a connection serves now, and what is known of its body and of its answer.
//!
//! Owns what of these decides how the connection goes on: whether it may be kept, who is told to
//! send the body, and what a client may take for a whole answer. Knows no socket.

use std::cell::{Cell, RefCell};
use std::sync::Arc;
use std::time::Duration;

use http::header::EXPECT;
use http::{Request, Version};
use http_body::Body;

use crate::guest::engine::budget::Budget;
use crate::guest::services::held::Held;
use crate::message::fields::FIELDS_FEW;
use crate::message::progress::Progress;

/// What tells a client to send the body that it holds back (RFC 9110, 10.1.1).
pub const CONTINUE: &[u8] = b"HTTP/1.1 100 Continue\r\n\r\n";

/// A connection's last request. Everything is as it was before the first one until that begins.
#[derive(Default)]
pub struct Exchange {
    /// Its answer is not made yet.
    pub in_flight: Cell<bool>,
    /// Its answer is passed on as it comes, and has not come to its end.
    pub streams: Cell<bool>,
    /// Its client speaks HTTP/1.0: it knows no chunks and no interim answers.
    pub is_old: Cell<bool>,
    /// Its answer ended early because of its body, of which more may be on its way.
    pub unread: Cell<bool>,
    /// Its client was sent something to see whether it has gone.
    pub probed: Cell<bool>,
    /// `100 Continue`, if its client waits for that.
    interim: Cell<Interim>,
    has_body: Cell<bool>,
    /// Its body, once somebody has taken that up.
    body: RefCell<Option<Arc<Progress>>>,
    /// What is charged for the fields of its answer.
    fields: Cell<Option<Box<Held>>>,
}

/// How it stands with `100 Continue`.
#[derive(Clone, Copy, Default, PartialEq, Eq)]
enum Interim {
    /// Nobody waits for it, or it was sent.
    #[default]
    Nothing,
    /// The client waits for it. hyper sends it when the body is first read, unless the answer's
    /// head was written before.
    Awaited,
    /// It was sent from here, and hyper may not know.
    Sent,
}

impl Exchange {
    /// A request's head is complete.
    pub fn begin<B: Body>(&self, http: &Request<B>) {
        self.in_flight.set(true);
        self.probed.set(false);
        self.is_old.set(http.version() < Version::HTTP_11);
        let has_body = !http.body().is_end_stream();
        if self.has_body.replace(has_body) {
            self.body.take();
        }
        let expects = has_body
            && !self.is_old.get()
            && http
                .headers()
                .get_all(EXPECT)
                .iter()
                .any(|value| value.as_bytes().eq_ignore_ascii_case(b"100-continue"));
        self.interim.set(if expects { Interim::Awaited } else { Interim::Nothing });
    }

    /// Says who tells how its body gets on.
    pub fn expect_body(&self, body: Arc<Progress>) {
        self.body.replace(Some(body));
    }

    /// Has a body that comes too slowly given up; so long ago was the last look.
    pub fn look_at_body(
        &self,
        since_last: Duration,
        stall_max: Duration,
        has_input: impl Fn() -> bool,
    ) {
        if let Some(body) = &*self.body.borrow() {
            body.look(since_last, stall_max, has_input);
        }
    }

    /// Has the fields of its answer's head and trailers count, if they are many, as what the guest
    /// has that they are of. hyper keeps the map, empty, and puts the fields of the next request
    /// into it.
    pub fn hold_fields(&self, count: usize, memory: impl FnOnce() -> Budget) {
        let held = || Box::new(Held::of_fields(&memory(), count));
        self.fields.set((count > FIELDS_FEW).then(held));
    }

    /// Says that hyper does not have that map any more: what is charged for it, if it was large.
    pub fn take_fields(&self) -> Option<Box<Held>> {
        self.fields.take()
    }

    /// Whether its body is still coming and somebody has it, which may be so behind the head of the
    /// answer.
    pub fn is_body_open(&self) -> bool {
        self.has_body.get() && self.body.borrow().as_ref().is_some_and(|body| body.is_open())
    }

    /// Whether it has a body that was not read to its end, so that more of it may be on its way.
    pub fn is_body_left(&self) -> bool {
        let has_ended = || self.body.borrow().as_ref().is_some_and(|body| body.has_ended());
        self.has_body.get() && !has_ended()
    }

    /// Whether its answer is made and has left, and nothing of its body is missing.
    pub fn is_over(&self) -> bool {
        !self.in_flight.get() && !self.streams.get() && !self.is_body_left() && !self.unread.get()
    }

    /// Whether the client holds the body back until it is told to send it.
    pub fn awaits_continue(&self) -> bool {
        self.interim.get() == Interim::Awaited
    }

    /// Says that it has been told, but not by hyper.
    pub fn continued(&self) {
        self.interim.set(Interim::Sent);
    }

    /// Takes note of what hyper writes. Whether that begins with a `100 Continue` which has been
    /// sent before.
    pub fn is_told_twice(&self, written: &[u8]) -> bool {
        if self.interim.get() == Interim::Nothing || !written.starts_with(CONTINUE) {
            return false;
        }
        self.interim.replace(Interim::Nothing) == Interim::Sent
    }
}

#[cfg(test)]
mod tests;

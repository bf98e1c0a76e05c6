//! The requests of one connection, as its driver, the reaper and the drain see them.
//!
//! Owns what of their bodies and answers decides how the connection goes on: whether it may be
//! kept, who is told to send a body, and what a client may take for a whole answer. HTTP/1 serves
//! one request at a time, and nothing here relies on that. Knows no socket.

use std::cell::{Cell, Ref, RefCell};
use std::sync::Arc;
use std::time::Duration;

use http::header::EXPECT;
use http::{Request, Version};
use http_body::Body;

use crate::message::body_progress::BodyProgress;

/// What tells a client to send the body that it holds back (RFC 9110, 10.1.1).
pub const CONTINUE: &[u8] = b"HTTP/1.1 100 Continue\r\n\r\n";

/// The requests of one connection.
#[derive(Default)]
pub struct Exchanges {
    /// Those that are served, and what is left of others until a new one takes their place.
    states: RefCell<Vec<ExchangeState>>,
}

/// What is known of one request.
#[derive(Default)]
pub struct ExchangeState {
    phase: Cell<ExchangePhase>,
    /// Its client speaks HTTP/1.0: it knows no chunks and no interim answers.
    is_http10: Cell<bool>,
    /// Its answer ended early because of its body, of which more may be on its way.
    is_unread: Cell<bool>,
    /// Its client was sent something to see whether it has gone.
    is_probed: Cell<bool>,
    /// `100 Continue`, if its client waits for that.
    interim: Cell<ContinueState>,
    has_body: Cell<bool>,
    /// Its body, once somebody has taken that up.
    body: RefCell<Option<Arc<BodyProgress>>>,
}

/// How far it has come.
#[derive(Clone, Copy, Default, PartialEq, Eq)]
pub enum ExchangePhase {
    /// Its answer is not made yet.
    InFlight,
    /// Its answer is passed on as it comes, and has not come to its end.
    Streaming,
    /// Its answer is over. More of its body may be on its way.
    #[default]
    Over,
}

/// How it stands with `100 Continue`.
#[derive(Clone, Copy, Default, PartialEq, Eq)]
enum ContinueState {
    /// Nobody waits for it, or it was sent.
    #[default]
    Nothing,
    /// The client waits for it. hyper sends it when the body is first read, unless the answer's
    /// head was written before.
    Awaited,
    /// It was sent from here, and hyper may not know.
    Sent,
}

impl Exchanges {
    /// Takes a request in whose head is complete. Returns its number, which is another's once this
    /// one is over.
    pub fn begin<B: Body>(&self, http: &Request<B>) -> usize {
        let state = ExchangeState::of(http);
        let mut states = self.states.borrow_mut();
        match states.iter().position(|state| state.phase.get() == ExchangePhase::Over) {
            Some(free) => {
                states[free] = state;
                free
            }
            None => {
                // Most connections never have another beside it.
                states.reserve_exact(1);
                states.push(state);
                states.len() - 1
            }
        }
    }

    /// What is known of the request of this number.
    pub fn state(&self, number: usize) -> Ref<'_, ExchangeState> {
        Ref::map(self.states.borrow(), |states| &states[number])
    }

    fn any(&self, is: impl Fn(&ExchangeState) -> bool) -> bool {
        self.states.borrow().iter().any(is)
    }

    /// Whether an answer is not made yet.
    pub fn is_any_in_flight(&self) -> bool {
        self.any(|it| it.phase.get() == ExchangePhase::InFlight)
    }

    /// Whether an answer is passed on as it comes.
    pub fn is_any_streaming(&self) -> bool {
        self.any(|it| it.phase.get() == ExchangePhase::Streaming)
    }

    /// Whether all answers are over, whatever is left of the requests.
    pub fn are_answered(&self) -> bool {
        !self.any(|it| it.phase.get() != ExchangePhase::Over)
    }

    /// Whether a client that is to be answered speaks HTTP/1.0.
    pub fn is_any_http10(&self) -> bool {
        self.any(|it| it.phase.get() != ExchangePhase::Over && it.is_http10.get())
    }

    /// Whether a body is still coming and somebody has it.
    pub fn is_body_open(&self) -> bool {
        self.any(ExchangeState::is_body_open)
    }

    /// Whether more may come that belongs to a request which is served, or was.
    pub fn has_unread_body(&self) -> bool {
        self.any(|it| it.is_unread.get() || it.is_body_unread())
    }

    /// Has bodies that come too slowly given up; so long ago was the last look.
    pub fn check_bodies(
        &self,
        since_last: Duration,
        stall_max: Duration,
        has_input: impl Fn() -> bool,
    ) {
        for state in &*self.states.borrow() {
            if let Some(body) = &*state.body.borrow() {
                body.check_stall(since_last, stall_max, &has_input);
            }
        }
    }

    /// Whether an answer is not made yet whose client was not probed.
    pub fn is_any_unprobed(&self) -> bool {
        self.any(|it| it.phase.get() == ExchangePhase::InFlight && !it.is_probed.get())
    }

    /// Says that the client is probed.
    pub fn note_probed(&self) {
        for state in &*self.states.borrow() {
            state.is_probed.set(true);
        }
    }

    /// Takes note of what hyper writes. Whether that begins with a `100 Continue` which has been
    /// sent before.
    pub fn is_repeated_continue(&self, written: &[u8]) -> bool {
        self.any(|it| it.is_repeated_continue(written))
    }
}

impl ExchangeState {
    fn of<B: Body>(http: &Request<B>) -> Self {
        let is_http10 = http.version() < Version::HTTP_11;
        let has_body = !http.body().is_end_stream();
        let expects = has_body
            && !is_http10
            && http
                .headers()
                .get_all(EXPECT)
                .iter()
                .any(|value| value.as_bytes().eq_ignore_ascii_case(b"100-continue"));
        let interim = if expects { ContinueState::Awaited } else { ContinueState::Nothing };
        ExchangeState {
            phase: Cell::new(ExchangePhase::InFlight),
            is_http10: Cell::new(is_http10),
            interim: Cell::new(interim),
            has_body: Cell::new(has_body),
            ..ExchangeState::default()
        }
    }

    /// Says how far it has come, and returns how far it had.
    pub fn enter(&self, phase: ExchangePhase) -> ExchangePhase {
        self.phase.replace(phase)
    }

    /// Whether its client speaks HTTP/1.0.
    pub fn is_http10(&self) -> bool {
        self.is_http10.get()
    }

    /// Says that its answer ends early because of its body.
    pub fn mark_unread(&self) {
        self.is_unread.set(true);
    }

    pub fn is_unread(&self) -> bool {
        self.is_unread.get()
    }

    /// Says who tells how its body gets on.
    pub fn expect_body(&self, body: Arc<BodyProgress>) {
        self.body.replace(Some(body));
    }

    /// Whether its body is still coming and somebody has it, which may be so behind the head of the
    /// answer.
    pub fn is_body_open(&self) -> bool {
        self.body.borrow().as_ref().is_some_and(|body| body.is_open())
    }

    /// Whether it has a body that was not read to its end, so that more of it may be on its way.
    pub fn is_body_unread(&self) -> bool {
        let has_ended = || self.body.borrow().as_ref().is_some_and(|body| body.has_ended());
        self.has_body.get() && !has_ended()
    }

    /// Whether the client holds the body back until it is told to send it.
    pub fn awaits_continue(&self) -> bool {
        self.interim.get() == ContinueState::Awaited
    }

    /// Says that it has been told, but not by hyper.
    pub fn note_continue_sent(&self) {
        self.interim.set(ContinueState::Sent);
    }

    fn is_repeated_continue(&self, written: &[u8]) -> bool {
        if self.interim.get() == ContinueState::Nothing || !written.starts_with(CONTINUE) {
            return false;
        }
        self.interim.replace(ContinueState::Nothing) == ContinueState::Sent
    }
}

#[cfg(test)]
mod tests;

//! The requests of one connection, as its driver, the reaper and the drain see them.
//!
//! Owns the state of request bodies and answers that decides how the connection goes on: whether it
//! may be kept alive, and which client waits for `100 Continue`. HTTP/1 serves one request at a
//! time, but nothing here relies on that. Knows no socket.

use std::cell::{Cell, Ref, RefCell};
use std::sync::Arc;
use std::time::Duration;

use http::header::EXPECT;
use http::{Request, Version};
use http_body::Body;

use crate::message::body_progress::BodyProgress;

/// Tells a client to send the body that it holds back (RFC 9110, 10.1.1).
pub const CONTINUE: &[u8] = b"HTTP/1.1 100 Continue\r\n\r\n";

/// The requests of one connection.
#[derive(Default)]
pub struct Exchanges {
    /// Requests that are being served, and ended ones until a new request takes their place.
    states: RefCell<Vec<ExchangeState>>,
}

/// The state of one request.
#[derive(Default)]
pub struct ExchangeState {
    phase: Cell<ExchangePhase>,
    /// The client speaks HTTP/1.0: it knows no chunks and no interim responses.
    is_http10: Cell<bool>,
    /// The answer ended early because of the request's body. The rest of it may still arrive.
    is_unread: Cell<bool>,
    /// The client was found half-closed. It is being probed, unless it speaks HTTP/1.0.
    is_probed: Cell<bool>,
    /// Whether the client waits for `100 Continue`.
    interim: Cell<ContinueState>,
    has_body: Cell<bool>,
    /// The progress of the body, once something reads it.
    body: RefCell<Option<Arc<BodyProgress>>>,
}

/// How far a request has come.
#[derive(Clone, Copy, Default, PartialEq, Eq)]
pub enum ExchangePhase {
    /// The answer's head is not made yet.
    InFlight,
    /// The answer's body is being streamed.
    Streaming,
    /// The answer has ended. More of the request's body may still arrive.
    #[default]
    Over,
}

/// Whether a client waits for `100 Continue`.
#[derive(Clone, Copy, Default, PartialEq, Eq)]
enum ContinueState {
    /// The client does not wait for it, or hyper has sent it.
    #[default]
    Nothing,
    /// The client waits for it. hyper sends it when the body is first read, unless the answer's
    /// head was written before.
    Awaited,
    /// The host has sent it. hyper does not know that and may send it again.
    Sent,
}

impl Exchanges {
    /// Begins a request whose head is complete. Returns its number, which a later request may get
    /// once this one is over.
    pub fn begin<B: Body>(&self, http: &Request<B>) -> usize {
        let state = ExchangeState::of(http);
        let mut states = self.states.borrow_mut();
        match states.iter().position(|state| state.phase.get() == ExchangePhase::Over) {
            Some(free) => {
                states[free] = state;
                free
            }
            None => {
                // Most connections never have two requests at once.
                states.reserve_exact(1);
                states.push(state);
                states.len() - 1
            }
        }
    }

    /// The state of the request with this number.
    pub fn state(&self, number: usize) -> Ref<'_, ExchangeState> {
        Ref::map(self.states.borrow(), |states| &states[number])
    }

    fn any(&self, is: impl Fn(&ExchangeState) -> bool) -> bool {
        self.states.borrow().iter().any(is)
    }

    /// Whether a request waits for its answer's head.
    pub fn is_any_in_flight(&self) -> bool {
        self.any(|it| it.phase.get() == ExchangePhase::InFlight)
    }

    /// Whether an answer is being streamed.
    pub fn is_any_streaming(&self) -> bool {
        self.any(|it| it.phase.get() == ExchangePhase::Streaming)
    }

    /// Whether all answers have ended, even if request bodies are still arriving.
    pub fn are_answered(&self) -> bool {
        !self.any(|it| it.phase.get() != ExchangePhase::Over)
    }

    /// Whether a request that has not ended is HTTP/1.0.
    pub fn is_any_http10(&self) -> bool {
        self.any(|it| it.phase.get() != ExchangePhase::Over && it.is_http10.get())
    }

    /// Whether a body is still arriving and something still reads it.
    pub fn is_body_open(&self) -> bool {
        self.any(ExchangeState::is_body_open)
    }

    /// Whether more bytes of a request's body may arrive, also of a request that is over.
    pub fn has_unread_body(&self) -> bool {
        self.any(|it| it.is_unread.get() || it.is_body_unread())
    }

    /// Gives up bodies that arrive too slowly. `since_last` is the time since the last check, and
    /// `has_input` says whether the socket has unread bytes.
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

    /// Whether a request waits for its answer's head and its client has not been probed.
    pub fn is_any_unprobed(&self) -> bool {
        self.any(|it| it.phase.get() == ExchangePhase::InFlight && !it.is_probed.get())
    }

    /// Notes that the client is being probed.
    pub fn note_probed(&self) {
        for state in &*self.states.borrow() {
            state.is_probed.set(true);
        }
    }

    /// Looks at what hyper writes. Returns whether it begins with a `100 Continue` that the host
    /// has sent already.
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

    /// Sets the phase and returns the one before.
    pub fn enter(&self, phase: ExchangePhase) -> ExchangePhase {
        self.phase.replace(phase)
    }

    /// Whether the client speaks HTTP/1.0.
    pub fn is_http10(&self) -> bool {
        self.is_http10.get()
    }

    /// Notes that the answer ends early because of the request's body, so the rest stays unread.
    pub fn mark_unread(&self) {
        self.is_unread.set(true);
    }

    /// Whether [`ExchangeState::mark_unread`] was called.
    pub fn is_unread(&self) -> bool {
        self.is_unread.get()
    }

    /// Sets where the progress of the body is recorded.
    pub fn expect_body(&self, body: Arc<BodyProgress>) {
        self.body.replace(Some(body));
    }

    /// Whether the body is still arriving and something still reads it. This may go on after the
    /// answer's head.
    pub fn is_body_open(&self) -> bool {
        self.body.borrow().as_ref().is_some_and(|body| body.is_open())
    }

    /// Whether the request has a body that was not read to its end, so more may arrive.
    pub fn is_body_unread(&self) -> bool {
        let has_ended = || self.body.borrow().as_ref().is_some_and(|body| body.has_ended());
        self.has_body.get() && !has_ended()
    }

    /// Whether the client holds the body back until it gets `100 Continue`.
    pub fn awaits_continue(&self) -> bool {
        self.interim.get() == ContinueState::Awaited
    }

    /// Notes that the host has sent `100 Continue` itself, not hyper.
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

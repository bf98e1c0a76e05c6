//! One request on a connection, from its head to the end of its answer.
//!
//! Owns when a request ends: when its [`Exchange`] is dropped, either after the answer or because
//! the request was cancelled.

use std::cell::Ref;
use std::rc::Rc;

use http::Request;
use http_body::Body;

use super::connection::Connection;
use super::exchanges::{ExchangePhase, ExchangeState};

/// A request that has not ended. The code that makes the answer holds it; a streamed answer takes
/// it over and holds it to its end.
pub struct Exchange {
    connection: Rc<Connection>,
    number: usize,
}

impl Exchange {
    /// Begins a request whose head is complete.
    pub fn begin<B: Body>(connection: &Rc<Connection>, http: &Request<B>) -> Self {
        connection.life.partial_since.set(None);
        let number = connection.exchanges.begin(http);
        Exchange { connection: connection.clone(), number }
    }

    /// The connection of the request.
    pub fn connection(&self) -> &Rc<Connection> {
        &self.connection
    }

    /// The state of the request.
    pub fn state(&self) -> Ref<'_, ExchangeState> {
        self.connection.exchanges.state(self.number)
    }

    /// Notes that the answer's head is made and its body is streamed from now on.
    pub fn stream(&self) {
        self.state().enter(ExchangePhase::Streaming);
        self.connection.life.note_activity();
    }
}

impl Drop for Exchange {
    fn drop(&mut self) {
        let phase = self.state().enter(ExchangePhase::Over);
        let life = &self.connection.life;
        life.note_activity();
        if phase == ExchangePhase::Streaming && life.partial_since.get().is_some() {
            // The next head has begun to arrive. Its timeout starts now.
            life.partial_since.set(Some(life.now()));
        }
    }
}

#[cfg(test)]
mod tests;

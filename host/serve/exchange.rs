//! One request on a connection, from its head to the end of its answer.
//!
//! Owns when it ends: when this is dropped, be that behind its answer or because nobody waits for
//! it any more.

use std::cell::Ref;
use std::rc::Rc;

use http::Request;
use http_body::Body;

use super::connection::Connection;
use super::exchanges::{ExchangePhase, ExchangeState};

/// A request that has not ended: whoever makes its answer holds this, and then the answer, where it
/// is passed on as it comes.
pub struct Exchange {
    connection: Rc<Connection>,
    number: usize,
}

impl Exchange {
    /// A request's head is complete.
    pub fn begin<B: Body>(connection: &Rc<Connection>, http: &Request<B>) -> Self {
        connection.life.partial_since.set(None);
        let number = connection.exchanges.begin(http);
        Exchange { connection: connection.clone(), number }
    }

    /// What it came by.
    pub fn connection(&self) -> &Rc<Connection> {
        &self.connection
    }

    /// What is known of it.
    pub fn state(&self) -> Ref<'_, ExchangeState> {
        self.connection.exchanges.state(self.number)
    }

    /// Says that its answer is made, and passed on as it comes.
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
            // The time of a head that has begun to come begins now.
            life.partial_since.set(Some(life.now()));
        }
    }
}

#[cfg(test)]
mod tests;

//! Who is at the other end of a connection, and what that client has of one worker.
//!
//! Owns who counts as one client. Lives on one thread: what a client has of another worker is not
//! known here.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::net::SocketAddr;
use std::rc::{Rc, Weak};

use super::clients::ClientKey;
use crate::queue::Holder;

/// Clients that are remembered after their connections have ended, at the least.
const GONE_MAX: usize = 64;

/// What a client has of a worker.
#[derive(Default)]
pub struct ClientShares {
    /// Places of requests that are served.
    pub serving: Rc<Holder>,
    /// Places of those that wait for guests to be loaded.
    pub loading: Rc<Holder>,
    /// Places of those that are on their way to the upstream.
    pub upstream: Rc<Holder>,
}

/// The clients of one worker.
#[derive(Default)]
pub struct WorkerClients {
    clients: RefCell<HashMap<ClientKey, Weak<ClientShares>>>,
    /// How many there are when those are forgotten that have gone.
    forget_at: Cell<usize>,
}

impl WorkerClients {
    /// What the client at an address has.
    pub fn shares(&self, address: SocketAddr) -> Rc<ClientShares> {
        let mut clients = self.clients.borrow_mut();
        if clients.len() >= self.forget_at.get() {
            clients.retain(|_, client| client.strong_count() > 0);
            self.forget_at.set(2 * clients.len() + GONE_MAX);
        }
        let known = clients.entry(ClientKey::of(address.ip())).or_default();
        let client = known.upgrade().unwrap_or_default();
        *known = Rc::downgrade(&client);
        client
    }
}

#[cfg(test)]
mod tests;

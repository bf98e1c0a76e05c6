//! Each client's share of one worker.
//!
//! Lives on one thread, so a client's shares of other workers are not known here.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::net::SocketAddr;
use std::rc::{Rc, Weak};

use super::clients::ClientKey;
use crate::queue::Holder;

/// How many entries of gone clients may collect before the map is cleaned up, at least.
const GONE_MAX: usize = 64;

/// One client's share of a worker.
#[derive(Default)]
pub struct ClientShares {
    /// The client's requests that have or wait for a permit.
    pub serving: Rc<Holder>,
    /// The client's requests that wait for guests to be loaded.
    pub loading: Rc<Holder>,
    /// The client's requests that are in flight to the upstream or wait for that.
    pub upstream: Rc<Holder>,
}

/// The clients of one worker.
#[derive(Default)]
pub struct WorkerClients {
    clients: RefCell<HashMap<ClientKey, Weak<ClientShares>>>,
    /// The number of entries at which gone clients are removed.
    forget_at: Cell<usize>,
}

impl WorkerClients {
    /// The share of the client at `address`.
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

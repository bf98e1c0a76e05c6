//! Which worker gets a new connection.
//!
//! Owns the number of connections of each worker, and the way from the one that has accepted a
//! connection to the one that is to have it. The kernel spreads connections over the workers'
//! sockets by a hash, so of a few long-lived ones some worker may get most.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};

use super::clients::Presence;
use super::socket::Detached;
use crate::config;

/// The workers, as places for connections.
pub struct Balance {
    policy: config::Balance,
    places: Box<[Place]>,
}

/// One worker, on a cache line of its own.
#[repr(align(128))]
struct Place {
    open: AtomicUsize,
    inbox: UnboundedSender<Accepted>,
}

/// A connection that has been accepted for a worker. Not more of them wait than there may be
/// connections.
pub struct Accepted {
    pub socket: Detached,
    pub peer: SocketAddr,
    pub seat: Seat,
}

/// A connection's place with a worker and among all connections, as long as this lives.
pub struct Seat {
    balance: Arc<Balance>,
    worker: usize,
    _presence: Presence,
}

impl Balance {
    /// The places, and where each worker gets what others have accepted for it.
    pub fn new(
        policy: config::Balance,
        workers: usize,
    ) -> (Arc<Self>, Vec<UnboundedReceiver<Accepted>>) {
        let (places, inboxes) = (0..workers)
            .map(|_| {
                let (inbox, received) = unbounded_channel();
                (Place { open: AtomicUsize::new(0), inbox }, received)
            })
            .unzip::<_, _, Vec<_>, _>();
        (Arc::new(Balance { policy, places: places.into() }), inboxes)
    }

    /// A seat for a connection that `worker` has accepted: with the worker that has the fewest, if
    /// that is worth handing it over.
    pub fn seat(self: &Arc<Self>, worker: usize, presence: Presence) -> Seat {
        let open = |worker: usize| self.places[worker].open.load(Ordering::Relaxed);
        let own = open(worker);
        let least = match self.policy {
            config::Balance::Kernel => None,
            config::Balance::Least => {
                (0..self.places.len()).map(|worker| (open(worker), worker)).min()
            }
        };
        // Of many, a few more or less make no difference.
        let worker = match least {
            Some((least, other)) if own - least.min(own) > own / 8 => other,
            _ => worker,
        };
        self.places[worker].open.fetch_add(1, Ordering::Relaxed);
        Seat { balance: self.clone(), worker, _presence: presence }
    }

    /// Hands a connection to the worker that it has a seat with.
    ///
    /// # Errors
    /// That worker has ended; the connection comes back.
    pub fn hand_over(&self, accepted: Accepted) -> Result<(), Accepted> {
        self.places[accepted.seat.worker].inbox.send(accepted).map_err(|error| error.0)
    }
}

impl Seat {
    /// Whose connection it is.
    pub fn worker(&self) -> usize {
        self.worker
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        self.balance.places[self.worker].open.fetch_sub(1, Ordering::Relaxed);
    }
}

//! Which worker gets a new connection.
//!
//! Owns the number of connections of each worker, and the way from the one that has accepted a
//! connection to the one that is to have it. The kernel spreads connections over the workers'
//! sockets by a hash, so of a few long-lived ones some worker may get most.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};

use super::clients::ClientPermit;
use super::socket::DetachedSocket;
use crate::config;

/// The workers, as places for connections.
pub struct Balancer {
    policy: config::BalancePolicy,
    slots: Box<[WorkerSlot]>,
}

/// One worker, on a cache line of its own.
#[repr(align(128))]
struct WorkerSlot {
    open: AtomicUsize,
    inbox: UnboundedSender<AcceptedConnection>,
}

/// A connection that has been accepted for a worker. Not more of them wait than there may be
/// connections.
pub struct AcceptedConnection {
    pub socket: DetachedSocket,
    pub peer: SocketAddr,
    pub permit: ConnectionPermit,
}

/// A connection's place with a worker and among all connections, as long as this lives.
pub struct ConnectionPermit {
    balancer: Arc<Balancer>,
    worker: usize,
    _client_permit: ClientPermit,
}

impl Balancer {
    /// The places, and where each worker gets what others have accepted for it.
    pub fn new(
        policy: config::BalancePolicy,
        workers: usize,
    ) -> (Arc<Self>, Vec<UnboundedReceiver<AcceptedConnection>>) {
        let (slots, inboxes) = (0..workers)
            .map(|_| {
                let (inbox, received) = unbounded_channel();
                (WorkerSlot { open: AtomicUsize::new(0), inbox }, received)
            })
            .unzip::<_, _, Vec<_>, _>();
        (Arc::new(Balancer { policy, slots: slots.into() }), inboxes)
    }

    /// A seat for a connection that `worker` has accepted: with the worker that has the fewest, if
    /// that is worth handing it over.
    pub fn assign(
        self: &Arc<Self>,
        worker: usize,
        client_permit: ClientPermit,
    ) -> ConnectionPermit {
        let open = |worker: usize| self.slots[worker].open.load(Ordering::Relaxed);
        let own = open(worker);
        let least = match self.policy {
            config::BalancePolicy::Kernel => None,
            config::BalancePolicy::Least => {
                (0..self.slots.len()).map(|worker| (open(worker), worker)).min()
            }
        };
        // Of many, a few more or less make no difference.
        let worker = match least {
            Some((least, other)) if own - least.min(own) > own / 8 => other,
            _ => worker,
        };
        self.slots[worker].open.fetch_add(1, Ordering::Relaxed);
        ConnectionPermit { balancer: self.clone(), worker, _client_permit: client_permit }
    }

    /// Hands a connection to the worker that it has a seat with.
    ///
    /// # Errors
    /// That worker has ended; the connection comes back.
    pub fn hand_over(&self, accepted: AcceptedConnection) -> Result<(), AcceptedConnection> {
        self.slots[accepted.permit.worker].inbox.send(accepted).map_err(|error| error.0)
    }
}

impl ConnectionPermit {
    /// Whose connection it is.
    pub fn worker(&self) -> usize {
        self.worker
    }
}

impl Drop for ConnectionPermit {
    fn drop(&mut self) {
        self.balancer.slots[self.worker].open.fetch_sub(1, Ordering::Relaxed);
    }
}

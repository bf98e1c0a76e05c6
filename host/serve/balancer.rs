//! Chooses the worker that serves a new connection.
//!
//! Owns the number of connections of each worker, and the channels by which the worker that accepts
//! a connection hands it over. The kernel spreads connections over the workers' sockets by a hash,
//! so one worker may get most of a few long-lived connections.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};

use super::clients::ClientPermit;
use super::socket::DetachedSocket;
use crate::config;

/// Counts the open connections of each worker.
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

/// A connection that was accepted for another worker. The limit on connections also bounds how many
/// of these wait.
pub struct AcceptedConnection {
    /// The socket, registered with no worker's runtime.
    pub socket: DetachedSocket,
    /// The client's address.
    pub peer: SocketAddr,
    /// Counts the connection with its new worker.
    pub permit: ConnectionPermit,
}

/// Counts a connection with its worker and its client until this is dropped.
pub struct ConnectionPermit {
    balancer: Arc<Balancer>,
    worker: usize,
    _client_permit: ClientPermit,
}

impl Balancer {
    /// A balancer without connections, and for each worker the receiver of connections that other
    /// workers accept for it.
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

    /// Chooses a worker for a connection that `worker` has accepted: `worker` itself, or the one
    /// with the fewest connections if it has clearly fewer.
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
        // A difference of an eighth or less is not worth a handover.
        let worker = match least {
            Some((least, other)) if own - least.min(own) > own / 8 => other,
            _ => worker,
        };
        self.slots[worker].open.fetch_add(1, Ordering::Relaxed);
        ConnectionPermit { balancer: self.clone(), worker, _client_permit: client_permit }
    }

    /// Hands a connection to the worker that its permit names.
    ///
    /// # Errors
    /// That worker has ended; the connection comes back.
    pub fn hand_over(&self, accepted: AcceptedConnection) -> Result<(), AcceptedConnection> {
        self.slots[accepted.permit.worker].inbox.send(accepted).map_err(|error| error.0)
    }
}

impl ConnectionPermit {
    /// The index of the worker that serves the connection.
    pub fn worker(&self) -> usize {
        self.worker
    }
}

impl Drop for ConnectionPermit {
    fn drop(&mut self) {
        self.balancer.slots[self.worker].open.fetch_sub(1, Ordering::Relaxed);
    }
}

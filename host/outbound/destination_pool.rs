//! One guest's way to one destination, on one worker: its places, and its connections.

use std::cell::Cell;
use std::time::Duration;

use tokio::sync::{Semaphore, SemaphorePermit};

use super::body::{AwaitedParty, GuestUpload, UploadProgress};
use super::connection_pool::{ConnectionPool, PooledConnection, Sharing};
use super::failure::OutboundFailure;

/// Idle connections of one way.
const IDLE_COUNT_MAX: usize = 32;
/// How long a connection may take to be ready for the next request once a response is complete.
const SETTLE_MAX: Duration = Duration::from_millis(100);

/// See the file.
pub struct DestinationPool {
    permits: Semaphore,
    queued: Cell<usize>,
    queue_max: usize,
    pub connections: ConnectionPool<GuestUpload>,
}

/// A request that waits for a place.
struct Queued<'a>(&'a Cell<usize>);

impl Drop for Queued<'_> {
    fn drop(&mut self) {
        self.0.set(self.0.get() - 1);
    }
}

impl DestinationPool {
    /// A way with so many places, and a queue as long.
    pub fn new(in_flight_max: usize, is_secure: bool) -> Self {
        DestinationPool {
            permits: Semaphore::new(in_flight_max),
            queued: Cell::new(0),
            queue_max: in_flight_max,
            connections: ConnectionPool::new(IDLE_COUNT_MAX, is_secure, Sharing::All),
        }
    }

    /// Takes a place, or waits for one in the queue.
    pub async fn acquire(&self) -> Result<SemaphorePermit<'_>, OutboundFailure> {
        if let Ok(place) = self.permits.try_acquire() {
            return Ok(place);
        }
        if self.queued.get() >= self.queue_max {
            return Err(OutboundFailure::Full);
        }
        self.queued.set(self.queued.get() + 1);
        let _queued = Queued(&self.queued);
        self.permits.acquire().await.map_err(|_| OutboundFailure::Full)
    }

    /// Takes a connection back whose exchange is over; one that has more to send or to receive is
    /// closed instead. A guest may be told that a response is complete before it has said that its
    /// request is: until then the connection is not ready.
    pub async fn release(
        &self,
        lent: PooledConnection<GuestUpload>,
        is_whole: bool,
        progress: &UploadProgress,
    ) {
        if lent.inner.is_h2() {
            self.abandon(progress);
        } else if !is_whole || progress.get().0 == AwaitedParty::Server {
            return;
        }
        self.connections.release(lent, Some(SETTLE_MAX)).await;
    }

    /// Sends no more requests by a connection of HTTP/2 on which one is stuck whose guest is gone;
    /// it is closed with the last that is under way.
    pub fn abandon(&self, progress: &UploadProgress) {
        if progress.get().0 == AwaitedParty::Server {
            self.connections.retire_shared();
        }
    }
}

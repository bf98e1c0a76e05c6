//! One handler's requests to one destination, on one worker: permits, queue and connections.

use std::cell::Cell;
use std::time::Duration;

use tokio::sync::{Semaphore, SemaphorePermit};

use super::body::{AwaitedParty, GuestUpload, UploadProgress};
use super::connection_pool::{ConnectionPool, PooledConnection, Sharing};
use super::failure::OutboundFailure;

/// How many idle connections one pool keeps.
const IDLE_COUNT_MAX: usize = 32;
/// How long a connection may take to be ready for the next request once a response is complete.
const SETTLE_MAX: Duration = Duration::from_millis(100);

/// The connections of one handler to one destination, with a limit on requests in flight.
pub struct DestinationPool {
    permits: Semaphore,
    queued: Cell<usize>,
    queue_max: usize,
    /// The connections.
    pub connections: ConnectionPool<GuestUpload>,
}

/// Counts a request that waits for a permit until this is dropped.
struct Queued<'a>(&'a Cell<usize>);

impl Drop for Queued<'_> {
    fn drop(&mut self) {
        self.0.set(self.0.get() - 1);
    }
}

impl DestinationPool {
    /// An empty pool for `in_flight_max` requests in flight, and as many that wait. `is_secure`
    /// says that the server may speak HTTP/2.
    pub fn new(in_flight_max: usize, is_secure: bool) -> Self {
        DestinationPool {
            permits: Semaphore::new(in_flight_max),
            queued: Cell::new(0),
            queue_max: in_flight_max,
            connections: ConnectionPool::new(IDLE_COUNT_MAX, is_secure, Sharing::All),
        }
    }

    /// Takes a permit for one request, or waits for one. Cancel safe.
    ///
    /// # Errors
    /// [`OutboundFailure::Full`] if too many requests wait already.
    pub async fn acquire(&self) -> Result<SemaphorePermit<'_>, OutboundFailure> {
        if let Ok(permit) = self.permits.try_acquire() {
            return Ok(permit);
        }
        if self.queued.get() >= self.queue_max {
            return Err(OutboundFailure::Full);
        }
        self.queued.set(self.queued.get() + 1);
        let _queued = Queued(&self.queued);
        self.permits.acquire().await.map_err(|_| OutboundFailure::Full)
    }

    /// Gives a connection back whose exchange has ended. An HTTP/1.1 connection that still has
    /// bytes to send or to receive is closed instead. A guest may end its request's body only after
    /// the response is complete, so this waits shortly until the connection is ready.
    pub async fn release(
        &self,
        pooled: PooledConnection<GuestUpload>,
        is_whole: bool,
        progress: &UploadProgress,
    ) {
        if pooled.inner.is_h2() {
            self.abandon(progress);
        } else if !is_whole || progress.get().0 == AwaitedParty::Server {
            return;
        }
        self.connections.release(pooled, Some(SETTLE_MAX)).await;
    }

    /// Ends a request of a guest that is gone. If the server does not take the request's body,
    /// retires the HTTP/2 connections: each is closed after its last request in flight.
    pub fn abandon(&self, progress: &UploadProgress) {
        if progress.get().0 == AwaitedParty::Server {
            self.connections.retire_shared();
        }
    }
}

//! One guest's way to one destination, on one worker: its places, and its connections.

use std::cell::Cell;
use std::time::Duration;

use tokio::sync::{Semaphore, SemaphorePermit};

use super::body::{Progress, Turn, Upload};
use super::connections::{Connections, Lent, Sharing};
use super::failure::Failure;

/// Idle connections of one way.
const IDLE_COUNT_MAX: usize = 32;
/// How long a connection may take to be ready for the next request once a response is complete.
const SETTLE_MAX: Duration = Duration::from_millis(100);

/// See the file.
pub struct Way {
    places: Semaphore,
    queued: Cell<usize>,
    queue_max: usize,
    pub connections: Connections<Upload>,
}

/// A request that waits for a place.
struct Queued<'a>(&'a Cell<usize>);

impl Drop for Queued<'_> {
    fn drop(&mut self) {
        self.0.set(self.0.get() - 1);
    }
}

impl Way {
    /// A way with so many places, and a queue as long.
    pub fn new(in_flight_max: usize, is_secure: bool) -> Self {
        Way {
            places: Semaphore::new(in_flight_max),
            queued: Cell::new(0),
            queue_max: in_flight_max,
            connections: Connections::new(IDLE_COUNT_MAX, is_secure, Sharing::All),
        }
    }

    /// Takes a place, or waits for one in the queue.
    pub async fn place(&self) -> Result<SemaphorePermit<'_>, Failure> {
        if let Ok(place) = self.places.try_acquire() {
            return Ok(place);
        }
        if self.queued.get() >= self.queue_max {
            return Err(Failure::Full);
        }
        self.queued.set(self.queued.get() + 1);
        let _queued = Queued(&self.queued);
        self.places.acquire().await.map_err(|_| Failure::Full)
    }

    /// Takes a connection back whose exchange is over; one that has more to send or to receive is
    /// closed instead. A guest may be told that a response is complete before it has said that its
    /// request is: until then the connection is not ready.
    pub async fn give_back(&self, lent: Lent<Upload>, is_whole: bool, progress: &Progress) {
        if lent.link.is_h2() {
            self.give_up(progress);
        } else if !is_whole || progress.get().0 == Turn::Server {
            return;
        }
        self.connections.give_back(lent, Some(SETTLE_MAX)).await;
    }

    /// Sends no more requests by a connection of HTTP/2 on which one is stuck whose guest is gone;
    /// it is closed with the last that is under way.
    pub fn give_up(&self, progress: &Progress) {
        if progress.get().0 == Turn::Server {
            self.connections.leave_shared();
        }
    }
}

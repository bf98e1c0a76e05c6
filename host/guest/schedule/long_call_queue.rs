//! Where requests to a guest wait whose calls are long, once as many run as there is time for.
//!
//! Owns how many run. More at once would only be late together, and hold instances. Lives on one
//! thread, but for the count that the slow lane keeps.

use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use crate::grants::QueueLimits;
use crate::message::Reject;
use crate::queue::{Holder, Queue};

/// Calls of one guest that may want the CPU at once, from one worker: two, so that one is there
/// when the other has ended.
const RUNNABLE_MAX: usize = 2;
/// How often the first in line looks for itself: a call which begins to wait for something, and so
/// makes room, does not say so.
const QUEUE_POLL_INTERVAL: Duration = Duration::from_millis(5);

/// A guest's long calls on one worker, and the requests that wait to be one.
pub struct LongCallQueue {
    /// Calls that are in the slow lane and wait for nothing but the CPU.
    runnable: Arc<AtomicUsize>,
    queue: Queue,
}

impl LongCallQueue {
    /// `owner` is what its owner has in all lines.
    pub fn new(limits: QueueLimits, owner: Rc<Holder>) -> Self {
        LongCallQueue { runnable: Arc::default(), queue: Queue::new(limits, Some(owner)) }
    }

    /// Says how many may wait from now on, and how long.
    pub fn limit(&self, limits: QueueLimits) {
        self.queue.limit(limits);
    }

    /// The count of calls that want the CPU, to be kept by the slow lane.
    pub fn runnable(&self) -> Arc<AtomicUsize> {
        self.runnable.clone()
    }

    /// Whether who comes now has to wait.
    pub fn is_saturated(&self) -> bool {
        !self.queue.is_empty() || !self.has_room()
    }

    /// Says that a call has ended: lets the first in line look.
    pub fn wake_next(&self) {
        self.queue.wake_first();
    }

    /// Waits for a turn, until `deadline` at most. The client that holds the least is next.
    ///
    /// # Errors
    /// [`Reject::NoInstance`]: too many wait, or it has taken too long.
    pub async fn wait(&self, client: &Rc<Holder>, deadline: Instant) -> Result<(), Reject> {
        self.queue
            .wait_first(client, deadline, QUEUE_POLL_INTERVAL, || self.has_room().then_some(()))
            .await
    }

    fn has_room(&self) -> bool {
        self.runnable.load(Ordering::Relaxed) < RUNNABLE_MAX
    }
}

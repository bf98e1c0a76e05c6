//! The queue for requests to a guest with long calls, if as many run as there is time for.
//!
//! Owns how many run. More at once would all be late, and hold instances meanwhile. Lives on one
//! thread, except for the count that the slow lane keeps.

use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use crate::grants::QueueLimits;
use crate::message::Reject;
use crate::queue::{Holder, Queue};

/// Calls of one guest and worker that may want the CPU at once. With two, the next is there when
/// one ends.
const RUNNABLE_MAX: usize = 2;
/// How often the first in the queue checks for room. A call makes room when it begins to wait for
/// something, and does not report that.
const QUEUE_POLL_INTERVAL: Duration = Duration::from_millis(5);

/// A guest's long calls on one worker, and the requests that wait to become one.
pub struct LongCallQueue {
    /// Calls in the slow lane that wait for nothing but the CPU.
    runnable: Arc<AtomicUsize>,
    queue: Queue,
}

impl LongCallQueue {
    /// `owner` counts what the owner has in all queues.
    pub fn new(limits: QueueLimits, owner: Rc<Holder>) -> Self {
        LongCallQueue { runnable: Arc::default(), queue: Queue::new(limits, Some(owner)) }
    }

    /// Sets how many may wait, and for how long.
    pub fn limit(&self, limits: QueueLimits) {
        self.queue.limit(limits);
    }

    /// The count of calls that want the CPU. The slow lane keeps it.
    pub fn runnable(&self) -> Arc<AtomicUsize> {
        self.runnable.clone()
    }

    /// Whether a request that comes now has to wait.
    pub fn is_saturated(&self) -> bool {
        !self.queue.is_empty() || !self.has_room()
    }

    /// Wakes the first in the queue: a call has ended.
    pub fn wake_next(&self) {
        self.queue.wake_first();
    }

    /// Waits for a turn until `deadline`. The client that holds the least is next.
    ///
    /// # Errors
    /// [`Reject::NoInstance`]: the queue is full, or the wait was too long.
    pub async fn wait(&self, client: &Rc<Holder>, deadline: Instant) -> Result<(), Reject> {
        self.queue
            .wait_first(client, deadline, QUEUE_POLL_INTERVAL, || self.has_room().then_some(()))
            .await
    }

    fn has_room(&self) -> bool {
        self.runnable.load(Ordering::Relaxed) < RUNNABLE_MAX
    }
}

//! Makes instances: for requests that wait for one, and to replace used ones.
//!
//! Owns how long a request waits for slots or memory, and how many instances of one guest are made
//! ahead of requests. Lives on one thread.

use std::ops::Deref;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::{Pool, RECYCLE_MAX};
use crate::guest::instance::guest::Guest;
use crate::guest::instance::sandbox::Instance;
use crate::guest::schedule::CostClass;
use crate::message::{Reject, RequestId};

/// How long a request waits for memory, and how often it tries again. By then every worker has
/// dropped its ready instances.
const MEMORY_WAIT_MAX: Duration = Duration::from_millis(250);
const MEMORY_POLL_INTERVAL: Duration = Duration::from_millis(25);
/// If so many instances of a guest with start-up code are being made, none is made ahead of
/// requests: those that wait come first.
const STARTS_MAX: u32 = 16;

impl Pool {
    /// Makes an instance for a request that waits for it. If memory or slots are short, it waits
    /// for others to give some back: briefly for memory, for a slot as long as in a queue, but not
    /// past the deadline. `request` has the id, and when the request began.
    ///
    /// # Errors
    /// As [`Instance::make`].
    pub async fn make(
        &self,
        guest: Arc<Guest>,
        request: Option<(RequestId, Instant)>,
    ) -> Result<Instance, Reject> {
        let started = request.map_or_else(Instant::now, |(_, started)| started);
        // Instances that are ready, or wait to be recycled, may have them.
        let patience = match self.make_one(&guest, request).await {
            Err(Reject::NoMemory) => {
                self.clear();
                MEMORY_WAIT_MAX
            }
            Err(Reject::NoInstance) => {
                // What others keep ready is of no use to a guest that may have no more slots.
                if !guest.is_at_slot_quota() {
                    self.clear_engine(guest.engine);
                }
                guest.info.grants.concurrency.queue.wait_max
            }
            made => return made,
        };
        let until = (Instant::now() + patience).min(started + guest.info.grants.limits.deadline);
        loop {
            match self.make_one(&guest, request).await {
                Err(Reject::NoInstance | Reject::NoMemory) if Instant::now() < until => {
                    if self.drop_discarded(Instant::now() + RECYCLE_MAX) {
                        tokio::time::sleep(MEMORY_POLL_INTERVAL).await;
                    } else {
                        tokio::task::yield_now().await;
                    }
                }
                made => return made,
            }
        }
    }

    async fn make_one(
        &self,
        guest: &Arc<Guest>,
        request: Option<(RequestId, Instant)>,
    ) -> Result<Instance, Reject> {
        // Making an instance may change the address space, and so wait for the kernel while long
        // calls in the slow lane give memory back. Where that is slow, it takes turns.
        let takes_turns = matches!(
            self.schedule.instantiation_class(guest.id),
            CostClass::Heavy | CostClass::Long
        );
        if guest.runs_startup() || takes_turns {
            let _start = StartGuard::begin(self, guest.id);
            return Instance::make(guest.clone(), &self.schedule, request).await;
        }
        let _running = self.schedule.ticker().begin();
        Instance::make_now(guest.clone(), &self.schedule, request.map(|(id, _)| id))
    }

    /// Makes an instance in the background to replace a used one, as its start-up code may run long
    /// or wait. Does nothing if many are being made.
    pub(super) fn recycle_later(self: &Rc<Self>, guest: Arc<Guest>) {
        if self.starts(guest.id, |starts| *starts) >= STARTS_MAX {
            return;
        }
        let start = StartGuard::begin(self.clone(), guest.id);
        tokio::task::spawn_local(async move {
            let pool = &start.pool;
            let _active = pool.schedule.begin();
            if let Ok(instance) = Instance::make(guest, &pool.schedule, None).await {
                pool.put(instance);
            }
        });
    }

    fn starts<T>(&self, guest: usize, count: impl FnOnce(&mut u32) -> T) -> T {
        count(&mut self.ready.borrow_mut().of_guest(guest).starts)
    }
}

/// Counts an instance as being made, until it is dropped.
struct StartGuard<P: Deref<Target = Pool>> {
    pool: P,
    guest: usize,
}

impl<P: Deref<Target = Pool>> StartGuard<P> {
    fn begin(pool: P, guest: usize) -> Self {
        pool.starts(guest, |starts| *starts += 1);
        StartGuard { pool, guest }
    }
}

impl<P: Deref<Target = Pool>> Drop for StartGuard<P> {
    fn drop(&mut self) {
        self.pool.starts(self.guest, |starts| *starts -= 1);
    }
}

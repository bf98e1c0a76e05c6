//! The slots of a shared instance: which requests are in it, and how much CPU time each is charged.
//!
//! Owns how CPU time is divided: equally among the requests in flight, less the allowance that the
//! body bytes of each have earned. Lives on one thread.

use std::cell::{Cell, RefCell};
use std::task::Waker;
use std::time::{Duration, Instant};

use crate::guest::schedule::ByteCounter;
use crate::message::RequestId;

/// Requests that an instance handles at once.
pub const CALL_SLOTS: usize = 16;

/// The slots of one instance.
pub struct CallSlots {
    each: RefCell<[Option<InFlightCall>; CALL_SLOTS]>,
    taken: Cell<usize>,
    /// CPU time charged so far to a request that has been there from the start: each slice of the
    /// instance, divided by the number of requests present.
    share: Cell<Duration>,
    /// When the last request left, and the share at that time.
    idle_since: Cell<(Instant, Duration)>,
}

/// One request in the instance.
struct InFlightCall {
    id: Option<RequestId>,
    /// Counts the bytes of its bodies.
    moved_bytes: ByteCounter,
    /// The share when the request came: what it is charged is the growth since then.
    share: Duration,
    waker: Waker,
}

impl Default for CallSlots {
    fn default() -> Self {
        CallSlots {
            each: RefCell::default(),
            taken: Cell::new(0),
            share: Cell::default(),
            idle_since: Cell::new((Instant::now(), Duration::ZERO)),
        }
    }
}

impl CallSlots {
    /// How many slots are taken.
    pub fn in_use(&self) -> usize {
        self.taken.get()
    }

    /// Takes a free slot and returns its number; `None` if all are taken.
    pub fn take(&self) -> Option<usize> {
        let mut each = self.each.borrow_mut();
        let number = each.iter().position(Option::is_none)?;
        let (share, waker) = (self.share.get(), Waker::noop().clone());
        each[number] =
            Some(InFlightCall { id: None, moved_bytes: ByteCounter::default(), share, waker });
        self.taken.set(self.taken.get() + 1);
        Some(number)
    }

    /// Enters the request of a slot, and the counter of its body bytes.
    pub fn assign(&self, number: usize, id: RequestId, moved_bytes: ByteCounter) {
        if let Some(call) = &mut self.each.borrow_mut()[number] {
            (call.id, call.moved_bytes) = (Some(id), moved_bytes);
        }
    }

    /// Sets the waker of a slot, which [`CallSlots::wake_all`] wakes.
    pub fn register(&self, number: usize, waker: &Waker) {
        if let Some(call) = &mut self.each.borrow_mut()[number]
            && !call.waker.will_wake(waker)
        {
            call.waker = waker.clone();
        }
    }

    /// Wakes every request that has registered a waker.
    pub fn wake_all(&self) {
        self.each.borrow().iter().flatten().for_each(|call| call.waker.wake_by_ref());
    }

    /// Frees a slot.
    pub fn release(&self, number: usize) {
        self.each.borrow_mut()[number] = None;
        self.taken.set(self.taken.get() - 1);
        if self.taken.get() == 0 {
            self.idle_since.set((Instant::now(), self.share.get()));
        }
    }

    /// How long the instance has been without requests, if it has none now.
    pub fn idle_for(&self) -> Duration {
        self.idle_since.get().0.elapsed()
    }

    /// Charges a slice to the requests that are there, in equal parts, less the allowance for the
    /// body bytes that they have moved. As long as the guest is not suspect, slices are measured by
    /// the wall clock, like a request's first one.
    pub fn charge(&self, used: Duration) {
        let each = self.each.borrow();
        let moved = each.iter().flatten().map(|call| call.moved_bytes.take_cpu_allowance()).sum();
        let present = u32::try_from(self.taken.get().max(1)).unwrap_or(u32::MAX);
        self.share.set(self.share.get() + used.saturating_sub(moved) / present);
    }

    /// The most CPU time that one of the requests has been charged. If there are none: what the
    /// instance has used since the last one left.
    pub fn most_cpu_time(&self) -> Duration {
        let each = self.each.borrow();
        let oldest = each.iter().flatten().map(|call| call.share).min();
        self.share.get() - oldest.unwrap_or(self.idle_since.get().1)
    }

    /// The request, if there is only one: then all that the guest does is done for it.
    pub fn sole_request(&self) -> Option<RequestId> {
        let each = self.each.borrow();
        let mut ids = each.iter().flatten().map(|call| call.id);
        ids.next().filter(|_| ids.next().is_none()).flatten()
    }

    /// The ids of all requests that have been entered.
    pub fn ids(&self) -> Vec<RequestId> {
        self.each.borrow().iter().flatten().filter_map(|call| call.id).collect()
    }
}

//! The requests that are in a shared instance, and what each is charged of its CPU time.
//!
//! Owns the sharing: CPU time is divided among those that are there, but for what moves bodies, for
//! which each byte pays. Lives on one thread.

use std::cell::{Cell, RefCell};
use std::task::Waker;
use std::time::{Duration, Instant};

use crate::guest::schedule::ByteCounter;
use crate::message::RequestId;

/// Requests that an instance handles at once.
pub const CALL_SLOTS: usize = 16;

/// The places of an instance.
pub struct CallSlots {
    each: RefCell<[Option<InFlightCall>; CALL_SLOTS]>,
    taken: Cell<usize>,
    /// CPU time that a request present all along would have been charged: the instance's, divided
    /// by the number of those present.
    share: Cell<Duration>,
    /// Since when there are none, and the share then.
    idle_since: Cell<(Instant, Duration)>,
}

/// What is known of a request.
struct InFlightCall {
    id: Option<RequestId>,
    /// Counts what passes of its bodies.
    moved_bytes: ByteCounter,
    /// The share when it came.
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
    /// How many are taken.
    pub fn in_use(&self) -> usize {
        self.taken.get()
    }

    /// Takes one, if one is free, and gives its number.
    pub fn take(&self) -> Option<usize> {
        let mut each = self.each.borrow_mut();
        let number = each.iter().position(Option::is_none)?;
        let (share, waker) = (self.share.get(), Waker::noop().clone());
        each[number] =
            Some(InFlightCall { id: None, moved_bytes: ByteCounter::default(), share, waker });
        self.taken.set(self.taken.get() + 1);
        Some(number)
    }

    /// Says whose it is, and what counts the bytes of its bodies.
    pub fn assign(&self, number: usize, id: RequestId, moved_bytes: ByteCounter) {
        if let Some(seated) = &mut self.each.borrow_mut()[number] {
            (seated.id, seated.moved_bytes) = (Some(id), moved_bytes);
        }
    }

    /// Has this one woken when something is to be known of it.
    pub fn register(&self, number: usize, waker: &Waker) {
        if let Some(seated) = &mut self.each.borrow_mut()[number]
            && !seated.waker.will_wake(waker)
        {
            seated.waker = waker.clone();
        }
    }

    pub fn wake_all(&self) {
        self.each.borrow().iter().flatten().for_each(|seated| seated.waker.wake_by_ref());
    }

    /// Gives one back.
    pub fn release(&self, number: usize) {
        self.each.borrow_mut()[number] = None;
        self.taken.set(self.taken.get() - 1);
        if self.taken.get() == 0 {
            self.idle_since.set((Instant::now(), self.share.get()));
        }
    }

    /// How long there have been none, where there are none.
    pub fn idle_for(&self) -> Duration {
        self.idle_since.get().0.elapsed()
    }

    /// Counts CPU time as that of the requests that are there, but for what moves bodies. Slices
    /// are measured by the wall clock, as a request's first is, until the guest is suspect.
    pub fn charge(&self, used: Duration) {
        let each = self.each.borrow();
        let moved =
            each.iter().flatten().map(|seated| seated.moved_bytes.take_cpu_allowance()).sum();
        let present = u32::try_from(self.taken.get().max(1)).unwrap_or(u32::MAX);
        self.share.set(self.share.get() + used.saturating_sub(moved) / present);
    }

    /// The most CPU time that one of them has had, or what the instance does without any.
    pub fn most_cpu_time(&self) -> Duration {
        let each = self.each.borrow();
        let oldest = each.iter().flatten().map(|seated| seated.share).min();
        self.share.get() - oldest.unwrap_or(self.idle_since.get().1)
    }

    /// The request that is there alone, if one is: what the guest does, it does for that.
    pub fn sole_request(&self) -> Option<RequestId> {
        let each = self.each.borrow();
        let mut ids = each.iter().flatten().map(|seated| seated.id);
        ids.next().filter(|_| ids.next().is_none()).flatten()
    }

    /// Those of which it is known whose they are.
    pub fn ids(&self) -> Vec<RequestId> {
        self.each.borrow().iter().flatten().filter_map(|seated| seated.id).collect()
    }
}

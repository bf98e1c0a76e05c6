//! One worker's scheduler: what it knows of each guest's calls, and what it runs them with.
//!
//! Owns what becomes of that knowledge when a guest has a new version, or its number goes to
//! another handler. Lives on one thread and takes no lock.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::sync::Arc;
use std::task::Context;
use std::time::{Duration, Instant};

use super::first_calls::FirstCalls;
use super::lane::{LaneHandle, Payer};
use super::long_call_queue::LongCallQueue;
use super::pending_drops::{DropCost, PendingDrops};
use super::run_queue::{RunPermit, RunQueue};
use super::ticker::TickerHandle;
use super::usage::{CostClass, Usage};
use crate::grants::Share;
use crate::guest::engine::guest_info::GuestInfo;
use crate::metrics::{Counters, Reasons, WorkerCounters};
use crate::queue::Holders;

/// The scheduler of one worker.
pub struct Scheduler {
    /// By the guest's number.
    guests: RefCell<Vec<GuestCalls>>,
    /// What to expect of guests that have had no calls.
    first_calls: RefCell<FirstCalls>,
    ticker: TickerHandle,
    /// What each owner has in the queues for long calls.
    queued_by_owner: Holders,
    /// Heavy calls in the fast lane that can go on.
    run_queue: Rc<RunQueue>,
    /// The slow lane, for calls that outlast their quantum.
    lane: LaneHandle,
    /// What is about to be dropped.
    pending_drops: PendingDrops,
    /// How many calls are under way.
    active_count: Cell<usize>,
    counters: WorkerCounters,
}

/// What is known of the calls of one guest.
#[derive(Default)]
struct GuestCalls {
    /// What they cost.
    usage: Usage,
    /// The queue for its requests, once it has had long calls.
    long_calls: Option<Rc<LongCallQueue>>,
    /// The guest's info at its last request. The `Rc` is this worker's own, so that calls can clone
    /// it without an atomic operation.
    #[expect(clippy::redundant_allocation, reason = "its clones count without atomic operations")]
    info: Option<Rc<Arc<GuestInfo>>>,
}

impl GuestCalls {
    /// Records which guest this is. Returns its info.
    #[expect(clippy::redundant_allocation, reason = "its clones count without atomic operations")]
    fn identify(&mut self, info: &Arc<GuestInfo>) -> &Rc<Arc<GuestInfo>> {
        if !self.info.as_ref().is_some_and(|known| Arc::ptr_eq(known, info)) {
            self.forget(info);
        }
        self.info.get_or_insert_with(|| Rc::new(info.clone()))
    }

    /// Forgets what was known of an earlier guest.
    #[cold]
    fn forget(&mut self, info: &GuestInfo) {
        // The number has gone to another handler.
        if self.info().is_some_and(|known| !Arc::ptr_eq(&known.grants, &info.grants)) {
            self.long_calls = None;
        }
        self.info = None;
        // The calls of a new version may cost more or less.
        self.usage = Usage::default();
    }

    /// Who pays for the CPU time of its calls.
    fn payer(&self, guest: usize) -> Payer {
        let owner = self.info().map(|info| info.grants.owner.id);
        Payer { owner: owner.unwrap_or(Share::of_other(guest).id), guest }
    }

    /// The guest's owner, if that has other guests.
    fn shared_owner(&self) -> Option<u64> {
        let share = self.info()?.grants.share();
        (!share.is_sole).then_some(share.id)
    }

    fn info(&self) -> Option<&GuestInfo> {
        self.info.as_ref().map(|info| &***info)
    }
}

/// A call that is under way, until this is dropped.
pub struct ActiveCall<'a>(&'a Scheduler);

impl Drop for ActiveCall<'_> {
    fn drop(&mut self) {
        self.0.count_active_call(false);
    }
}

impl Scheduler {
    /// To be called on the worker's thread, whose slow lane is `lane` from now on.
    pub fn new(ticker: TickerHandle, lane: LaneHandle, counters: WorkerCounters) -> Self {
        lane.make_local();
        Scheduler {
            guests: RefCell::default(),
            first_calls: RefCell::default(),
            ticker,
            queued_by_owner: Holders::default(),
            run_queue: Rc::default(),
            lane,
            pending_drops: PendingDrops::default(),
            active_count: Cell::new(0),
            counters,
        }
    }

    /// The slow lane, for calls that outlast their quantum.
    pub fn lane(&self) -> &LaneHandle {
        &self.lane
    }

    /// The counters of this worker.
    pub fn counters(&self) -> &Counters {
        &self.counters
    }

    /// The counters by reason.
    pub fn reasons(&self) -> &Reasons {
        &self.counters.reasons
    }

    /// The order of heavy calls in the fast lane.
    pub fn run_queue(&self) -> &Rc<RunQueue> {
        &self.run_queue
    }

    /// Has to be told of running calls, so that guests yield.
    pub fn ticker(&self) -> &TickerHandle {
        &self.ticker
    }

    /// What is about to be dropped.
    pub fn pending_drops(&self) -> &PendingDrops {
        &self.pending_drops
    }

    /// Drops a value; in the slow lane, if that takes a while.
    pub fn drop_or_defer(&self, bulky: impl DropCost) {
        if bulky.is_slow_to_drop() {
            // The mark goes last.
            self.lane.defer_drop((bulky, self.pending_drops.drop_mark()));
        }
    }

    /// Counts a call of a guest that is about to begin.
    pub fn count(&self, guest: usize, info: &Arc<GuestInfo>) {
        self.with(guest, |calls| {
            calls.identify(info);
            calls.usage.count();
        });
    }

    /// The guest's info, for those that outlive its instance.
    pub fn shared_info(&self, guest: usize, info: &Arc<GuestInfo>) -> Rc<Arc<GuestInfo>> {
        self.with(guest, |calls| calls.identify(info).clone())
    }

    /// The info of a guest at its last request; `None` if it has had none.
    pub fn last_info(&self, guest: usize) -> Option<Rc<Arc<GuestInfo>>> {
        self.guests.borrow().get(guest).and_then(|calls| calls.info.clone())
    }

    /// The cost class of a guest's calls. If there were none: what its owner's other guests
    /// suggest.
    pub fn cost_class(&self, guest: usize) -> CostClass {
        let guests = self.guests.borrow();
        guests.get(guest).map_or(CostClass::Short, |calls| match calls.usage.cost_class() {
            CostClass::New if self.is_expected_long(calls) => CostClass::Long,
            class => class,
        })
    }

    #[cold]
    fn is_expected_long(&self, calls: &GuestCalls) -> bool {
        calls.shared_owner().is_some_and(|owner| self.first_calls.borrow().are_long(owner))
    }

    /// The cost class of making an instance. If the guest's calls are long, that is negligible.
    pub fn instantiation_class(&self, guest: usize) -> CostClass {
        self.note(guest, |usage| match usage.cost_class() {
            CostClass::Long => CostClass::Long,
            _ => usage.instantiation_class(),
        })
    }

    /// Puts a call of a guest in the run queue. `expected` is the CPU time of its next slice;
    /// without it, that of the guest's calls.
    pub fn join_run_queue(
        &self,
        guest: usize,
        expected: Option<Duration>,
        cx: &Context<'_>,
    ) -> RunPermit {
        let expected = expected.unwrap_or_else(|| self.note(guest, |usage| usage.slice()));
        self.reasons().calls.turns.add(1);
        self.run_queue.join(self.payer(guest), expected, cx)
    }

    /// Records the CPU time of a slice of a guest's call in the fast lane. Returns the guest's cost
    /// class now.
    pub fn note_slice(&self, guest: usize, used: Duration) -> CostClass {
        self.note(guest, |usage| {
            usage.note_slice(used, Instant::now);
            usage.cost_class()
        })
    }

    /// Records whether a call of a guest has outlasted the quantum, and the CPU time of its last
    /// slice in the fast lane, if that was measured.
    pub fn note_call(&self, guest: usize, is_long: bool, slice: Option<Duration>) {
        let owner = self.with(guest, |calls| {
            if let Some(used) = slice {
                calls.usage.note_slice(used, Instant::now);
            }
            let is_first = calls.usage.is_new();
            calls.usage.note_call(is_long);
            if is_first { calls.shared_owner() } else { None }
        });
        if let Some(owner) = owner {
            self.first_calls.borrow_mut().note(owner, is_long);
        }
    }

    /// Reads or updates what the calls of a guest cost.
    pub fn note<T>(&self, guest: usize, note: impl FnOnce(&mut Usage) -> T) -> T {
        self.with(guest, |calls| note(&mut calls.usage))
    }

    /// Who pays for the CPU time of a guest's calls.
    pub fn payer(&self, guest: usize) -> Payer {
        self.with(guest, |calls| calls.payer(guest))
    }

    /// The queue for requests to a guest with long calls.
    pub fn long_call_queue(&self, guest: usize) -> Rc<LongCallQueue> {
        self.with(guest, |calls| {
            let limits = calls.info().map(|info| info.grants.concurrency.queue);
            let owner = calls.payer(guest).owner;
            let new = || {
                Rc::new(LongCallQueue::new(
                    limits.unwrap_or_default(),
                    self.queued_by_owner.of(owner),
                ))
            };
            let queue = calls.long_calls.get_or_insert_with(new);
            // The guest may have another version by now, with other limits.
            if let Some(limits) = limits {
                queue.limit(limits);
            }
            queue.clone()
        })
    }

    /// The queue that a request to a guest has to wait in, if it has to.
    pub fn queue_to_wait_in(&self, guest: usize) -> Option<Rc<LongCallQueue>> {
        let guests = self.guests.borrow();
        let calls =
            guests.get(guest).filter(|calls| calls.usage.cost_class() == CostClass::Long)?;
        calls.long_calls.as_ref().filter(|queue| queue.is_saturated()).cloned()
    }

    /// How many calls are under way.
    pub fn active_calls(&self) -> usize {
        self.active_count.get()
    }

    /// Counts a call as under way until the guard is dropped.
    pub fn begin(&self) -> ActiveCall<'_> {
        self.count_active_call(true);
        ActiveCall(self)
    }

    /// Counts one more call that is under way, or one less.
    pub fn count_active_call(&self, more: bool) {
        let count = self.active_count.get();
        self.active_count.set(if more { count + 1 } else { count - 1 });
    }

    fn with<T>(&self, guest: usize, look: impl FnOnce(&mut GuestCalls) -> T) -> T {
        let mut guests = self.guests.borrow_mut();
        if guest >= guests.len() {
            grow(&mut guests, guest);
        }
        look(&mut guests[guest])
    }
}

/// Makes room for guests up to this number.
#[cold]
fn grow(guests: &mut Vec<GuestCalls>, guest: usize) {
    guests.resize_with(guest + 1, GuestCalls::default);
}

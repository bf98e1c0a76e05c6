//! One worker's schedule: what it knows of each guest's calls, and what it has to run them with.
//!
//! Owns what becomes of that when a guest has another version, or its number is another's. Lives on
//! one thread and takes no lock.

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

/// The schedule of one worker.
pub struct Scheduler {
    /// By the number of the guest.
    guests: RefCell<Vec<GuestCalls>>,
    /// What is expected of guests of which nothing is known.
    first_calls: RefCell<FirstCalls>,
    ticker: TickerHandle,
    /// What owners have in lines.
    queued_by_owner: Holders,
    /// Heavy calls that can go on.
    run_queue: Rc<RunQueue>,
    /// Where calls go that outlast their quantum.
    lane: LaneHandle,
    /// What is on its way out.
    pending_drops: PendingDrops,
    /// Calls that are under way.
    active_count: Cell<usize>,
    counters: WorkerCounters,
}

/// What is known of the calls of one guest.
#[derive(Default)]
struct GuestCalls {
    /// What they cost.
    usage: Usage,
    /// Where requests to it wait, once it has had long calls.
    long_calls: Option<Rc<LongCallQueue>>,
    /// Who it was when it was asked for last. Counted by this worker alone, so that calls can have
    /// it for nothing.
    #[expect(clippy::redundant_allocation, reason = "its clones count without atomic operations")]
    info: Option<Rc<Arc<GuestInfo>>>,
}

impl GuestCalls {
    /// Takes note of who the guest is. Returns that.
    #[expect(clippy::redundant_allocation, reason = "its clones count without atomic operations")]
    fn identify(&mut self, about: &Arc<GuestInfo>) -> &Rc<Arc<GuestInfo>> {
        if !self.info.as_ref().is_some_and(|known| Arc::ptr_eq(known, about)) {
            self.forget(about);
        }
        self.info.get_or_insert_with(|| Rc::new(about.clone()))
    }

    /// Forgets what was known, as the guest is another one now.
    #[cold]
    fn forget(&mut self, about: &GuestInfo) {
        // Of another handler with the same number.
        if self.info().is_some_and(|known| !Arc::ptr_eq(&known.grants, &about.grants)) {
            self.long_calls = None;
        }
        self.info = None;
        // Nothing is known of how long the calls of a new guest are.
        self.usage = Usage::default();
    }

    /// Who pays for their CPU time: the guest's owner, and among that one's guests itself.
    fn payer(&self, guest: usize) -> Payer {
        let owner = self.info().map(|about| about.grants.owner.id);
        Payer { owner: owner.unwrap_or(Share::of_other(guest).id), guest }
    }

    /// Their guest's owner, if that has others.
    fn shared_owner(&self) -> Option<u64> {
        let share = self.info()?.grants.share();
        (!share.is_sole).then_some(share.id)
    }

    fn info(&self) -> Option<&GuestInfo> {
        self.info.as_ref().map(|about| &***about)
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
    /// To be called on the worker's thread, whose slow lane becomes this one.
    pub fn new(pulse: TickerHandle, lane: LaneHandle, counters: WorkerCounters) -> Self {
        lane.make_local();
        Scheduler {
            guests: RefCell::default(),
            first_calls: RefCell::default(),
            ticker: pulse,
            queued_by_owner: Holders::default(),
            run_queue: Rc::default(),
            lane,
            pending_drops: PendingDrops::default(),
            active_count: Cell::new(0),
            counters,
        }
    }

    /// Where calls go that outlast their quantum.
    pub fn lane(&self) -> &LaneHandle {
        &self.lane
    }

    pub fn counters(&self) -> &Counters {
        &self.counters
    }

    /// What is counted by the reason.
    pub fn reasons(&self) -> &Reasons {
        &self.counters.reasons
    }

    /// In what order heavy calls run in the fast lane.
    pub fn run_queue(&self) -> &Rc<RunQueue> {
        &self.run_queue
    }

    pub fn ticker(&self) -> &TickerHandle {
        &self.ticker
    }

    /// What is on its way out.
    pub fn pending_drops(&self) -> &PendingDrops {
        &self.pending_drops
    }

    /// Drops something; in the slow lane, if that takes a while.
    pub fn drop_or_defer(&self, bulky: impl DropCost) {
        if bulky.is_slow_to_drop() {
            // Dropped in this order.
            self.lane.defer_drop((bulky, self.pending_drops.drop_mark()));
        }
    }

    /// Takes note of a call of a guest that is about to begin.
    pub fn count(&self, guest: usize, about: &Arc<GuestInfo>) {
        self.with(guest, |calls| {
            calls.identify(about);
            calls.usage.count();
        });
    }

    /// Who a guest is, for what outlives its instance.
    pub fn shared_info(&self, guest: usize, about: &Arc<GuestInfo>) -> Rc<Arc<GuestInfo>> {
        self.with(guest, |calls| calls.identify(about).clone())
    }

    /// Who a guest was when it was asked for last, if it was.
    pub fn last_info(&self, guest: usize) -> Option<Rc<Arc<GuestInfo>>> {
        self.guests.borrow().get(guest).and_then(|calls| calls.info.clone())
    }

    /// What a guest's calls are like, or are expected to be as those of its owner's other guests.
    pub fn cost_class(&self, guest: usize) -> CostClass {
        let guests = self.guests.borrow();
        guests.get(guest).map_or(CostClass::Short, |calls| match calls.usage.cost_class() {
            CostClass::New if self.is_expected_long(calls) => CostClass::Long,
            length => length,
        })
    }

    #[cold]
    fn is_expected_long(&self, calls: &GuestCalls) -> bool {
        calls.shared_owner().is_some_and(|owner| self.first_calls.borrow().are_long(owner))
    }

    /// What making an instance of a guest is like. Beside long calls it is nothing.
    pub fn instantiation_class(&self, guest: usize) -> CostClass {
        self.note(guest, |usage| match usage.cost_class() {
            CostClass::Long => CostClass::Long,
            _ => usage.instantiation_class(),
        })
    }

    /// Has a call of a guest wait for its turn in the fast lane, of which it is `expected` to use
    /// so much, or as much as the guest's calls do.
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

    /// Takes note of what one slice of a guest's call has taken in the fast lane. What the guest's
    /// calls are like now.
    pub fn note_slice(&self, guest: usize, used: Duration) -> CostClass {
        self.note(guest, |usage| {
            usage.note_slice(used, Instant::now);
            usage.cost_class()
        })
    }

    /// Takes note of whether a call of a guest has outlasted the quantum, and of what its last
    /// slice in the fast lane has taken, where that was measured.
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

    /// Takes note of what a call of a guest has cost.
    pub fn note<T>(&self, guest: usize, note: impl FnOnce(&mut Usage) -> T) -> T {
        self.with(guest, |calls| note(&mut calls.usage))
    }

    /// Who pays for the CPU time of a guest's calls.
    pub fn payer(&self, guest: usize) -> Payer {
        self.with(guest, |calls| calls.payer(guest))
    }

    /// Where requests to a guest wait whose calls are long.
    pub fn long_call_queue(&self, guest: usize) -> Rc<LongCallQueue> {
        self.with(guest, |calls| {
            let limits = calls.info().map(|about| about.grants.concurrency.queue);
            let owner = calls.payer(guest).owner;
            let new = || {
                Rc::new(LongCallQueue::new(
                    limits.unwrap_or_default(),
                    self.queued_by_owner.of(owner),
                ))
            };
            let line = calls.long_calls.get_or_insert_with(new);
            // The guest may be another by now.
            if let Some(limits) = limits {
                line.limit(limits);
            }
            line.clone()
        })
    }

    /// The line for a request to a guest, if it has to stand in one.
    pub fn queue_to_wait_in(&self, guest: usize) -> Option<Rc<LongCallQueue>> {
        let guests = self.guests.borrow();
        let calls =
            guests.get(guest).filter(|calls| calls.usage.cost_class() == CostClass::Long)?;
        calls.long_calls.as_ref().filter(|line| line.is_saturated()).cloned()
    }

    /// Calls that are under way.
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

/// Makes room for what is known of this guest.
#[cold]
fn grow(guests: &mut Vec<GuestCalls>, guest: usize) {
    guests.resize_with(guest + 1, GuestCalls::default);
}

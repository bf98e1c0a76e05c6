//! One worker's schedule: what it knows of each guest's calls, and what it has to run them with.
//!
//! Owns what becomes of that when a guest has another version, or its number is another's. Lives on
//! one thread and takes no lock.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::sync::Arc;
use std::task::Context;
use std::time::{Duration, Instant};

use super::drops::{Bulky, PendingDrops};
use super::first_calls::FirstCalls;
use super::lane::{Entry, Payer};
use super::line::Line;
use super::run_queue::{RunQueue, Turn};
use super::ticker::Pulse;
use super::usage::{Length, Usage};
use crate::grants::Share;
use crate::guest::engine::about::About;
use crate::metrics::{Counters, OfWorker, Reasons};
use crate::queue::Holders;

/// The schedule of one worker.
pub struct Schedule {
    /// By the number of the guest.
    guests: RefCell<Vec<Calls>>,
    /// What is expected of guests of which nothing is known.
    first_calls: RefCell<FirstCalls>,
    pulse: Pulse,
    /// What owners have in lines.
    in_lines: Holders,
    /// Heavy calls that can go on.
    run_queue: Rc<RunQueue>,
    /// Where calls go that outlast their quantum.
    lane: Entry,
    /// What is on its way out.
    pending_drops: PendingDrops,
    /// Calls that are under way.
    under_way: Cell<usize>,
    counters: OfWorker,
}

/// What is known of the calls of one guest.
#[derive(Default)]
struct Calls {
    /// What they cost.
    usage: Usage,
    /// Where requests to it wait, once it has had long calls.
    line: Option<Rc<Line>>,
    /// Who it was when it was asked for last. Counted by this worker alone, so that calls can have
    /// it for nothing.
    #[expect(clippy::redundant_allocation, reason = "its clones count without atomic operations")]
    about: Option<Rc<Arc<About>>>,
}

impl Calls {
    /// Takes note of who the guest is. Returns that.
    #[expect(clippy::redundant_allocation, reason = "its clones count without atomic operations")]
    fn know(&mut self, about: &Arc<About>) -> &Rc<Arc<About>> {
        if !self.about.as_ref().is_some_and(|known| Arc::ptr_eq(known, about)) {
            self.forget(about);
        }
        self.about.get_or_insert_with(|| Rc::new(about.clone()))
    }

    /// Forgets what was known, as the guest is another one now.
    #[cold]
    fn forget(&mut self, about: &About) {
        // Of another handler with the same number.
        if self.about().is_some_and(|known| !Arc::ptr_eq(&known.grants, &about.grants)) {
            self.line = None;
        }
        self.about = None;
        // Nothing is known of how long the calls of a new guest are.
        self.usage = Usage::default();
    }

    /// Who pays for their CPU time: the guest's owner, and among that one's guests itself.
    fn payer(&self, guest: usize) -> Payer {
        let owner = self.about().map(|about| about.grants.owner.id);
        Payer { owner: owner.unwrap_or(Share::of_other(guest).id), guest }
    }

    /// Their guest's owner, if that has others.
    fn shared_owner(&self) -> Option<u64> {
        let share = self.about()?.grants.share();
        (!share.is_sole).then_some(share.id)
    }

    fn about(&self) -> Option<&About> {
        self.about.as_ref().map(|about| &***about)
    }
}

/// A call that is under way, until this is dropped.
pub struct UnderWay<'a>(&'a Schedule);

impl Drop for UnderWay<'_> {
    fn drop(&mut self) {
        self.0.note_under_way(false);
    }
}

impl Schedule {
    /// To be called on the worker's thread, whose slow lane becomes this one.
    pub fn new(pulse: Pulse, lane: Entry, counters: OfWorker) -> Self {
        lane.use_here();
        Schedule {
            guests: RefCell::default(),
            first_calls: RefCell::default(),
            pulse,
            in_lines: Holders::default(),
            run_queue: Rc::default(),
            lane,
            pending_drops: PendingDrops::default(),
            under_way: Cell::new(0),
            counters,
        }
    }

    /// Where calls go that outlast their quantum.
    pub fn lane(&self) -> &Entry {
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

    pub fn pulse(&self) -> &Pulse {
        &self.pulse
    }

    /// What is on its way out.
    pub fn pending_drops(&self) -> &PendingDrops {
        &self.pending_drops
    }

    /// Drops something; in the slow lane, if that takes a while.
    pub fn dispose(&self, bulky: impl Bulky) {
        if bulky.is_slow_to_drop() {
            // Dropped in this order.
            self.lane.discard((bulky, self.pending_drops.mark_drop()));
        }
    }

    /// Takes note of a call of a guest that is about to begin.
    pub fn count(&self, guest: usize, about: &Arc<About>) {
        self.with(guest, |calls| {
            calls.know(about);
            calls.usage.count();
        });
    }

    /// Who a guest is, for what outlives its instance.
    pub fn about(&self, guest: usize, about: &Arc<About>) -> Rc<Arc<About>> {
        self.with(guest, |calls| calls.know(about).clone())
    }

    /// Who a guest was when it was asked for last, if it was.
    pub fn known(&self, guest: usize) -> Option<Rc<Arc<About>>> {
        self.guests.borrow().get(guest).and_then(|calls| calls.about.clone())
    }

    /// What a guest's calls are like, or are expected to be as those of its owner's other guests.
    pub fn length(&self, guest: usize) -> Length {
        let guests = self.guests.borrow();
        guests.get(guest).map_or(Length::Short, |calls| match calls.usage.length() {
            Length::New if self.is_expected_long(calls) => Length::Long,
            length => length,
        })
    }

    #[cold]
    fn is_expected_long(&self, calls: &Calls) -> bool {
        calls.shared_owner().is_some_and(|owner| self.first_calls.borrow().are_long(owner))
    }

    /// What making an instance of a guest is like. Beside long calls it is nothing.
    pub fn making(&self, guest: usize) -> Length {
        self.note(guest, |usage| match usage.length() {
            Length::Long => Length::Long,
            _ => usage.making(),
        })
    }

    /// Has a call of a guest wait for its turn in the fast lane, of which it is `expected` to use
    /// so much, or as much as the guest's calls do.
    pub fn join_run_queue(
        &self,
        guest: usize,
        expected: Option<Duration>,
        cx: &Context<'_>,
    ) -> Turn {
        let expected = expected.unwrap_or_else(|| self.note(guest, |usage| usage.slice()));
        self.reasons().calls.turns.add(1);
        self.run_queue.join(self.payer(guest), expected, cx)
    }

    /// Takes note of what one slice of a guest's call has taken in the fast lane. What the guest's
    /// calls are like now.
    pub fn note_slice(&self, guest: usize, used: Duration) -> Length {
        self.note(guest, |usage| {
            usage.note_slice(used, Instant::now);
            usage.length()
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
    pub fn line(&self, guest: usize) -> Rc<Line> {
        self.with(guest, |calls| {
            let limits = calls.about().map(|about| about.grants.concurrency.queue);
            let owner = calls.payer(guest).owner;
            let new = || Rc::new(Line::new(limits.unwrap_or_default(), self.in_lines.of(owner)));
            let line = calls.line.get_or_insert_with(new);
            // The guest may be another by now.
            if let Some(limits) = limits {
                line.limit(limits);
            }
            line.clone()
        })
    }

    /// The line for a request to a guest, if it has to stand in one.
    pub fn must_wait(&self, guest: usize) -> Option<Rc<Line>> {
        let guests = self.guests.borrow();
        let calls = guests.get(guest).filter(|calls| calls.usage.length() == Length::Long)?;
        calls.line.as_ref().filter(|line| line.is_crowded()).cloned()
    }

    /// Calls that are under way.
    pub fn under_way(&self) -> usize {
        self.under_way.get()
    }

    /// Counts a call as under way until the guard is dropped.
    pub fn begin(&self) -> UnderWay<'_> {
        self.note_under_way(true);
        UnderWay(self)
    }

    /// Counts one more call that is under way, or one less.
    pub fn note_under_way(&self, more: bool) {
        let count = self.under_way.get();
        self.under_way.set(if more { count + 1 } else { count - 1 });
    }

    fn with<T>(&self, guest: usize, look: impl FnOnce(&mut Calls) -> T) -> T {
        let mut guests = self.guests.borrow_mut();
        if guest >= guests.len() {
            grow(&mut guests, guest);
        }
        look(&mut guests[guest])
    }
}

/// Makes room for what is known of this guest.
#[cold]
fn grow(guests: &mut Vec<Calls>, guest: usize) {
    guests.resize_with(guest + 1, Calls::default);
}

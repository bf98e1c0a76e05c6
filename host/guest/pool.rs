//! One worker's instances: ready ones are handed out, finished ones are renewed once the response
//! has gone out.
//!
//! Owns the budget of ready instances and which guests have a share in it: those that were asked
//! for most of late. An instance of any other guest is dropped after its request, for it would only
//! be renewed to be dropped. Lives on one thread and takes no lock.

mod making;

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::sync::Arc;
use std::task::Context;
use std::time::{Duration, Instant};

use tokio::sync::Notify;

use super::allocator;
use super::budget::Budget;
use super::component::{ComponentInstance, Resident, Seat};
use super::engine::Pulse;
use super::lane::{Entry, Payer};
use super::line::Line;
use super::pending_drops::PendingDrops;
use super::run_queue::{RunQueue, Turn};
use super::shelves::Shelves;
use super::slots::{CONCURRENT_ENGINE, ReadyMax};
use super::usage::{Length, Usage};
use super::{About, Guest, Instance};
use crate::grants::Isolation;
use crate::outbound::Door;
use crate::queue::Holders;

/// Retired instances among which one of a certain guest is looked for.
const RETIRED_LOOKED_AT: usize = 8;
/// How long instances are renewed while connections wait, and how many before that is looked at.
const RENEW_MAX: Duration = Duration::from_micros(500);
const RENEWED_AT_ONCE: usize = 4;
/// Instances with so much memory are renewed with a look at the clock behind each.
const QUICK_BYTES: usize = 256 << 10;

/// The pools of all guests on one worker.
pub struct Pool {
    shelves: RefCell<Shelves>,
    /// Instances that have done their work and wait to be renewed.
    retired: RefCell<Vec<Instance>>,
    /// What is on its way out.
    pending_drops: PendingDrops,
    /// Instances that are out with a request.
    out: Cell<usize>,
    pulse: Pulse,
    /// What owners have in lines.
    in_lines: Holders,
    /// Heavy calls that can go on.
    run_queue: Rc<RunQueue>,
    exits: Exits,
    memory: Budget,
    /// How often memory had been short when this was looked at last.
    shortages: Cell<u64>,
}

/// Where things go that leave a worker's pool.
pub struct Exits {
    /// Long calls.
    pub lane: Entry,
    /// Requests that guests make.
    pub door: Door,
    /// Told of instances that are to be renewed, by [`Pool::renew`].
    pub retired: Rc<Notify>,
}

/// Counts an instance that is out; dropping it says that the instance has come back or is gone.
pub struct Out<'a>(&'a Cell<usize>);

impl Drop for Out<'_> {
    fn drop(&mut self) {
        self.0.set(self.0.get() - 1);
    }
}

impl Pool {
    /// `ready_max` is how many ready instances it keeps.
    pub fn new(pulse: Pulse, ready_max: ReadyMax, exits: Exits, memory: Budget) -> Self {
        exits.lane.use_here();
        Pool {
            shelves: RefCell::new(Shelves::new(ready_max, memory.clone())),
            retired: RefCell::default(),
            pending_drops: PendingDrops::default(),
            out: Cell::new(0),
            pulse,
            in_lines: Holders::default(),
            run_queue: Rc::default(),
            exits,
            shortages: Cell::new(memory.shortages()),
            memory,
        }
    }

    /// Where calls go that outlast their quantum.
    pub fn lane(&self) -> &Entry {
        &self.exits.lane
    }

    /// Where guests hand in requests of their own.
    pub fn door(&self) -> &Door {
        &self.exits.door
    }

    /// In what order heavy calls run in the fast lane.
    pub fn run_queue(&self) -> &Rc<RunQueue> {
        &self.run_queue
    }

    /// What a guest's calls are like.
    pub fn length(&self, guest: usize) -> Length {
        let shelves = self.shelves.borrow();
        shelves.by_guest.get(guest).map_or(Length::Short, |shelf| shelf.usage.length())
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

    /// Takes note of what a call of a guest has cost.
    pub fn note<T>(&self, guest: usize, note: impl FnOnce(&mut Usage) -> T) -> T {
        note(&mut self.shelves.borrow_mut().shelf(guest).usage)
    }

    /// Who pays for the CPU time of a guest's calls.
    pub fn payer(&self, guest: usize) -> Payer {
        self.shelves.borrow_mut().shelf(guest).payer(guest)
    }

    /// Where requests to a guest wait whose calls are long.
    pub fn line(&self, guest: usize) -> Rc<Line> {
        let mut shelves = self.shelves.borrow_mut();
        let shelf = shelves.shelf(guest);
        let limits = shelf.about().map(|about| about.grants.concurrency.queue);
        let owner = shelf.payer(guest).owner;
        let new = || Rc::new(Line::new(limits.unwrap_or_default(), self.in_lines.of(owner)));
        let line = shelf.line.get_or_insert_with(new);
        // The guest may be another by now.
        if let Some(limits) = limits {
            line.limit(limits);
        }
        line.clone()
    }

    /// The line for a request to a guest, if it has to stand in one.
    pub fn must_wait(&self, guest: usize) -> Option<Rc<Line>> {
        let shelves = self.shelves.borrow();
        let shelf = shelves.by_guest.get(guest).filter(|it| it.usage.length() == Length::Long)?;
        shelf.line.as_ref().filter(|line| line.is_crowded()).cloned()
    }

    /// Who a guest is, for what outlives its instance.
    pub fn about(&self, guest: &Guest) -> Rc<Arc<About>> {
        self.shelves.borrow_mut().shelf(guest.id).know(&guest.about).clone()
    }

    /// The memory as a guest has it that was asked for before, or as nobody's.
    pub fn memory_of(&self, guest: Option<usize>) -> Budget {
        let mut shelves = self.shelves.borrow_mut();
        let about = guest.and_then(|guest| shelves.shelf(guest).about());
        about.map_or(&self.memory, |about| &about.memory).clone()
    }

    pub fn pulse(&self) -> &Pulse {
        &self.pulse
    }

    /// Instances that are ready, waiting to be renewed, and out with a request.
    pub fn counts(&self) -> (usize, usize, usize) {
        (self.shelves.borrow().ready, self.retired.borrow().len(), self.out.get())
    }

    /// Counts one instance as out until the guard is dropped.
    pub fn lend(&self) -> Out<'_> {
        self.out.set(self.out.get() + 1);
        Out(&self.out)
    }

    /// Counts one more instance that is out with a request, or one less.
    pub fn note_out(&self, more: bool) {
        let out = self.out.get();
        self.out.set(if more { out + 1 } else { out - 1 });
    }

    /// A place in an instance that handles several requests, if there is one.
    pub fn seat(self: &Rc<Self>, guest: &Arc<Guest>) -> Option<Seat> {
        let residents = {
            let mut shelves = self.shelves.borrow_mut();
            let residents = shelves.residents(guest);
            residents.retain(|resident| {
                let is_current = Arc::ptr_eq(resident.guest(), guest);
                if !is_current {
                    resident.close();
                }
                is_current && resident.is_open()
            });
            residents.clone()
        };
        residents.iter().find_map(|resident| resident.seat(self))
    }

    /// Has an instance handle several requests, and gives the first place in it.
    pub fn settle(self: &Rc<Self>, instance: Box<ComponentInstance>) -> Seat {
        let resident = Resident::start(instance, self);
        let seat = resident.seat(self).expect("one that has just begun has a place");
        self.shelves.borrow_mut().residents(resident.guest()).push(resident);
        seat
    }

    /// Says that an instance for several requests has ended.
    pub fn forget(&self, resident: &Rc<Resident>) {
        let mut shelves = self.shelves.borrow_mut();
        let residents = &mut shelves.shelf(resident.guest().id).residents;
        residents.retain(|other| !Rc::ptr_eq(other, resident));
    }

    /// A ready instance, if there is one. Else one that was used a moment ago and is reset now,
    /// which is sooner than to make one: requests that come pipelined use up all that are ready
    /// before there is time to renew them.
    pub fn take(&self, guest: &Arc<Guest>) -> Option<Instance> {
        let ready = self.shelves.borrow_mut().take(guest);
        ready.or_else(|| self.reset_one(guest))
    }

    /// Resets the latest instance of this version that waits for it, if it can be found soon. One
    /// that has become too large for that is left to `renew`, which does not drop it here.
    fn reset_one(&self, guest: &Arc<Guest>) -> Option<Instance> {
        let instance = {
            let mut retired = self.retired.borrow_mut();
            let mut latest = (0..retired.len()).rev().take(RETIRED_LOOKED_AT);
            let can_be_reset = |it: &Instance| {
                Arc::ptr_eq(it.guest(), guest) && !it.is_large() && !it.is_slow_to_drop()
            };
            let at = latest.find(|at| can_be_reset(&retired[*at]))?;
            retired.swap_remove(at)
        };
        let is_warm = self.shelves.borrow().is_warm(guest.id);
        instance.reset(is_warm).ok()
    }

    /// Has the ready instances dropped of guests that are served no more.
    pub fn sweep(&self) {
        self.shelves.borrow_mut().sweep();
        self.exits.retired.notify_one();
    }

    /// Drops what is to be dropped, until this time. Whether nothing is left.
    fn clean(&self, until: Instant) -> bool {
        let _running = self.pulse.begin();
        loop {
            // Not while the shelves are borrowed: it is the end of a guest.
            let Some(instance) = ({ self.shelves.borrow_mut().waste.pop() }) else { return true };
            self.dispose(instance);
            if Instant::now() >= until {
                return false;
            }
        }
    }

    /// Gives back what this worker keeps ready, if memory has been short since the last time: it
    /// may be another worker that needs it.
    pub fn relieve(&self) {
        let shortages = self.memory.shortages();
        if self.shortages.replace(shortages) != shortages {
            self.clear();
        }
    }

    /// Hands on memory that this thread has free, if it is time for that. To be called often: the
    /// less others have freed meanwhile, the sooner it is done.
    pub fn tidy(&self) {
        if allocator::hand_on() {
            self.exits.lane.tidy();
        }
    }

    /// Gives it back to the kernel, which may take long.
    pub fn tidy_all(&self) {
        if allocator::tidy() {
            self.exits.lane.tidy();
        }
    }

    /// Takes back an instance that ended well.
    pub fn give_back(&self, mut instance: Instance) {
        let isolation = instance.guest().about.grants.isolation;
        match isolation {
            Isolation::Reuse if instance.is_spent() => self.dispose(instance),
            Isolation::Reuse => self.put(instance),
            // Others want its memory, and what is large is not reset.
            Isolation::Fresh if self.memory.is_tight() && instance.is_large() => {
                self.dispose(instance);
            }
            Isolation::Fresh => {
                self.retired.borrow_mut().push(instance);
                self.exits.retired.notify_one();
            }
        }
    }

    /// Keeps a ready instance. What gives way to it is dropped later, if that takes a while.
    fn put(&self, instance: Instance) {
        let mut shelves = self.shelves.borrow_mut();
        shelves.put(instance);
        if !shelves.waste.is_empty() {
            self.exits.retired.notify_one();
        }
    }

    /// Drops an instance; in the slow lane, if it takes a while.
    pub fn dispose(&self, instance: Instance) {
        if instance.is_slow_to_drop() {
            // Dropped in this order.
            self.exits.lane.discard((instance, self.pending_drops.mark_drop()));
        }
    }

    /// What is on its way out.
    pub fn pending_drops(&self) -> &PendingDrops {
        &self.pending_drops
    }

    /// Resets the instances that have done their work, or makes new ones in their place. Those for
    /// which there is no time now are left. Whether none is.
    pub fn renew(self: &Rc<Self>) -> bool {
        if !self.shelves.borrow().waste.is_empty() && !self.clean(Instant::now() + RENEW_MAX) {
            return false;
        }
        let is_long = self.retired.borrow().len() > RENEWED_AT_ONCE;
        let mut begun = is_long.then(Instant::now);
        let (mut renewed, mut is_due) = (0, false);
        // The ticker runs meanwhile, so that it is seen how long it takes.
        let mut running = None;
        while let Some(instance) = { self.retired.borrow_mut().pop() } {
            renewed += 1;
            running.get_or_insert_with(|| self.pulse.begin());
            if (is_due || renewed % RENEWED_AT_ONCE == 0)
                && begun.is_some_and(|begun| begun.elapsed() >= RENEW_MAX)
            {
                self.retired.borrow_mut().push(instance);
                return false;
            }
            is_due = instance.memory_bytes() > QUICK_BYTES;
            if is_due && begun.is_none() {
                begun = Some(Instant::now());
            }
            let is_warm = {
                let mut shelves = self.shelves.borrow_mut();
                if !shelves.make_room(instance.guest()) {
                    self.dispose(instance);
                    continue;
                }
                shelves.is_warm(instance.guest().id)
            };
            // Without a reset, the slot is given back before it is asked for again.
            let guest = if instance.is_slow_to_drop() {
                let guest = instance.guest().clone();
                self.dispose(instance);
                guest
            } else {
                match instance.reset(is_warm) {
                    Ok(instance) => {
                        self.put(instance);
                        continue;
                    }
                    Err(guest) => guest,
                }
            };
            if self.length(guest.id) == Length::Long {
                // Beside its calls it is nothing to make one when it is asked for.
                continue;
            }
            if guest.runs_startup() {
                // Guest code may run long or wait, so it gets a task of its own.
                self.renew_later(guest);
                continue;
            }
            if self.making(&guest) == Length::Long {
                continue;
            }
            if let Ok(instance) = Instance::make_now(guest, self, None) {
                self.put(instance);
            }
        }
        if !self.shelves.borrow().waste.is_empty() {
            self.exits.retired.notify_one();
        }
        true
    }

    /// Has the instances of one engine dropped that are not out, so that it has free slots.
    fn clear_engine(&self, engine: usize) {
        let is_of_it = |instance: &mut Instance| instance.guest().engine == engine;
        let retired: Vec<Instance> = self.retired.borrow_mut().extract_if(.., is_of_it).collect();
        self.shelves.borrow_mut().waste.extend(retired);
        self.shelves.borrow_mut().clear_engine(engine);
        self.exits.retired.notify_one();
        if engine == CONCURRENT_ENGINE {
            let residents = self.shelves.borrow_mut().residents_of_all();
            residents.iter().for_each(|resident| resident.evict(self));
        }
    }

    /// Has every instance dropped that is not out.
    pub fn clear(&self) {
        self.shelves.borrow_mut().waste.append(&mut self.retired.borrow_mut());
        let residents = self.shelves.borrow_mut().clear();
        self.exits.retired.notify_one();
        residents.iter().for_each(|resident| resident.evict(self));
    }
}

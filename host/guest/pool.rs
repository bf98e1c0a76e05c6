//! One worker's instances: ready ones are handed out, finished ones are renewed once the response
//! has gone out.
//!
//! Owns the budget of ready instances and which guests have a share in it: those that were asked
//! for most of late. An instance of any other guest is dropped after its request, for it would only
//! be renewed to be dropped. Lives on one thread and takes no lock.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Notify;

use super::budget::Budget;
use super::engine::Pulse;
use super::lane::Entry;
use super::line::Line;
use super::{About, Guest, Instance};
use crate::config::Isolation;
use crate::message::Reject;

/// Ready instances that one worker keeps at most, of all guests together. Measured with 10,000
/// guests asked for by Zipf's law: 64 serve a half of the requests, 1,024 three quarters. Each
/// takes some 40 KiB.
pub const READY_MAX: usize = 1024;
/// Guests that are looked at to find one whose instance is worth little. Of 1,024, the least of 8
/// taken by chance is in the lowest quarter nine times out of ten.
const SAMPLES: usize = 8;
/// Retired instances among which one of a certain guest is looked for.
const RETIRED_LOOKED_AT: usize = 8;
/// How long a request waits for memory, and how often it looks for some: by then every worker has
/// given back what it had ready.
const MEMORY_PATIENCE: Duration = Duration::from_millis(250);
const MEMORY_LOOK_EVERY: Duration = Duration::from_millis(25);
/// The memory of a guest that gets more than a quarter of the requests is in a cache. In sixteenths
/// of a request between two.
const WARM_INTERVAL: u32 = 4 * 16;

/// All calls of a guest are long, and so many that its calls start in the slow lane.
const LONG_ALL: u32 = 256;
const LONG_MIN: u32 = LONG_ALL / 2;
/// Calls over which their length is averaged.
const LONG_CALLS: u32 = 4;

/// How many calls of a guest outlast the quantum.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Length {
    /// None of late.
    Short,
    Mixed,
    /// Most of them.
    Long,
}

/// The pools of all guests on one worker.
pub struct Pool {
    shelves: RefCell<Shelves>,
    /// Instances that have done their work and wait to be renewed.
    #[expect(clippy::vec_box, reason = "a request holds it by a pointer, and it comes and goes")]
    retired: RefCell<Vec<Box<Instance>>>,
    /// Instances that are out with a request.
    out: Cell<usize>,
    /// Says that there are retired instances.
    work: Notify,
    pulse: Pulse,
    /// Where long calls go.
    lane: Entry,
    memory: Budget,
    /// How often memory had been short when this was looked at last.
    shortages: Cell<u64>,
}

struct Shelves {
    /// By guest id.
    by_guest: Vec<Shelf>,
    /// Guests with at least one ready instance.
    stocked: Vec<usize>,
    ready: usize,
    ready_max: usize,
    /// Requests for instances so far.
    clock: u64,
    /// Instances so far that could be kept only in the place of others.
    contests: u64,
    memory: Budget,
}

#[derive(Default)]
struct Shelf {
    #[expect(clippy::vec_box, reason = "a request holds it by a pointer, and it comes and goes")]
    ready: Vec<Box<Instance>>,
    /// Its place in the list of stocked guests, where it is in it.
    place: usize,
    uses: Uses,
    /// The clock at its last use.
    used_at: u64,
    /// Requests between two uses, a moving average, in sixteenths.
    interval: u32,
    /// What part of its calls outlasts the quantum, a moving average: 256 is all of them.
    long: u32,
    /// Where requests to it wait, once it has had long calls.
    line: Option<Rc<Line>>,
    /// What it was called when it was asked for last.
    about: Option<Arc<About>>,
}

/// How often a guest was asked for of late: a count that is halved with every age that passes. Time
/// is counted in contests for a place among the ready instances: while there are none, nobody
/// loses.
#[derive(Clone, Copy, Default)]
struct Uses {
    count: u32,
    age: u32,
}

impl Uses {
    /// Contests to an age. Long enough to tell guests apart that are asked for once in some
    /// thousand requests, short enough to follow a change within seconds under load.
    const AGE_BITS: u32 = 14;

    fn add(&mut self, contests: u64) {
        *self = Uses { count: self.count(contests).saturating_add(1), age: Self::age(contests) };
    }

    fn count(self, contests: u64) -> u32 {
        let ages = Self::age(contests).wrapping_sub(self.age);
        self.count.checked_shr(ages).unwrap_or(0)
    }

    fn age(contests: u64) -> u32 {
        (contests >> Self::AGE_BITS) as u32
    }
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
    pub fn new(pulse: Pulse, ready_max: usize, lane: Entry, memory: Budget) -> Self {
        Pool {
            shelves: RefCell::new(Shelves::new(ready_max, memory.clone())),
            retired: RefCell::default(),
            out: Cell::new(0),
            work: Notify::new(),
            pulse,
            lane,
            shortages: Cell::new(memory.shortages()),
            memory,
        }
    }

    /// Where calls go that outlast their quantum.
    pub fn lane(&self) -> &Entry {
        &self.lane
    }

    /// How many of a guest's calls outlast the quantum.
    pub fn length(&self, guest: usize) -> Length {
        match self.shelves.borrow().by_guest.get(guest).map_or(0, |shelf| shelf.long) {
            0 => Length::Short,
            LONG_MIN.. => Length::Long,
            _ => Length::Mixed,
        }
    }

    /// Takes note of a call of a guest, and of whether it has outlasted the quantum.
    pub fn note_length(&self, guest: usize, is_long: bool) {
        let mut shelves = self.shelves.borrow_mut();
        let long = &mut shelves.shelf(guest).long;
        *long -= *long / LONG_CALLS;
        if is_long {
            *long += LONG_ALL / LONG_CALLS;
        } else if *long < LONG_CALLS {
            *long = 0;
        }
    }

    /// Where requests to a guest wait whose calls are long.
    pub fn line(&self, guest: usize) -> Rc<Line> {
        self.shelves.borrow_mut().shelf(guest).line.get_or_insert_default().clone()
    }

    /// The line for a request to a guest, if it has to stand in one.
    pub fn must_wait(&self, guest: usize) -> Option<Rc<Line>> {
        let shelves = self.shelves.borrow();
        let shelf = shelves.by_guest.get(guest).filter(|shelf| shelf.long >= LONG_MIN)?;
        shelf.line.as_ref().filter(|line| line.is_crowded()).cloned()
    }

    /// What a guest was called when it was asked for last.
    pub fn about(&self, guest: usize) -> Option<Arc<About>> {
        self.shelves.borrow().by_guest.get(guest)?.about.clone()
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

    /// A ready instance, if there is one. Else one that was used a moment ago and is reset now,
    /// which is sooner than to make one: requests that come pipelined use up all that are ready
    /// before there is time to renew them.
    pub fn take(&self, guest: &Arc<Guest>) -> Option<Box<Instance>> {
        let ready = self.shelves.borrow_mut().take(guest);
        ready.or_else(|| self.reset_one(guest))
    }

    /// Resets the latest instance of this version that waits for it, if it can be found soon.
    fn reset_one(&self, guest: &Arc<Guest>) -> Option<Box<Instance>> {
        let instance = {
            let mut retired = self.retired.borrow_mut();
            let mut latest = (0..retired.len()).rev().take(RETIRED_LOOKED_AT);
            let at = latest.find(|at| Arc::ptr_eq(retired[*at].guest(), guest))?;
            retired.swap_remove(at)
        };
        let is_warm = self.shelves.borrow().is_warm(guest.id);
        instance.reset(is_warm).ok()
    }

    /// Drops the ready instances of guests that are served no more.
    pub fn sweep(&self) {
        self.shelves.borrow_mut().sweep();
    }

    /// Makes an instance for a request that waits for it. Where memory is short it waits a little
    /// for others to give some back.
    ///
    /// # Errors
    /// As [`Instance::make`].
    pub async fn make(&self, guest: Arc<Guest>) -> Result<Box<Instance>, Reject> {
        match self.make_one(&guest).await {
            // They may be held by instances that only wait to be renewed or are kept ready.
            Err(Reject::NoInstance | Reject::NoMemory) => self.clear(),
            made => return made,
        }
        let mut patience = MEMORY_PATIENCE.min(guest.about.limits.deadline);
        loop {
            match self.make_one(&guest).await {
                Err(Reject::NoMemory) if patience > Duration::ZERO => {
                    tokio::time::sleep(MEMORY_LOOK_EVERY).await;
                    patience = patience.saturating_sub(MEMORY_LOOK_EVERY);
                }
                made => return made,
            }
        }
    }

    async fn make_one(&self, guest: &Arc<Guest>) -> Result<Box<Instance>, Reject> {
        if guest.runs_startup() {
            return Instance::make(guest.clone(), self).await;
        }
        Instance::make_now(guest.clone())
    }

    /// Gives back what this worker keeps ready, if memory has been short since the last time: it
    /// may be another worker that needs it.
    pub fn relieve(&self) {
        let shortages = self.memory.shortages();
        if self.shortages.replace(shortages) != shortages {
            self.clear();
        }
    }

    /// Takes back an instance that ended well.
    pub fn give_back(&self, instance: Box<Instance>) {
        match instance.guest().isolation {
            Isolation::Reuse => self.shelves.borrow_mut().put(instance),
            // Others want its memory, and what is large is not reset.
            Isolation::Fresh if self.memory.is_tight() && instance.is_large() => drop(instance),
            Isolation::Fresh => {
                self.retired.borrow_mut().push(instance);
                self.work.notify_one();
            }
        }
    }

    /// Renews instances for ever. A task of its own: it is woken by the first instance that comes
    /// back and stands behind every connection that is ready by then, so that all of these are
    /// answered before any instance is renewed. That also spares the kernel waking the clients one
    /// by one.
    pub async fn renew_always(self: Rc<Self>) {
        loop {
            self.work.notified().await;
            self.renew();
        }
    }

    /// Resets the instances that have done their work, or makes new ones in their place.
    fn renew(self: &Rc<Self>) {
        while let Some(instance) = { self.retired.borrow_mut().pop() } {
            let is_warm = {
                let mut shelves = self.shelves.borrow_mut();
                if !shelves.make_room(instance.guest()) {
                    continue;
                }
                shelves.is_warm(instance.guest().id)
            };
            // Without a reset, the slot is given back before it is asked for again.
            let guest = match instance.reset(is_warm) {
                Ok(instance) => {
                    self.shelves.borrow_mut().put(instance);
                    continue;
                }
                Err(guest) => guest,
            };
            if guest.runs_startup() {
                // Guest code may run long or wait, so it gets a task of its own.
                tokio::task::spawn_local(self.clone().renew_later(guest));
                continue;
            }
            if let Ok(instance) = Instance::make_now(guest) {
                self.shelves.borrow_mut().put(instance);
            }
        }
    }

    async fn renew_later(self: Rc<Self>, guest: Arc<Guest>) {
        let _out = self.lend();
        if let Ok(instance) = Instance::make(guest, &self).await {
            self.shelves.borrow_mut().put(instance);
        }
    }

    /// Drops every instance that is not out.
    pub fn clear(&self) {
        self.retired.borrow_mut().clear();
        self.shelves.borrow_mut().clear();
    }
}

impl Shelf {
    fn note_use(&mut self, clock: u64) {
        let since = (clock - self.used_at).min(1 << 16) as u32;
        self.used_at = clock;
        self.interval = self.interval - self.interval / 8 + since * 2;
    }
}

impl Shelves {
    fn new(ready_max: usize, memory: Budget) -> Self {
        Shelves {
            by_guest: Vec::new(),
            stocked: Vec::new(),
            ready: 0,
            ready_max,
            clock: 0,
            contests: 0,
            memory,
        }
    }

    fn shelf(&mut self, id: usize) -> &mut Shelf {
        if id >= self.by_guest.len() {
            self.by_guest.resize_with(id + 1, Shelf::default);
        }
        &mut self.by_guest[id]
    }

    fn take(&mut self, guest: &Arc<Guest>) -> Option<Box<Instance>> {
        self.clock += 1;
        let (clock, contests) = (self.clock, self.contests);
        let shelf = self.shelf(guest.id);
        shelf.uses.add(contests);
        shelf.note_use(clock);
        if !shelf.about.as_ref().is_some_and(|about| Arc::ptr_eq(about, &guest.about)) {
            shelf.about = Some(guest.about.clone());
            // Nothing is known of how long the calls of a new guest are.
            shelf.long = 0;
        }
        let instance = shelf.ready.pop()?;
        // A version before this one, or another guest that had the place.
        let outdated = !Arc::ptr_eq(instance.guest(), guest);
        let dropped = if outdated { std::mem::take(&mut shelf.ready).len() } else { 0 };
        if shelf.ready.is_empty() {
            self.unlist(guest.id);
        }
        self.ready -= 1 + dropped;
        (!outdated).then_some(instance)
    }

    fn is_warm(&self, id: usize) -> bool {
        self.by_guest.get(id).is_some_and(|shelf| shelf.interval < WARM_INTERVAL)
    }

    /// Takes a guest off the list of those that are stocked.
    fn unlist(&mut self, id: usize) {
        let place = self.by_guest[id].place;
        self.stocked.swap_remove(place);
        if let Some(moved) = self.stocked.get(place) {
            self.by_guest[*moved].place = place;
        }
    }

    /// Whether an instance of this guest is to be kept; makes room for it if need be.
    fn make_room(&mut self, guest: &Guest) -> bool {
        if guest.is_retired() {
            return false;
        }
        // Where memory is tight, as many are kept as there are.
        if self.ready == 0 || (self.ready < self.ready_max && !self.memory.is_tight()) {
            return true;
        }
        self.contests += 1;
        let worth = self.worth(guest.id, 1);
        let samples = (0..SAMPLES as u64).map(|sample| self.sample(sample));
        let Some((least, id)) = samples.map(|id| (self.worth(id, 0), id)).min() else {
            return false;
        };
        // A little more is chance, and a change costs more than it brings.
        if least + least / 4 >= worth && id != guest.id {
            return false;
        }
        self.drop_one(id);
        true
    }

    /// A stocked guest, taken by chance: the count, scattered by a multiplicative hash (Knuth,
    /// The Art of Computer Programming, 6.4).
    fn sample(&self, sample: u64) -> usize {
        let scattered =
            (self.contests * SAMPLES as u64 + sample).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        self.stocked[(scattered >> 32) as usize % self.stocked.len()]
    }

    /// What one of a guest's ready instances, with so many more, is worth: its share of the
    /// guest's uses.
    fn worth(&self, id: usize, more: usize) -> u64 {
        let Some(shelf) = self.by_guest.get(id) else { return 0 };
        let uses = u64::from(shelf.uses.count(self.contests)) << 8;
        uses / (shelf.ready.len() + more).max(1) as u64
    }

    fn put(&mut self, instance: Box<Instance>) {
        if !self.make_room(instance.guest()) {
            return;
        }
        let id = instance.guest().id;
        let place = self.stocked.len();
        let shelf = self.shelf(id);
        shelf.ready.push(instance);
        if shelf.ready.len() == 1 {
            shelf.place = place;
            self.stocked.push(id);
        }
        self.ready += 1;
    }

    /// Drops one instance of a guest that is stocked.
    fn drop_one(&mut self, id: usize) {
        let shelf = &mut self.by_guest[id];
        drop(shelf.ready.pop());
        self.ready -= 1;
        if self.by_guest[id].ready.is_empty() {
            self.unlist(id);
        }
    }

    fn sweep(&mut self) {
        for id in self.stocked.clone() {
            let shelf = &mut self.by_guest[id].ready;
            let before = shelf.len();
            shelf.retain(|instance| !instance.guest().is_retired());
            self.ready -= before - shelf.len();
            if self.by_guest[id].ready.is_empty() {
                self.unlist(id);
            }
        }
    }

    fn clear(&mut self) {
        for id in self.stocked.drain(..) {
            self.by_guest[id].ready.clear();
        }
        self.ready = 0;
    }
}

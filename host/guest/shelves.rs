//! What one worker knows of each guest, and the ready instances that it keeps for it.
//!
//! Owns which guests have a share of the ready instances. Lives on one thread.

use std::rc::Rc;
use std::sync::Arc;

use super::budget::Budget;
use super::component::Resident;
use super::line::Line;
use super::{About, Guest, Instance};

/// Guests that are looked at to find one whose instance is worth little. Of 1,024, the least of 8
/// taken by chance is in the lowest quarter nine times out of ten.
const SAMPLES: usize = 8;
/// The memory of a guest that gets more than a quarter of the requests is in a cache. In sixteenths
/// of a request between two.
const WARM_INTERVAL: u32 = 4 * 16;

/// All calls of a guest are long, and so many that its calls start in the slow lane.
const LONG_ALL: u32 = 256;
const LONG_MIN: u32 = LONG_ALL / 2;
/// Calls over which their length is averaged. So many that it takes six long ones in a row.
const LONG_CALLS: u32 = 8;
/// Short calls in a row after which those of a guest are no longer looked at closely, which takes
/// two looks at the thread's clock. In so many, one long call has used more than all these looks.
const MIXED_CALLS: u32 = 1024;

/// How many calls of a guest outlast the quantum.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Length {
    /// None of late.
    Short,
    /// At least one of the last thousand.
    Mixed,
    /// Most of them.
    Long,
}

/// Ready instances, by guest.
pub(super) struct Shelves {
    /// By guest id.
    pub by_guest: Vec<Shelf>,
    /// Guests with at least one ready instance.
    stocked: Vec<usize>,
    pub ready: usize,
    ready_max: usize,
    /// Requests for instances so far.
    clock: u64,
    /// Instances so far that could be kept only in the place of others.
    contests: u64,
    memory: Budget,
}

#[derive(Default)]
/// What is kept of one guest.
pub(super) struct Shelf {
    ready: Vec<Instance>,
    /// Instances that handle several requests each.
    pub residents: Vec<Rc<Resident>>,
    /// Its place in the list of stocked guests, where it is in it.
    place: usize,
    uses: Uses,
    /// The clock at its last use.
    used_at: u64,
    /// Requests between two uses, a moving average, in sixteenths.
    interval: u32,
    /// What part of its calls outlasts the quantum, a moving average: 256 is all of them.
    long: u32,
    /// How many more short ones there have to be until all are taken for short.
    mixed_for: u32,
    /// Where requests to it wait, once it has had long calls.
    pub line: Option<Rc<Line>>,
    /// What it was called when it was asked for last.
    pub about: Option<Arc<About>>,
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

impl Shelf {
    /// How many of its calls outlast the quantum.
    pub fn length(&self) -> Length {
        if self.long >= LONG_MIN {
            Length::Long
        } else if self.mixed_for > 0 {
            Length::Mixed
        } else {
            Length::Short
        }
    }

    pub fn note_length(&mut self, is_long: bool) {
        self.long -= self.long / LONG_CALLS;
        if is_long {
            self.long += LONG_ALL / LONG_CALLS;
            self.mixed_for = MIXED_CALLS;
        } else {
            self.mixed_for = self.mixed_for.saturating_sub(1);
        }
    }

    fn note_use(&mut self, clock: u64) {
        let since = (clock - self.used_at).min(1 << 16) as u32;
        self.used_at = clock;
        self.interval = self.interval - self.interval / 8 + since * 2;
    }
}

impl Shelves {
    pub fn new(ready_max: usize, memory: Budget) -> Self {
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

    pub fn shelf(&mut self, id: usize) -> &mut Shelf {
        if id >= self.by_guest.len() {
            self.by_guest.resize_with(id + 1, Shelf::default);
        }
        &mut self.by_guest[id]
    }

    pub fn take(&mut self, guest: &Arc<Guest>) -> Option<Instance> {
        self.clock += 1;
        let (clock, contests) = (self.clock, self.contests);
        let shelf = self.shelf(guest.id);
        shelf.uses.add(contests);
        shelf.note_use(clock);
        if !shelf.about.as_ref().is_some_and(|about| Arc::ptr_eq(about, &guest.about)) {
            shelf.about = Some(guest.about.clone());
            // Nothing is known of how long the calls of a new guest are.
            (shelf.long, shelf.mixed_for) = (0, 0);
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

    pub fn is_warm(&self, id: usize) -> bool {
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
    pub fn make_room(&mut self, guest: &Guest) -> bool {
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

    pub fn put(&mut self, instance: Instance) {
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

    pub fn sweep(&mut self) {
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

    /// Drops what is ready, and takes out what handles several requests.
    pub fn clear(&mut self) -> Vec<Rc<Resident>> {
        for id in self.stocked.drain(..) {
            self.by_guest[id].ready.clear();
        }
        self.ready = 0;
        self.by_guest.iter_mut().flat_map(|shelf| std::mem::take(&mut shelf.residents)).collect()
    }

    /// Instances of a guest that handle several requests. Takes note of a request.
    pub fn residents(&mut self, guest: &Arc<Guest>) -> &mut Vec<Rc<Resident>> {
        let shelf = self.shelf(guest.id);
        if !shelf.about.as_ref().is_some_and(|about| Arc::ptr_eq(about, &guest.about)) {
            shelf.about = Some(guest.about.clone());
            // Nothing is known of how long the calls of a new guest are.
            (shelf.long, shelf.mixed_for) = (0, 0);
        }
        &mut shelf.residents
    }
}

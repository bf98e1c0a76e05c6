//! The ready instances of one worker, by guest: a cache with a fixed number of places.
//!
//! Owns which guests get the places. Where they are short, an instance is admitted by its guest's
//! frequency of use, against a sample of the others, as in a TinyLFU cache. Lives on one thread.

use std::rc::Rc;
use std::sync::Arc;

use crate::guest::call::shared_instance::SharedInstance;
use crate::guest::engine::budget::Budget;
use crate::guest::engine::slots::{ENGINES, ReadyMax};
use crate::guest::instance::guest::Guest;
use crate::guest::instance::sandbox::Instance;
use crate::guest::schedule::{DropCost as _, Scheduler};
use crate::metrics;

/// Guests that are sampled to find one to evict. Of 1,024, the least of 8 random ones is in the
/// lowest quarter nine times out of ten.
const SAMPLES: usize = 8;
/// A guest with more than a quarter of the requests has its memory in a cache. In sixteenths of a
/// request between two uses.
const WARM_INTERVAL: u32 = 4 * 16;

/// Ready instances, by guest.
pub(super) struct ReadyInstances {
    /// By guest id.
    pub by_guest: Vec<GuestInstances>,
    /// Guests with at least one ready instance.
    guests_with_ready: Vec<usize>,
    pub ready: usize,
    ready_by_engine: [usize; ENGINES],
    ready_max: ReadyMax,
    /// Requests for instances so far.
    clock: u64,
    /// Contests so far: instances that could be kept only in the place of others.
    admissions: u64,
    memory: Budget,
    schedule: Rc<Scheduler>,
    /// Instances to be dropped one after the other, as dropping many takes long.
    pub discarded: Vec<Instance>,
}

/// What is kept of one guest.
#[derive(Default)]
pub(super) struct GuestInstances {
    ready: Vec<Instance>,
    /// Instances that handle several requests each.
    pub shared: Vec<Rc<SharedInstance>>,
    /// Its index in `guests_with_ready`, if it is there.
    list_index: usize,
    uses: UseFrequency,
    /// The clock at its last use.
    used_at: u64,
    /// Requests between two uses, a moving average in sixteenths.
    interval: u32,
    /// Instances that are being made by tasks that may wait.
    pub starts: u32,
}

/// How often a guest was used recently: a count that is halved with every age. Ages are counted in
/// contests for a place: while there are none, no guest loses.
#[derive(Clone, Copy, Default)]
struct UseFrequency {
    count: u32,
    age: u32,
}

impl UseFrequency {
    /// Contests in an age, as a power of two. Long enough to compare guests that are used once in
    /// some thousand requests, short enough to follow a change within seconds under load.
    const AGE_BITS: u32 = 14;

    fn add(&mut self, contests: u64) {
        *self = UseFrequency {
            count: self.count(contests).saturating_add(1),
            age: Self::age(contests),
        };
    }

    fn count(self, contests: u64) -> u32 {
        let ages = Self::age(contests).wrapping_sub(self.age);
        self.count.checked_shr(ages).unwrap_or(0)
    }

    fn age(contests: u64) -> u32 {
        (contests >> Self::AGE_BITS) as u32
    }
}

impl GuestInstances {
    /// Whether its ready instances are on this engine.
    fn is_on(&self, engine: usize) -> bool {
        self.ready.last().is_some_and(|instance| instance.guest().engine == engine)
    }

    fn note_use(&mut self, clock: u64) {
        let since = (clock - self.used_at).min(1 << 16) as u32;
        self.used_at = clock;
        self.interval = self.interval - self.interval / 8 + since * 2;
    }
}

impl ReadyInstances {
    pub fn new(ready_max: ReadyMax, memory: Budget, schedule: Rc<Scheduler>) -> Self {
        ReadyInstances {
            by_guest: Vec::new(),
            guests_with_ready: Vec::new(),
            ready: 0,
            ready_by_engine: [0; ENGINES],
            ready_max,
            clock: 0,
            admissions: 0,
            memory,
            schedule,
            discarded: Vec::new(),
        }
    }

    pub fn of_guest(&mut self, id: usize) -> &mut GuestInstances {
        if id >= self.by_guest.len() {
            self.grow(id);
        }
        &mut self.by_guest[id]
    }

    /// Makes room for guests up to this number.
    #[cold]
    fn grow(&mut self, id: usize) {
        self.by_guest.resize_with(id + 1, GuestInstances::default);
    }

    pub fn take(&mut self, guest: &Arc<Guest>) -> Option<Instance> {
        self.clock += 1;
        let (clock, contests) = (self.clock, self.admissions);
        let of_guest = self.of_guest(guest.id);
        of_guest.uses.add(contests);
        of_guest.note_use(clock);
        let instance = of_guest.ready.pop()?;
        let is_last = of_guest.ready.is_empty();
        if is_last {
            self.unlist(guest.id);
        }
        self.count_out(&instance);
        if !Arc::ptr_eq(instance.guest(), guest) {
            self.discard_outdated(instance, is_last);
            return None;
        }
        Some(instance)
    }

    /// Discards an instance of an earlier version, or of another guest that had this number, and
    /// what else is ready of it.
    #[cold]
    fn discard_outdated(&mut self, instance: Instance, is_last: bool) {
        let id = instance.guest().id;
        let others = std::mem::take(&mut self.by_guest[id].ready);
        if !is_last {
            self.unlist(id);
        }
        others.iter().for_each(|instance| self.count_out(instance));
        self.counts().retired.add(1 + others.len() as u64);
        self.discarded.extend(others);
        self.discarded.push(instance);
    }

    pub fn is_warm(&self, id: usize) -> bool {
        self.by_guest.get(id).is_some_and(|of_guest| of_guest.interval < WARM_INTERVAL)
    }

    /// Removes a guest that has no ready instances from the list.
    fn unlist(&mut self, id: usize) {
        let place = self.by_guest[id].list_index;
        self.guests_with_ready.swap_remove(place);
        if let Some(moved) = self.guests_with_ready.get(place) {
            self.by_guest[*moved].list_index = place;
        }
    }

    /// Whether to keep an instance of this guest. Evicts another one for it if need be.
    pub fn admit_instance(&mut self, guest: &Guest) -> bool {
        if guest.is_retired() {
            return false;
        }
        let engine = guest.engine;
        let is_full = self.ready_by_engine[engine] >= self.ready_max.by_engine[engine];
        // Where memory is tight, the number does not grow.
        let has_room = self.ready < self.ready_max.all && !self.memory.is_tight();
        if self.ready == 0 || (has_room && !is_full) {
            return true;
        }
        self.evict_for(guest, is_full)
    }

    /// Evicts an instance of less value than a new one of this guest. `is_full` says that it has to
    /// be one on the same engine.
    #[inline(never)]
    fn evict_for(&mut self, guest: &Guest, is_full: bool) -> bool {
        self.admissions += 1;
        let value = self.retention_value(guest.id, 1);
        let samples = (0..SAMPLES as u64).map(|sample| self.sample(sample));
        // If the engine is full, only its own instances make room.
        let samples = samples.filter(|id| !is_full || self.by_guest[*id].is_on(guest.engine));
        let Some((least, id)) = samples.map(|id| (self.retention_value(id, 0), id)).min() else {
            return false;
        };
        // A slightly higher value may be chance, and an exchange costs more than that brings.
        if least + least / 4 >= value && id != guest.id {
            return false;
        }
        self.evict_one(id);
        true
    }

    fn counts(&self) -> &metrics::InstanceReasons {
        &self.schedule.reasons().instances
    }

    /// A random guest with ready instances: a counter, scattered by a multiplicative hash (Knuth,
    /// The Art of Computer Programming, 6.4).
    fn sample(&self, sample: u64) -> usize {
        let scattered =
            (self.admissions * SAMPLES as u64 + sample).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        self.guests_with_ready[(scattered >> 32) as usize % self.guests_with_ready.len()]
    }

    /// The value of each ready instance of a guest if it had `more` of them: its share of the
    /// guest's uses.
    fn retention_value(&self, id: usize, more: usize) -> u64 {
        let Some(of_guest) = self.by_guest.get(id) else { return 0 };
        let uses = u64::from(of_guest.uses.count(self.admissions)) << 8;
        uses / (of_guest.ready.len() + more).max(1) as u64
    }

    /// Counts an instance that is not kept, by the reason.
    pub fn count_not_admitted(&self, guest: &Guest) {
        let counts = self.counts();
        let count = if guest.is_retired() { &counts.retired } else { &counts.unwanted };
        count.add(1);
    }

    pub fn put(&mut self, instance: Instance) {
        if !self.admit_instance(instance.guest()) {
            self.count_not_admitted(instance.guest());
            return self.drop_soon(instance);
        }
        let (id, engine) = (instance.guest().id, instance.guest().engine);
        let place = self.guests_with_ready.len();
        let of_guest = self.of_guest(id);
        of_guest.ready.push(instance);
        if of_guest.ready.len() == 1 {
            of_guest.list_index = place;
            self.guests_with_ready.push(id);
        }
        self.ready += 1;
        self.ready_by_engine[engine] += 1;
    }

    /// Counts an instance that is no longer ready.
    fn count_out(&mut self, instance: &Instance) {
        self.ready -= 1;
        self.ready_by_engine[instance.guest().engine] -= 1;
    }

    /// Drops an instance, or has it dropped later if that takes a while.
    fn drop_soon(&mut self, instance: Instance) {
        if instance.is_slow_to_drop() {
            self.discarded.push(instance);
        }
    }

    /// Evicts one instance of a guest.
    fn evict_one(&mut self, id: usize) {
        if let Some(instance) = self.by_guest[id].ready.pop() {
            self.counts().evicted.add(1);
            self.count_out(&instance);
            self.drop_soon(instance);
        }
        if self.by_guest[id].ready.is_empty() {
            self.unlist(id);
        }
    }

    pub fn sweep(&mut self) {
        let dropped = self.drop_where(|instance| instance.guest().is_retired());
        self.counts().retired.add(dropped);
    }

    /// Discards the ready instances of one engine.
    pub fn clear_engine(&mut self, engine: usize) {
        let dropped = self.drop_where(|instance| instance.guest().engine == engine);
        self.counts().relieved.add(dropped);
    }

    /// Discards the ready instances for which this is true. Returns their number.
    fn drop_where(&mut self, is_dropped: impl Fn(&Instance) -> bool) -> u64 {
        let before = self.ready;
        for id in self.guests_with_ready.clone() {
            let ready = std::mem::take(&mut self.by_guest[id].ready);
            let (dropped, remaining): (Vec<Instance>, _) = ready.into_iter().partition(&is_dropped);
            self.by_guest[id].ready = remaining;
            dropped.iter().for_each(|instance| self.count_out(instance));
            self.discarded.extend(dropped);
            if self.by_guest[id].ready.is_empty() {
                self.unlist(id);
            }
        }
        (before - self.ready) as u64
    }

    /// Discards all ready instances, and removes and returns the shared ones.
    pub fn clear(&mut self) -> Vec<Rc<SharedInstance>> {
        for id in self.guests_with_ready.drain(..) {
            self.discarded.append(&mut self.by_guest[id].ready);
        }
        self.counts().relieved.add(self.ready as u64);
        self.ready = 0;
        self.ready_by_engine = [0; ENGINES];
        self.all_shared()
    }

    /// Removes and returns all shared instances.
    pub fn all_shared(&mut self) -> Vec<Rc<SharedInstance>> {
        self.by_guest.iter_mut().flat_map(|of_guest| std::mem::take(&mut of_guest.shared)).collect()
    }

    /// The shared instances of a guest.
    pub fn shared(&mut self, guest: &Arc<Guest>) -> &mut Vec<Rc<SharedInstance>> {
        &mut self.of_guest(guest.id).shared
    }
}

//! One worker's instances. It hands out ready ones, and recycles used ones after their responses
//! have gone out.
//!
//! Owns how many instances are ready, and for which guests: those that are asked for most often, by
//! a count that ages and a sample of the others. An instance of any other guest is dropped after
//! its request, as recycling it would be wasted work. Lives on one thread and takes no lock.

mod instantiation;

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::Notify;

use super::ready_instances::ReadyInstances;
use crate::grants::Isolation;
use crate::guest::call::checkout::Checkout;
use crate::guest::call::context::InstancePool;
use crate::guest::call::shared_instance::{CallSlot, SharedInstance};
use crate::guest::component::Concurrent;
use crate::guest::engine::allocator;
use crate::guest::engine::budget::Budget;
use crate::guest::engine::form::Form;
use crate::guest::engine::slots::{CONCURRENT_ENGINE, ReadyMax};
use crate::guest::instance::component::ComponentInstance;
use crate::guest::instance::guest::Guest;
use crate::guest::instance::sandbox::Instance;
use crate::guest::schedule::{CostClass, DropCost as _, Scheduler};
use crate::message::{Reject, RequestId};
use crate::metrics;
use crate::outbound::OutboundHandle;

/// How many of the used instances are searched for one of a certain guest.
const RETIRED_SCAN_MAX: usize = 8;
/// How long recycling may take while connections wait, and after how many instances that is
/// checked.
const RECYCLE_MAX: Duration = Duration::from_micros(500);
const RECYCLE_BATCH: usize = 4;
/// With more memory than this, the time is checked after each instance.
const QUICK_BYTES: usize = 256 << 10;

/// The pool of one worker, for all guests.
pub struct Pool {
    ready: RefCell<ReadyInstances>,
    /// Used instances that wait to be recycled.
    retired: RefCell<Vec<Instance>>,
    schedule: Rc<Scheduler>,
    /// Where guests send requests of their own.
    outbound: OutboundHandle,
    /// Notified when there is work for [`Pool::recycle_retired`].
    work: Rc<Notify>,
    memory: Budget,
    /// The budget's count of shortages when it was last read.
    shortages: Cell<u64>,
}

impl Pool {
    /// `ready_max` is how many ready instances it keeps. `work` is notified when there are
    /// instances to recycle or drop.
    pub fn new(
        schedule: Rc<Scheduler>,
        outbound: OutboundHandle,
        memory: Budget,
        ready_max: ReadyMax,
        work: Rc<Notify>,
    ) -> Self {
        Pool {
            ready: RefCell::new(ReadyInstances::new(ready_max, memory.clone(), schedule.clone())),
            retired: RefCell::default(),
            schedule,
            outbound,
            work,
            shortages: Cell::new(memory.shortages()),
            memory,
        }
    }

    /// The memory as charged to a guest that has had requests, otherwise to no guest.
    pub fn memory_of(&self, guest: Option<usize>) -> Budget {
        let about = guest.and_then(|guest| self.schedule.last_info(guest));
        about.map_or_else(|| self.memory.clone(), |about| about.memory.clone())
    }

    /// How many instances are ready, and how many wait to be recycled.
    pub fn instance_counts(&self) -> (usize, usize) {
        (self.ready.borrow().ready, self.retired.borrow().len())
    }

    /// What a request can be handled in at once, if there is something: a slot of a shared
    /// instance, or an instance of its own.
    pub fn try_checkout(&self, guest: &Arc<Guest>) -> Option<Checkout> {
        if guest.is_shared() {
            self.try_acquire_slot(guest).map(Checkout::Shared)
        } else {
            self.take(guest).map(Checkout::Instance)
        }
    }

    /// Makes an instance for a request, given its id and when it began.
    ///
    /// # Errors
    /// As [`Pool::make`].
    pub async fn checkout(
        self: &Rc<Self>,
        guest: Arc<Guest>,
        request: (RequestId, Instant),
    ) -> Result<Checkout, Reject> {
        Ok(match self.make(guest, Some(request)).await? {
            Form::Whole03(it) if it.guest().is_shared() => Checkout::Shared(self.start_shared(it)),
            Form::Flat03(it) if it.guest().is_shared() => Checkout::Shared(self.start_shared(it)),
            instance => Checkout::Instance(instance),
        })
    }

    /// A slot of a shared instance, if one is free.
    fn try_acquire_slot(&self, guest: &Arc<Guest>) -> Option<CallSlot> {
        self.schedule.count(guest.id, &guest.info);
        let shared = {
            let mut ready = self.ready.borrow_mut();
            let shared = ready.shared(guest);
            shared.retain(|instance| {
                let is_current = Arc::ptr_eq(instance.guest(), guest);
                if !is_current {
                    instance.retire();
                }
                is_current && instance.is_open()
            });
            shared.clone()
        };
        shared.iter().find_map(SharedInstance::try_acquire)
    }

    /// Starts a shared instance. Returns its first slot.
    fn start_shared<R: Concurrent>(self: &Rc<Self>, instance: Box<ComponentInstance<R>>) -> CallSlot
    where
        Instance: From<Box<ComponentInstance<R>>>,
    {
        let instance = SharedInstance::start(instance, &**self);
        let slot = instance.try_acquire().expect("one that has just begun has a place");
        self.ready.borrow_mut().shared(instance.guest()).push(instance.clone());
        let pool = self.clone();
        tokio::task::spawn_local(async move {
            instance.drive().await;
            pool.forget(&instance);
        });
        slot
    }

    /// Removes a shared instance that has ended.
    fn forget(&self, instance: &Rc<SharedInstance>) {
        let mut ready = self.ready.borrow_mut();
        let shared = &mut ready.of_guest(instance.guest().id).shared;
        shared.retain(|other| !Rc::ptr_eq(other, instance));
    }

    /// A ready instance, if there is one. Otherwise a used one is reset on the spot, which is
    /// faster than making one: pipelined requests use up all ready instances before there is time
    /// to recycle.
    pub fn take(&self, guest: &Arc<Guest>) -> Option<Instance> {
        self.schedule.count(guest.id, &guest.info);
        let ready = self.ready.borrow_mut().take(guest);
        ready.or_else(|| self.reset_one(guest))
    }

    /// Resets the latest used instance of this version, if a short search finds one. Those that
    /// have become too large for a reset are left to recycling.
    fn reset_one(&self, guest: &Arc<Guest>) -> Option<Instance> {
        let instance = {
            let mut retired = self.retired.borrow_mut();
            let mut latest = (0..retired.len()).rev().take(RETIRED_SCAN_MAX);
            let can_be_reset = |it: &Instance| {
                Arc::ptr_eq(it.guest(), guest) && !it.is_large() && !it.is_slow_to_drop()
            };
            let at = latest.find(|at| can_be_reset(&retired[*at]))?;
            retired.swap_remove(at)
        };
        let is_warm = self.ready.borrow().is_warm(guest.id);
        instance.reset(is_warm).ok().inspect(|_| self.counts().reset.add(1))
    }

    /// Drops the ready instances of guests that are no longer served.
    pub fn sweep(&self) {
        self.ready.borrow_mut().sweep();
        self.work.notify_one();
    }

    /// Drops discarded instances until this time. Returns whether none is left.
    fn drop_discarded(&self, until: Instant) -> bool {
        let _running = self.schedule.ticker().begin();
        loop {
            // The borrow ends first: dropping the last instance may drop its guest.
            let Some(instance) = ({ self.ready.borrow_mut().discarded.pop() }) else {
                return true;
            };
            self.schedule.drop_or_defer(instance);
            if Instant::now() >= until {
                return false;
            }
        }
    }

    /// Drops the ready instances if memory has been short since the last call: another worker may
    /// need it.
    pub fn shrink_on_shortage(&self) {
        let shortages = self.memory.shortages();
        if self.shortages.replace(shortages) != shortages {
            self.clear();
        }
    }

    /// Hands free memory of this thread on to threads that have time, if a round is due. Call it
    /// often: the less has piled up, the faster it is.
    pub fn trim_quickly(&self) {
        if allocator::trim_heap_quickly() {
            self.schedule.lane().wake_to_trim();
        }
    }

    /// Gives free memory of this thread back to the kernel, if a round is due. May take long.
    pub fn trim_fully(&self) {
        if allocator::trim_heap() {
            self.schedule.lane().wake_to_trim();
        }
    }

    /// Takes back an instance whose call ended well.
    pub fn give_back(&self, mut instance: Instance) {
        let isolation = instance.guest().info.grants.isolation;
        match isolation {
            Isolation::Reuse if instance.is_spent() => {
                self.counts().spent.add(1);
                self.schedule.drop_or_defer(instance);
            }
            Isolation::Reuse => {
                self.counts().reused.add(1);
                self.put(instance);
            }
            // Others wait for its memory, and large instances are not reset.
            Isolation::Fresh if self.memory.is_tight() && instance.is_large() => {
                self.counts().relieved.add(1);
                self.schedule.drop_or_defer(instance);
            }
            Isolation::Fresh => {
                self.retired.borrow_mut().push(instance);
                self.work.notify_one();
            }
        }
    }

    /// Keeps an instance ready. Those that it evicts are dropped later, if that takes a while.
    fn put(&self, instance: Instance) {
        let mut ready = self.ready.borrow_mut();
        ready.put(instance);
        if !ready.discarded.is_empty() {
            self.work.notify_one();
        }
    }

    /// Resets used instances, or makes new ones in their place, as long as there is time. Returns
    /// whether none is left.
    pub fn recycle_retired(self: &Rc<Self>) -> bool {
        if !self.ready.borrow().discarded.is_empty()
            && !self.drop_discarded(Instant::now() + RECYCLE_MAX)
        {
            return false;
        }
        let is_long = self.retired.borrow().len() > RECYCLE_BATCH;
        let mut begun = is_long.then(Instant::now);
        let (mut renewed, mut is_due) = (0, false);
        // The ticker runs meanwhile, so that slow instantiations are noticed.
        let mut running = None;
        while let Some(instance) = { self.retired.borrow_mut().pop() } {
            renewed += 1;
            running.get_or_insert_with(|| self.schedule.ticker().begin());
            if (is_due || renewed % RECYCLE_BATCH == 0)
                && begun.is_some_and(|begun| begun.elapsed() >= RECYCLE_MAX)
            {
                self.retired.borrow_mut().push(instance);
                return false;
            }
            is_due = instance.memory_bytes() > QUICK_BYTES;
            if is_due && begun.is_none() {
                begun = Some(Instant::now());
            }
            let is_warm = {
                let mut ready = self.ready.borrow_mut();
                if !ready.admit_instance(instance.guest()) {
                    ready.count_not_admitted(instance.guest());
                    self.schedule.drop_or_defer(instance);
                    continue;
                }
                ready.is_warm(instance.guest().id)
            };
            // What cannot be reset is dropped first, so that a new instance can have its slot.
            let guest = if instance.is_slow_to_drop() {
                let guest = instance.guest().clone();
                self.schedule.drop_or_defer(instance);
                guest
            } else {
                match instance.reset(is_warm) {
                    Ok(instance) => {
                        self.counts().reset.add(1);
                        self.put(instance);
                        continue;
                    }
                    Err(guest) => guest,
                }
            };
            if self.schedule.cost_class(guest.id) == CostClass::Long {
                // Beside long calls, making an instance on demand costs next to nothing.
                continue;
            }
            if guest.runs_startup() {
                // Guest code may run long or wait, so it gets its own task.
                self.recycle_later(guest);
                continue;
            }
            if self.schedule.instantiation_class(guest.id) == CostClass::Long {
                continue;
            }
            if let Ok(instance) = Instance::make_now(guest, &self.schedule, None) {
                self.put(instance);
            }
        }
        if !self.ready.borrow().discarded.is_empty() {
            self.work.notify_one();
        }
        true
    }

    fn counts(&self) -> &metrics::InstanceReasons {
        &self.schedule.reasons().instances
    }

    /// Drops the idle instances of one engine, to free slots.
    fn clear_engine(&self, engine: usize) {
        let is_of_it = |instance: &mut Instance| instance.guest().engine == engine;
        let retired: Vec<Instance> = self.retired.borrow_mut().extract_if(.., is_of_it).collect();
        self.counts().relieved.add(retired.len() as u64);
        self.ready.borrow_mut().discarded.extend(retired);
        self.ready.borrow_mut().clear_engine(engine);
        self.work.notify_one();
        if engine == CONCURRENT_ENGINE {
            let shared = self.ready.borrow_mut().all_shared();
            shared.iter().for_each(|instance| instance.evict());
        }
    }

    /// Drops all idle instances.
    pub fn clear(&self) {
        self.counts().relieved.add(self.retired.borrow().len() as u64);
        self.ready.borrow_mut().discarded.append(&mut self.retired.borrow_mut());
        let shared = self.ready.borrow_mut().clear();
        self.work.notify_one();
        shared.iter().for_each(|instance| instance.evict());
    }
}

impl InstancePool for Pool {
    fn schedule(&self) -> &Rc<Scheduler> {
        &self.schedule
    }

    fn outbound(&self) -> &OutboundHandle {
        &self.outbound
    }

    fn give_back(&self, instance: Instance) {
        Pool::give_back(self, instance);
    }
}

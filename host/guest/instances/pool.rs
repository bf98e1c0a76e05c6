//! One worker's instances: ready ones are handed out, finished ones are renewed once the response
//! has gone out.
//!
//! Owns the budget of ready instances and which guests have a share in it: those that were asked
//! for most of late. An instance of any other guest is dropped after its request, for it would only
//! be renewed to be dropped. Lives on one thread and takes no lock.

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

/// Retired instances among which one of a certain guest is looked for.
const RETIRED_SCAN_MAX: usize = 8;
/// How long instances are renewed while connections wait, and how many before that is looked at.
const RECYCLE_MAX: Duration = Duration::from_micros(500);
const RECYCLE_BATCH: usize = 4;
/// Instances with so much memory are renewed with a look at the clock behind each.
const QUICK_BYTES: usize = 256 << 10;

/// The pools of all guests on one worker.
pub struct Pool {
    ready: RefCell<ReadyInstances>,
    /// Instances that have done their work and wait to be renewed.
    retired: RefCell<Vec<Instance>>,
    schedule: Rc<Scheduler>,
    /// Requests that guests make.
    door: OutboundHandle,
    /// Told of instances that are to be renewed, by [`Pool::recycle_retired`].
    work: Rc<Notify>,
    memory: Budget,
    /// How often memory had been short when this was looked at last.
    shortages: Cell<u64>,
}

impl Pool {
    /// `ready_max` is how many ready instances it keeps, `work` is told when there are some to be
    /// renewed.
    pub fn new(
        schedule: Rc<Scheduler>,
        door: OutboundHandle,
        memory: Budget,
        ready_max: ReadyMax,
        work: Rc<Notify>,
    ) -> Self {
        Pool {
            ready: RefCell::new(ReadyInstances::new(ready_max, memory.clone(), schedule.clone())),
            retired: RefCell::default(),
            schedule,
            door,
            work,
            shortages: Cell::new(memory.shortages()),
            memory,
        }
    }

    /// The memory as a guest has it that was asked for before, or as nobody's.
    pub fn memory_of(&self, guest: Option<usize>) -> Budget {
        let about = guest.and_then(|guest| self.schedule.last_info(guest));
        about.map_or_else(|| self.memory.clone(), |about| about.memory.clone())
    }

    /// Instances that are ready, and waiting to be renewed.
    pub fn instance_counts(&self) -> (usize, usize) {
        (self.ready.borrow().ready, self.retired.borrow().len())
    }

    /// What a request to a guest can be handled in, if that is ready: a place in an instance that
    /// handles several, or an instance of its own.
    pub fn try_checkout(&self, guest: &Arc<Guest>) -> Option<Checkout> {
        if guest.is_shared() {
            self.seat(guest).map(Checkout::Shared)
        } else {
            self.take(guest).map(Checkout::Instance)
        }
    }

    /// The same, made for the request, whose id and beginning are told.
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

    /// A place in an instance that handles several requests, if there is one.
    fn seat(&self, guest: &Arc<Guest>) -> Option<CallSlot> {
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

    /// Has an instance handle several requests, and gives the first place in it.
    fn start_shared<R: Concurrent>(self: &Rc<Self>, instance: Box<ComponentInstance<R>>) -> CallSlot
    where
        Instance: From<Box<ComponentInstance<R>>>,
    {
        let instance = SharedInstance::start(instance, &**self);
        let seat = instance.try_acquire().expect("one that has just begun has a place");
        self.ready.borrow_mut().shared(instance.guest()).push(instance.clone());
        let pool = self.clone();
        tokio::task::spawn_local(async move {
            instance.drive().await;
            pool.forget(&instance);
        });
        seat
    }

    /// Says that an instance for several requests has ended.
    fn forget(&self, instance: &Rc<SharedInstance>) {
        let mut ready = self.ready.borrow_mut();
        let shared = &mut ready.of_guest(instance.guest().id).shared;
        shared.retain(|other| !Rc::ptr_eq(other, instance));
    }

    /// A ready instance, if there is one. Else one that was used a moment ago and is reset now,
    /// which is sooner than to make one: requests that come pipelined use up all that are ready
    /// before there is time to renew them.
    pub fn take(&self, guest: &Arc<Guest>) -> Option<Instance> {
        self.schedule.count(guest.id, &guest.info);
        let ready = self.ready.borrow_mut().take(guest);
        ready.or_else(|| self.reset_one(guest))
    }

    /// Resets the latest instance of this version that waits for it, if it can be found soon. One
    /// that has become too large for that is left to `renew`, which does not drop it here.
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

    /// Has the ready instances dropped of guests that are served no more.
    pub fn sweep(&self) {
        self.ready.borrow_mut().sweep();
        self.work.notify_one();
    }

    /// Drops what is to be dropped, until this time. Whether nothing is left.
    fn drop_discarded(&self, until: Instant) -> bool {
        let _running = self.schedule.ticker().begin();
        loop {
            // Not while the ready are borrowed: it is the end of a guest.
            let Some(instance) = ({ self.ready.borrow_mut().discarded.pop() }) else {
                return true;
            };
            self.schedule.drop_or_defer(instance);
            if Instant::now() >= until {
                return false;
            }
        }
    }

    /// Gives back what this worker keeps ready, if memory has been short since the last time: it
    /// may be another worker that needs it.
    pub fn shrink_on_shortage(&self) {
        let shortages = self.memory.shortages();
        if self.shortages.replace(shortages) != shortages {
            self.clear();
        }
    }

    /// Hands on memory that this thread has free, if it is time for that. To be called often: the
    /// less others have freed meanwhile, the sooner it is done.
    pub fn trim_quickly(&self) {
        if allocator::trim_heap_quickly() {
            self.schedule.lane().wake_to_trim();
        }
    }

    /// Gives it back to the kernel, which may take long.
    pub fn trim_fully(&self) {
        if allocator::trim_heap() {
            self.schedule.lane().wake_to_trim();
        }
    }

    /// Takes back an instance that ended well.
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
            // Others want its memory, and what is large is not reset.
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

    /// Keeps a ready instance. What gives way to it is dropped later, if that takes a while.
    fn put(&self, instance: Instance) {
        let mut ready = self.ready.borrow_mut();
        ready.put(instance);
        if !ready.discarded.is_empty() {
            self.work.notify_one();
        }
    }

    /// Resets the instances that have done their work, or makes new ones in their place. Those for
    /// which there is no time now are left. Whether none is.
    pub fn recycle_retired(self: &Rc<Self>) -> bool {
        if !self.ready.borrow().discarded.is_empty()
            && !self.drop_discarded(Instant::now() + RECYCLE_MAX)
        {
            return false;
        }
        let is_long = self.retired.borrow().len() > RECYCLE_BATCH;
        let mut begun = is_long.then(Instant::now);
        let (mut renewed, mut is_due) = (0, false);
        // The ticker runs meanwhile, so that it is seen how long it takes.
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
            // Without a reset, the slot is given back before it is asked for again.
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
                // Beside its calls it is nothing to make one when it is asked for.
                continue;
            }
            if guest.runs_startup() {
                // Guest code may run long or wait, so it gets a task of its own.
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

    /// Has the instances of one engine dropped that are not out, so that it has free slots.
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

    /// Has every instance dropped that is not out.
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
        &self.door
    }

    fn give_back(&self, instance: Instance) {
        Pool::give_back(self, instance);
    }
}

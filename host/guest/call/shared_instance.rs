//! An instance that handles several requests at once: a component of wasi:http 0.3 under reuse.
//!
//! Owns how many requests an instance gets, when another instance replaces it, and where it runs:
//! on its worker's thread until one of its requests has used a quantum of CPU time, then in the
//! slow lane, where it gets no more requests. Lives on one thread; the call that it drives may
//! move.

use std::any::Any;
use std::cell::{Cell, RefCell};
use std::future::poll_fn;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

use super::call_slots::{CALL_SLOTS, CallSlots};
use super::context::InstancePool;
use super::options::{BACKGROUND_TIME_MAX, CallFailure, CallOutcome, CallReturn};
use crate::guest::component::component_form::Concurrent;
use crate::guest::component::concurrent::{Arrival, Inbox, InstanceFlags};
use crate::guest::component::store_liveness::StoreLiveness;
use crate::guest::engine::limiter::PrepaidStacks;
use crate::guest::engine::outcomes::{log_stopped, resolve_outcome};
use crate::guest::instance::component::ComponentInstance;
use crate::guest::instance::guest::Guest;
use crate::guest::instance::sandbox::Instance;
use crate::guest::schedule::OwnedTickGuard;
use crate::guest::schedule::{
    BoxedCall, CostClass, HEAVY_SLICE, LaneJoinHandle, QUANTUM, RunPermit, Scheduler, SliceStart,
};
use crate::message::Reject;
use crate::metrics::{self, Counter};

/// Requests that one instance handles in its life.
const REQUESTS_MAX: u32 = 128;
/// How long an instance without requests is kept, and how often that is checked.
const IDLE_MAX: Duration = Duration::from_secs(1);
const IDLE_CHECK_INTERVAL: Duration = Duration::from_millis(250);

/// An instance that handles several requests.
pub struct SharedInstance {
    guest: Arc<Guest>,
    schedule: Rc<Scheduler>,
    liveness: StoreLiveness,
    prepaid: PrepaidStacks,
    flags: Arc<InstanceFlags>,
    /// Where requests are handed in.
    inbox: Arc<Inbox>,
    /// `None` once it has ended.
    execution: RefCell<Option<Execution>>,
    /// Its place in the run queue, while it waits for its turn or has it.
    run_permit: RefCell<Option<RunPermit>>,
    /// Wakes the task that drives it.
    waker: RefCell<Waker>,
    call_slots: CallSlots,
    requests: Cell<u32>,
    /// The permit of the last request, kept while the guest works on after that response: an
    /// instance at work always takes up one permit.
    background_permit: RefCell<Option<Box<dyn Any>>>,
    /// Whether a request was given up that the guest may still be working on.
    has_abandoned_call: Cell<bool>,
    /// Whether there is a slow lane that it can move to.
    has_slow_lane: bool,
    /// The instance, if its guest has ended while requests were in it. It is kept because response
    /// bodies may still come out of it, and because only with it can a finished body be told from a
    /// cut one.
    ended_instance: RefCell<Option<Instance>>,
    /// Why it has ended, if badly.
    reject: Cell<Option<Reject>>,
}

/// Where the instance is driven.
enum Execution {
    Fast(BoxedCall<CallReturn>),
    /// The guard keeps the ticker running, so that the guest has to yield.
    Slow {
        moved: LaneJoinHandle<CallReturn>,
        _tick_guard: OwnedTickGuard,
    },
}

/// A request's slot in a shared instance. If it is dropped before it is
/// [`complete`](CallSlot::complete), the instance takes no more requests and ends with those in it.
pub struct CallSlot {
    shared: Rc<SharedInstance>,
    number: usize,
    is_done: bool,
    permit: Option<Box<dyn Any>>,
}

impl SharedInstance {
    /// Prepares an instance for several requests. [`SharedInstance::drive`] has to be polled.
    pub fn start<R: Concurrent>(
        mut instance: Box<ComponentInstance<R>>,
        pool: &dyn InstancePool,
    ) -> Rc<SharedInstance>
    where
        Instance: From<Box<ComponentInstance<R>>>,
    {
        instance.open(pool.outbound());
        let schedule = pool.schedule().clone();
        let (inbox, flags) = (Arc::new(Inbox::default()), Arc::new(InstanceFlags::default()));
        let (guest, liveness) = (instance.guest().clone(), instance.gone());
        let prepaid = instance.prepaid_stacks();
        let attend = instance.attend(inbox.clone(), flags.clone());
        let call: BoxedCall<CallReturn> = Box::pin(async move {
            let (instance, result) = attend.await;
            (Instance::from(instance), result)
        });
        Rc::new(SharedInstance {
            has_slow_lane: schedule.lane().has_threads(),
            schedule,
            guest,
            liveness,
            prepaid,
            flags,
            inbox,
            execution: RefCell::new(Some(Execution::Fast(call))),
            run_permit: RefCell::new(None),
            waker: RefCell::new(Waker::noop().clone()),
            call_slots: CallSlots::default(),
            requests: Cell::new(0),
            background_permit: RefCell::new(None),
            has_abandoned_call: Cell::new(false),
            ended_instance: RefCell::new(None),
            reject: Cell::new(None),
        })
    }

    /// Drives the instance until it has ended.
    pub async fn drive(&self) {
        let mut interval = tokio::time::interval(IDLE_CHECK_INTERVAL);
        poll_fn(|cx| {
            if !self.waker.borrow().will_wake(cx.waker()) {
                *self.waker.borrow_mut() = cx.waker().clone();
            }
            while interval.poll_tick(cx).is_ready() {
                self.check_idle();
            }
            self.poll_instance(cx)
        })
        .await;
    }

    /// The guest that it is an instance of.
    pub fn guest(&self) -> &Arc<Guest> {
        &self.guest
    }

    /// Tells whether its store is gone.
    pub fn liveness(&self) -> StoreLiveness {
        self.liveness.clone()
    }

    /// Whether it takes requests, now or later.
    pub fn is_open(&self) -> bool {
        !self.inbox.is_closed()
    }

    /// A slot for one more request, if the instance can take one now. Long calls would hold each
    /// other up, so there is only one of them at a time.
    pub fn try_acquire(self: &Rc<Self>) -> Option<CallSlot> {
        let at_once =
            if self.schedule.cost_class(self.guest.id) == CostClass::Long { 1 } else { CALL_SLOTS };
        if !self.is_open() || !self.flags.is_ready() || self.call_slots.in_use() >= at_once {
            return None;
        }
        self.guest.charge_stacks(self.call_slots.in_use() + 1, &self.prepaid).ok()?;
        let number = self.call_slots.take()?;
        self.requests.set(self.requests.get() + 1);
        self.schedule.count_active_call(true);
        self.release_background();
        Some(CallSlot { shared: self.clone(), number, is_done: false, permit: None })
    }

    /// Closes the instance to new requests and counts the reason. It ends once the guest is done
    /// with those that are in it.
    fn close(&self, reason: fn(&metrics::InstanceReasons) -> &Counter) {
        if self.is_open() {
            reason(&self.schedule.reasons().instances).add(1);
            self.inbox.close();
            self.waker.borrow().wake_by_ref();
        }
    }

    /// Closes it because its guest is no longer served.
    pub fn retire(&self) {
        self.close(|counts| &counts.retired);
    }

    /// Closes it because memory or slots are short. Ends it at once if it has no requests.
    pub fn evict(&self) {
        self.close(|counts| &counts.relieved);
        if self.call_slots.in_use() == 0 {
            self.abort(None);
        }
    }

    /// Polls the guest. Ready when the instance is gone.
    fn poll_instance(&self, cx: &mut Context<'_>) -> Poll<()> {
        let Ok(mut execution) = self.execution.try_borrow_mut() else { return Poll::Pending };
        let polled = match &mut *execution {
            None => return Poll::Ready(()),
            Some(Execution::Fast(_)) if !self.poll_permit(cx) => return Poll::Pending,
            Some(Execution::Fast(call)) => self.run(call, cx),
            Some(Execution::Slow { moved, .. }) => {
                Pin::new(moved).poll(cx).map(|ended| ended.map(|(called, _)| called))
            }
        };
        match polled {
            Poll::Ready(called) => {
                if let Some(Execution::Slow { .. }) = execution.take() {
                    self.schedule.long_call_queue(self.guest.id).wake_next();
                }
                drop(execution);
                self.finish(called);
                Poll::Ready(())
            }
            Poll::Pending if matches!(*execution, Some(Execution::Fast(_))) => {
                if !self.flags.is_working() {
                    self.release_background();
                }
                if self.has_slow_lane && self.call_slots.most_cpu_time() >= QUANTUM {
                    *execution = self.move_to_slow_lane(execution.take());
                } else if self.call_slots.most_cpu_time() >= self.guest.info.grants.limits.cpu_max {
                    drop(execution);
                    log_stopped(
                        &self.guest.info,
                        self.call_slots.sole_request(),
                        format_args!("{}", Reject::CpuTime),
                    );
                    self.log_each(Reject::CpuTime);
                    self.abort(Some(Reject::CpuTime));
                    return Poll::Ready(());
                }
                Poll::Pending
            }
            Poll::Pending => Poll::Pending,
        }
    }

    /// Polls the guest on this thread and charges the slice.
    fn run(
        &self,
        call: &mut BoxedCall<CallReturn>,
        cx: &mut Context<'_>,
    ) -> Poll<Result<CallReturn, Reject>> {
        let _running = self.schedule.ticker().begin();
        let is_measured =
            self.has_slow_lane && self.schedule.cost_class(self.guest.id) != CostClass::Short;
        let begun = SliceStart::begin((!is_measured).then(Instant::now));
        let polled = catch_unwind(AssertUnwindSafe(|| call.as_mut().poll(cx)));
        let used = begun.used();
        if let Some(run_permit) = self.run_permit.borrow_mut().take() {
            run_permit.end(used);
        }
        if is_measured {
            self.schedule.note_slice(self.guest.id, used);
        } else if used >= HEAVY_SLICE {
            self.schedule.note(self.guest.id, |usage| usage.suspect(used));
        }
        self.call_slots.charge(used);
        polled.map(|polled| polled.map(Ok)).unwrap_or(Poll::Ready(Err(Reject::Panic)))
    }

    /// Whether the guest may run now. If its slices are heavy or not known, it waits for its turn.
    fn poll_permit(&self, cx: &Context<'_>) -> bool {
        let waits = |class| matches!(class, CostClass::Heavy | CostClass::New);
        if !self.has_slow_lane || !waits(self.schedule.cost_class(self.guest.id)) {
            return true;
        }
        let mut run_permit = self.run_permit.borrow_mut();
        run_permit
            .get_or_insert_with(|| self.schedule.join_run_queue(self.guest.id, None, cx))
            .poll(cx)
    }

    fn move_to_slow_lane(&self, execution: Option<Execution>) -> Option<Execution> {
        let Some(Execution::Fast(call)) = execution else { return execution };
        self.inbox.close();
        let id = self.guest.id;
        self.schedule.reasons().calls.moved.add(1);
        self.schedule.note_call(id, true, None);
        let (cpu_max, runnable) =
            (self.guest.info.grants.limits.cpu_max, self.schedule.long_call_queue(id).runnable());
        let moved =
            self.schedule.lane().hand_over(self.schedule.payer(id), call, cpu_max, runnable);
        // The driving task has to be woken, so that it polls the handle of the slow lane.
        self.waker.borrow().wake_by_ref();
        Some(Execution::Slow { moved, _tick_guard: self.schedule.ticker().begin_owned() })
    }

    /// Records how the guest has ended, and wakes the requests that are still there.
    fn finish(&self, called: Result<CallReturn, Reject>) {
        self.inbox.close();
        let info = &self.guest.info;
        let reject = match called {
            Ok((instance, result)) => {
                let judged = resolve_outcome(info, self.call_slots.sole_request(), result);
                if self.call_slots.in_use() > 0 {
                    *self.ended_instance.borrow_mut() = Some(instance);
                } else {
                    self.schedule.drop_or_defer(instance);
                }
                judged.err()
            }
            Err(reject) => {
                log_stopped(info, self.call_slots.sole_request(), format_args!("{reject}"));
                Some(reject)
            }
        };
        if let Some(reject) = reject {
            self.log_each(reject);
        }
        self.reject.set(reject);
        self.release_background();
        self.wake_all();
    }

    /// Logs the reject under the id of each request, if there are several.
    fn log_each(&self, reject: Reject) {
        if self.call_slots.sole_request().is_some() {
            return;
        }
        for id in self.call_slots.ids() {
            let why = format_args!("{reject}, with the other requests of its instance");
            log_stopped(&self.guest.info, Some(id), why);
        }
    }

    /// Ends the instance at once, wherever it runs.
    fn abort(&self, reject: Option<Reject>) {
        self.inbox.close();
        let Ok(mut execution) = self.execution.try_borrow_mut() else { return };
        match execution.take() {
            Some(Execution::Fast(call)) => self.schedule.lane().defer_drop(call),
            Some(slow @ Execution::Slow { .. }) => {
                drop(slow);
                self.schedule.long_call_queue(self.guest.id).wake_next();
            }
            None => return,
        }
        drop(execution);
        self.reject.set(reject);
        self.release_background();
        self.wake_all();
    }

    /// Gives back the permit that was kept for work after the last response.
    fn release_background(&self) {
        if let Some(permit) = self.background_permit.borrow_mut().take() {
            drop(permit);
            self.schedule.count_active_call(false);
        }
    }

    fn wake_all(&self) {
        self.waker.borrow().wake_by_ref();
        self.call_slots.wake_all();
    }

    /// Closes or ends an instance that has been without requests for too long.
    fn check_idle(&self) {
        if self.call_slots.in_use() > 0 {
            return;
        }
        if !self.flags.is_working() {
            self.release_background();
        }
        let for_ = self.call_slots.idle_for();
        if self.guest.is_retired() {
            self.retire();
        } else if for_ >= IDLE_MAX {
            self.close(|counts| &counts.idle);
        }
        if for_ >= IDLE_MAX + BACKGROUND_TIME_MAX {
            self.abort(None);
        }
    }

    /// Frees a request's slot. Closes the instance, or ends it, if it is time.
    fn release_slot(&self, number: usize, is_done: bool, permit: Option<Box<dyn Any>>) {
        self.call_slots.release(number);
        let goes_on = self.call_slots.in_use() == 0 && self.flags.is_working();
        let is_there = self.execution.try_borrow().is_ok_and(|place| place.is_some());
        if goes_on && is_there && permit.is_some() {
            *self.background_permit.borrow_mut() = permit;
        } else {
            self.schedule.count_active_call(false);
        }
        if !is_done {
            self.has_abandoned_call.set(true);
        }
        if self.has_abandoned_call.get() {
            self.close(|counts| &counts.given_up);
        } else if self.requests.get() >= REQUESTS_MAX || self.flags.is_spent() {
            self.close(|counts| &counts.spent);
        }
        if self.call_slots.in_use() == 0 {
            if self.has_abandoned_call.get() {
                self.abort(None);
            }
            if let Some(instance) = self.ended_instance.borrow_mut().take() {
                self.schedule.drop_or_defer(instance);
            }
        }
    }
}

impl CallSlot {
    /// Tells whether the store is gone.
    pub fn liveness(&self) -> StoreLiveness {
        self.shared.liveness()
    }

    /// The guest that handles the request.
    pub fn guest(&self) -> &Arc<Guest> {
        &self.shared.guest
    }

    /// Hands the request in. `permit` is dropped when the request leaves, or when the guest has
    /// ended its work after it.
    ///
    /// # Errors
    /// [`Reject::Trap`] if the instance has ended meanwhile.
    pub fn submit(&mut self, arrival: Box<Arrival>, permit: impl Any) -> Result<(), Reject> {
        self.permit = Some(Box::new(permit));
        let moved_bytes = arrival.request.body().moved_bytes.clone();
        self.shared.call_slots.assign(self.number, arrival.id, moved_bytes);
        if !self.shared.is_open() {
            log_stopped(
                &self.guest().info,
                Some(arrival.id),
                format_args!("its instance has ended"),
            );
            return Err(Reject::Trap);
        }
        self.shared.schedule.reasons().calls.fast.add(1);
        self.shared.flags.note_request();
        self.shared.inbox.put(arrival);
        if self.shared.requests.get() >= REQUESTS_MAX {
            self.shared.close(|counts| &counts.spent);
        }
        Ok(())
    }

    /// Polls the guest. Ready only if the instance comes to a bad end.
    pub fn poll(&mut self, cx: &mut Context<'_>) -> Poll<CallOutcome> {
        let shared = &self.shared;
        let waker = shared.waker.borrow().clone();
        let polled = shared.poll_instance(&mut Context::from_waker(&waker));
        if polled.is_ready()
            && let Some(reject) = shared.reject.get()
        {
            return Poll::Ready(Err(CallFailure { reject, instance: None }));
        }
        shared.call_slots.register(self.number, cx.waker());
        Poll::Pending
    }

    /// Frees the slot after a complete response.
    pub fn complete(mut self) {
        self.is_done = true;
        let SharedInstance { guest, schedule, .. } = &*self.shared;
        if schedule.cost_class(guest.id) != CostClass::Short {
            let is_long = self.shared.call_slots.most_cpu_time() >= QUANTUM;
            schedule.note_call(guest.id, is_long, None);
        }
    }
}

impl Drop for CallSlot {
    fn drop(&mut self) {
        let permit = self.permit.take();
        self.shared.release_slot(self.number, self.is_done, permit);
    }
}

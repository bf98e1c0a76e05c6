//! Holds a call to its limits on time: deadline, CPU time, and the quantum of the fast lane.
//!
//! Owns where a call runs: on its worker's thread for one quantum, then in the slow lane. Does not
//! know what runs in it.

use std::pin::Pin;
use std::sync::Arc;

use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use tokio::time::Sleep;

use super::byte_counter::ByteCounter;
use super::cpu::cpu_time;
use super::lane::{BoxedCall, LaneJoinHandle};
use super::run_queue::RunPermit;
use super::scheduler::Scheduler;
use super::usage::{CostClass, LONG_CALL};
use crate::grants::Limits;
use crate::message::Reject;
use crate::message::body_progress::{BodyProgress, Deadline};
use crate::metrics::{CallReasons, Counter};

/// CPU time that a call may use in the fast lane.
pub const QUANTUM: Duration = Duration::from_millis(1);
/// The most that a first slice is charged: the guest yields earlier.
const FIRST_MAX: Duration = Duration::from_millis(10);

/// Holds a request's calls to the deadline and to the CPU limit.
///
/// A guest yields after every quantum, so it is enough to check the clock between polls. A call
/// that ends within its first poll costs no clock reading at all.
pub struct Meter<'a> {
    /// The time from the start until the response head is due.
    deadline: Duration,
    cpu_max: Duration,
    started: Instant,
    /// When the first slice began, until it has run.
    first: Option<Instant>,
    cpu_used: Duration,
    /// The same without the allowance for body bytes. It decides where the call runs.
    own_used: Duration,
    /// Counts the body bytes that the call has moved.
    moved_bytes: Option<ByteCounter>,
    /// Counts calls.
    schedule: Option<&'a Scheduler>,
    /// The slow lane for calls that outlast their quantum, and the guest's number.
    lanes: Option<(&'a Scheduler, usize)>,
    /// Set if this is not one of the guest's own calls, and says nothing about them.
    untracked: Option<Untracked>,
    /// Whether calls end at the deadline.
    has_deadline: bool,
    /// The request's body: the deadline stands still while the guest waits for it.
    body: Option<Arc<BodyProgress>>,
}

/// A call that is not one of the guest's own, such as making an instance.
#[derive(Clone, Copy)]
struct Untracked {
    class: CostClass,
    /// The CPU time that a slice is expected to take.
    slice: Duration,
}

/// Where a call runs.
enum CallLane<'a, T: Send + 'static> {
    Fast(FastCall<'a, T>),
    Slow(LaneJoinHandle<T>),
}

/// A call on its worker's thread. If it is stopped, it is dropped in the slow lane: nobody knows
/// how much memory it has.
struct FastCall<'a, T: Send + 'static> {
    call: Option<BoxedCall<T>>,
    schedule: Option<&'a Scheduler>,
    /// Its place in the run queue, while it waits for its turn or has it.
    run_permit: Option<RunPermit>,
}

impl<T: Send + 'static> FastCall<'_, T> {
    /// Whether it is this call's turn in the run queue. `slice` is what it is expected to take, if
    /// that is not what the guest's calls take.
    fn poll_permit(&mut self, guest: usize, slice: Option<Duration>, cx: &Context<'_>) -> bool {
        let Some(schedule) = self.schedule else { return true };
        self.run_permit.get_or_insert_with(|| schedule.join_run_queue(guest, slice, cx)).poll(cx)
    }
}

impl<T: Send + 'static> Drop for FastCall<'_, T> {
    fn drop(&mut self) {
        if let (Some(call), Some(schedule)) = (self.call.take(), self.schedule) {
            schedule.lane().defer_drop(call);
        }
    }
}

impl<'a> Meter<'a> {
    /// The meter of a request that began at `started`, without lanes.
    pub fn new(limits: &Limits, started: Instant) -> Self {
        Meter {
            deadline: limits.deadline,
            cpu_max: limits.cpu_max,
            started,
            first: Some(started),
            cpu_used: Duration::ZERO,
            own_used: Duration::ZERO,
            moved_bytes: None,
            schedule: None,
            lanes: None,
            untracked: None,
            has_deadline: true,
            body: None,
        }
    }

    /// Counts the guest's calls, and moves those that have used up their quantum to the slow lane,
    /// if there is one.
    pub fn in_lanes(mut self, schedule: &'a Scheduler, guest: usize) -> Self {
        self.schedule = Some(schedule);
        self.lanes = schedule.lane().has_threads().then_some((schedule, guest));
        self
    }

    /// Says that this is not one of the guest's own calls. `class` is its cost class, and `slice`
    /// what a slice of it is expected to take.
    pub fn as_untracked(mut self, class: CostClass, slice: Duration) -> Self {
        self.untracked = Some(Untracked { class, slice });
        self
    }

    /// Keeps a call in the fast lane as long as it mostly moves bodies.
    pub fn with_byte_counter(mut self, counter: ByteCounter) -> Self {
        self.moved_bytes = Some(counter);
        self
    }

    /// Does not enforce the deadline: it is for a response's head, and the response may take
    /// longer.
    pub fn without_deadline(mut self) -> Self {
        self.has_deadline = false;
        self
    }

    /// Says that the time so far was not the guest's own.
    pub fn resume(&mut self) {
        self.first = None;
    }

    /// CPU time that the calls have used.
    pub fn used(&self) -> Duration {
        self.cpu_used
    }

    /// Makes the deadline stand still while the guest waits for this body.
    pub fn pause_for_body(&mut self, body: Option<&Arc<BodyProgress>>) {
        if body.is_some() {
            self.body = body.cloned();
        }
    }

    /// When the response head is due.
    pub fn deadline(&self) -> Deadline {
        Deadline::new(self.started + self.deadline, self.body.clone())
    }

    /// Runs a future on this thread until it is done, the deadline has passed, or its CPU time is
    /// used up.
    pub fn run<F: Future>(
        &mut self,
        mut future: Pin<&mut F>,
    ) -> impl Future<Output = Result<F::Output, Reject>> {
        let mut clock = self.clock();
        std::future::poll_fn(move |cx| {
            if let Poll::Ready(output) = self.slice(&mut clock, future.as_mut(), cx)? {
                return Poll::Ready(Ok(output));
            }
            clock.poll(cx)
        })
    }

    /// Runs a guest's call as [`run`](Self::run) does. If it has used up its quantum, or is
    /// expected to, it moves to the slow lane.
    pub fn call<T: Send + 'static>(
        &mut self,
        call: BoxedCall<T>,
    ) -> impl Future<Output = Result<T, Reject>> {
        let mut clock = self.clock();
        let class = self.cost_class();
        if class != CostClass::Short {
            // Measured by CPU time: on a busy machine others have had the core, too.
            clock.resumed = None;
        }
        let mut is_long = class == CostClass::Long || self.own_used >= QUANTUM;
        let mut is_new = class == CostClass::New && !is_long;
        if !is_new {
            self.count_begun(is_long);
        }
        let mut place = Some(if is_long { self.hand_over(call) } else { self.keep(call) });
        let mut is_heavy = class == CostClass::Heavy;
        let slice = self.untracked.map(|untracked| untracked.slice);
        let ticks = self.ticks();
        std::future::poll_fn(move |cx| {
            if is_new {
                let Poll::Ready(begun) = self.begin_new(&mut place, cx) else {
                    return clock.poll(cx);
                };
                (is_new, is_long) = (false, begun == CostClass::Long);
            }
            match place.take() {
                Some(CallLane::Fast(mut here)) => {
                    if let Some((_, guest)) = self.lanes.filter(|_| is_heavy)
                        && !here.poll_permit(guest, slice, cx)
                    {
                        place = Some(CallLane::Fast(here));
                        return clock.poll(cx);
                    }
                    let (before, is_measured) = (self.cpu_used, clock.resumed.is_none());
                    let call = here.call.as_mut().expect("it is taken when it goes elsewhere");
                    let polled = self.slice(&mut clock, call.as_mut(), cx);
                    let used = self.cpu_used - before;
                    if let Some(turn) = here.run_permit.take() {
                        turn.end(used);
                    }
                    if let Poll::Ready(output) = polled? {
                        here.call = None;
                        self.note_end(is_measured.then_some(used), ticks);
                        return Poll::Ready(Ok(output));
                    }
                    is_heavy = self.note_slice(used, is_measured);
                    place = Some(match here.call.take() {
                        Some(call) if self.own_used >= QUANTUM => {
                            self.note_call(true);
                            self.count(|calls| &calls.moved);
                            self.hand_over(call)
                        }
                        call => {
                            here.call = call;
                            CallLane::Fast(here)
                        }
                    });
                }
                moved => place = moved,
            }
            if let Some(CallLane::Slow(moved)) = &mut place
                && let Poll::Ready(ended) = Pin::new(moved).poll(cx)
            {
                self.note_moved_end(ended.as_ref().ok().map(|(_, used)| *used), is_long);
                return Poll::Ready(ended.map(|(output, _)| output));
            }
            clock.poll(cx)
        })
    }

    /// Polls a future once and charges its CPU time.
    fn slice<F: Future + ?Sized>(
        &mut self,
        clock: &mut CallTimer,
        future: Pin<&mut F>,
        cx: &mut Context<'_>,
    ) -> Result<Poll<F::Output>, Reject> {
        // The first slice begins when the request did, so its start needs no clock reading.
        let begun = SliceStart::begin(clock.resumed.take());
        if let Poll::Ready(output) = future.poll(cx) {
            if let SliceStart::Cpu(_) = begun {
                self.charge(begun.used());
            }
            return Ok(Poll::Ready(output));
        }
        self.charge(begun.used());
        if self.cpu_used >= self.cpu_max { Err(Reject::CpuTime) } else { Ok(Poll::Pending) }
    }

    /// Charges CPU time to the call. Only for the choice of lane the allowance for the body bytes
    /// that it has moved is subtracted. Unused allowance is not saved up.
    fn charge(&mut self, used: Duration) {
        self.cpu_used += used;
        let allowed =
            self.moved_bytes.as_ref().map_or(Duration::ZERO, ByteCounter::take_cpu_allowance);
        self.own_used = (self.own_used + used).saturating_sub(allowed);
    }

    fn keep<T: Send + 'static>(&self, call: BoxedCall<T>) -> CallLane<'a, T> {
        let schedule = self.lanes.map(|(schedule, _)| schedule);
        CallLane::Fast(FastCall { call: Some(call), schedule, run_permit: None })
    }

    fn hand_over<T: Send + 'static>(&self, call: BoxedCall<T>) -> CallLane<'a, T> {
        let Some((schedule, guest)) = self.lanes else { return self.keep(call) };
        let cpu_left = self.cpu_max.saturating_sub(self.cpu_used);
        let runnable = schedule.long_call_queue(guest).runnable();
        CallLane::Slow(schedule.lane().hand_over(schedule.payer(guest), call, cpu_left, runnable))
    }

    /// Records a call that has ended in the fast lane, with its last slice if that was measured. If
    /// it was not measured and the clock has ticked meanwhile, the next calls are: others may have
    /// had the core.
    fn note_end(&self, slice: Option<Duration>, begun: u32) {
        let Some((schedule, guest)) = self.lanes.filter(|_| self.untracked.is_none()) else {
            return;
        };
        if slice.is_some() {
            return schedule.note_call(guest, self.own_used >= LONG_CALL, slice);
        }
        let ticks = schedule.ticker().ticks().wrapping_sub(begun);
        if ticks > 0 {
            schedule.note(guest, |usage| usage.note_ticks(ticks));
        }
    }

    /// The cost class of the call.
    fn cost_class(&self) -> CostClass {
        self.lanes.map_or(CostClass::Short, |(schedule, guest)| {
            self.untracked.map_or_else(|| schedule.cost_class(guest), |untracked| untracked.class)
        })
    }

    /// Begins a call of a guest that was unknown when it came, once it is its turn. By then more
    /// may be known, from the guest's other calls or from its owner's other guests.
    fn begin_new<T: Send + 'static>(
        &self,
        place: &mut Option<CallLane<'a, T>>,
        cx: &Context<'_>,
    ) -> Poll<CostClass> {
        let Some(CallLane::Fast(here)) = place else { return Poll::Ready(CostClass::Long) };
        if self.lanes.is_some_and(|(_, guest)| !here.poll_permit(guest, None, cx)) {
            return Poll::Pending;
        }
        let class = self.cost_class();
        self.count_begun(class == CostClass::Long);
        if class == CostClass::Long
            && let Some(call) = here.call.take()
        {
            *place = Some(self.hand_over(call));
        }
        Poll::Ready(class)
    }

    /// Records a call that has ended in the slow lane, after `used` CPU time there, or `None` if it
    /// was stopped. `has_begun_there` says that all of it ran there.
    fn note_moved_end(&mut self, used: Option<Duration>, has_begun_there: bool) {
        self.charge(used.unwrap_or(QUANTUM));
        if let Some((schedule, guest)) = self.lanes {
            schedule.long_call_queue(guest).wake_next();
        }
        if has_begun_there {
            self.note_call(used.is_none() || self.own_used >= LONG_CALL);
        }
    }

    /// Counts the start of a call.
    fn count_begun(&self, is_long: bool) {
        self.count(|calls| if is_long { &calls.slow } else { &calls.fast });
    }

    /// Counts a call, if it is one of the guest's own.
    fn count(&self, counter: impl FnOnce(&CallReasons) -> &Counter) {
        if let Some(schedule) = self.schedule.filter(|_| self.untracked.is_none()) {
            counter(&schedule.reasons().calls).add(1);
        }
    }

    fn ticks(&self) -> u32 {
        self.lanes.map_or(0, |(schedule, _)| schedule.ticker().ticks())
    }

    /// Records a slice after which the call goes on. Returns whether it has to wait for its turn
    /// before the next one.
    fn note_slice(&self, used: Duration, is_measured: bool) -> bool {
        let Some((schedule, guest)) = self.lanes else { return false };
        if let Some(untracked) = self.untracked {
            return untracked.class == CostClass::Heavy;
        }
        if is_measured {
            return schedule.note_slice(guest, used) == CostClass::Heavy;
        }
        schedule.note(guest, |usage| usage.suspect(used));
        false
    }

    /// Records whether a call has outlasted the quantum.
    fn note_call(&self, is_long: bool) {
        if let Some((schedule, guest)) = self.lanes.filter(|_| self.untracked.is_none()) {
            schedule.note_call(guest, is_long, None);
        }
    }

    fn clock(&mut self) -> CallTimer {
        let deadline = self.has_deadline.then(|| self.deadline());
        CallTimer { resumed: self.first.take(), deadline, timer: None }
    }
}

/// The timing of one future.
struct CallTimer {
    /// When its first slice began, if that is known.
    resumed: Option<Instant>,
    deadline: Option<Deadline>,
    /// Made when the future first waits.
    timer: Option<Pin<Box<Sleep>>>,
}

impl CallTimer {
    /// Ready at the deadline.
    fn poll<T>(&mut self, cx: &mut Context<'_>) -> Poll<Result<T, Reject>> {
        let Some(deadline) = &self.deadline else { return Poll::Pending };
        let timer = self.timer.get_or_insert_with(|| Box::pin(deadline.timer()));
        deadline.poll_passed(timer.as_mut(), cx).map(|()| Err(Reject::Deadline))
    }
}

/// The start of a slice.
pub enum SliceStart {
    /// By the wall clock. This is good enough for a slice of two milliseconds at most.
    Wall(Instant),
    /// By the thread's CPU time, since others may have the core meanwhile.
    Cpu(Duration),
}

impl SliceStart {
    /// `known` is when the slice began, if it is the first of a call. Otherwise the thread's CPU
    /// time is read.
    pub fn begin(known: Option<Instant>) -> Self {
        known.map_or_else(|| SliceStart::Cpu(cpu_time()), SliceStart::Wall)
    }

    /// CPU time since then.
    pub fn used(&self) -> Duration {
        match self {
            SliceStart::Wall(begun) => begun.elapsed().min(FIRST_MAX),
            SliceStart::Cpu(begun) => cpu_time().saturating_sub(*begun),
        }
    }
}

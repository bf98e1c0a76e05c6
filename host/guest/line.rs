//! Where requests to a guest wait whose calls are long, once as many run as there is time for.
//!
//! Owns the order of those that wait, and for how long they may: several times as long as a call
//! takes. Who has waited for longer is refused: there is more to do than there is time for, and
//! without that bound all would be late (Maurer, "Fail at Scale", ACM Queue 13/8, 2015). To refuse
//! them when they come would be worse where clients ask again at once: that would take the time
//! which the others wait for. Those that wait hold no instance. Lives on one thread.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

use tokio::time::{Interval, MissedTickBehavior, interval};

use crate::message::Reject;

/// Calls of one guest that may want the CPU at once, from one worker: two, so that one is there
/// when the other has ended.
const RUNNABLE_MAX: usize = 2;
/// Requests that may wait for one guest, on one worker.
const WAITING_MAX: usize = 128;
/// How long a request waits: the CPU time of so many calls, or a time in which a burst passes.
const PATIENCE_CALLS: u32 = 12;
const PATIENCE_MIN: Duration = Duration::from_millis(30);
/// How often the first in line looks for itself: a call which begins to wait for something, and so
/// makes room, does not say so.
const LOOK_EVERY: Duration = Duration::from_millis(5);
/// Calls over which their CPU time is averaged.
const AVERAGED: u32 = 8;

/// A guest's long calls on one worker, and the requests that wait to be one.
#[derive(Default)]
pub struct Line {
    /// Calls that are in the slow lane and wait for nothing but the CPU.
    runnable: Arc<AtomicUsize>,
    waiting: RefCell<VecDeque<Waiting>>,
    arrivals: Cell<u64>,
    /// CPU time of a call, a moving average; none before the first has ended.
    cpu: Cell<Option<Duration>>,
}

struct Waiting {
    number: u64,
    waker: Option<Waker>,
}

impl Line {
    /// The count of calls that want the CPU, to be kept by the slow lane.
    pub fn runnable(&self) -> Arc<AtomicUsize> {
        self.runnable.clone()
    }

    /// Whether who comes now has to wait.
    pub fn is_crowded(&self) -> bool {
        !self.waiting.borrow().is_empty() || !self.has_room()
    }

    /// Takes note of a call that has ended, and lets the first in line look.
    pub fn leave(&self, cpu: Duration) {
        let average = self.cpu.get().unwrap_or(cpu);
        self.cpu.set(Some(average - average / AVERAGED + cpu / AVERAGED));
        self.wake_first();
    }

    /// Waits for a turn, until `deadline` at most.
    ///
    /// # Errors
    /// [`Reject::NoInstance`]: too many wait, or it has taken too long.
    pub async fn wait(&self, deadline: Instant) -> Result<(), Reject> {
        let place = self.join()?;
        let patience = self.cpu.get().map(|cpu| (cpu * PATIENCE_CALLS).max(PATIENCE_MIN));
        let deadline = patience.map_or(deadline, |it| deadline.min(Instant::now() + it));
        let mut look = interval(LOOK_EVERY);
        look.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let turn = pin!(std::future::poll_fn(|cx| place.poll(&mut look, cx)));
        let turn = tokio::time::timeout_at(deadline.into(), turn).await;
        turn.map_err(|_| Reject::NoInstance)
    }

    fn join(&self) -> Result<Place<'_>, Reject> {
        let mut waiting = self.waiting.borrow_mut();
        if waiting.len() >= WAITING_MAX {
            return Err(Reject::NoInstance);
        }
        let number = self.arrivals.get();
        self.arrivals.set(number + 1);
        waiting.push_back(Waiting { number, waker: None });
        Ok(Place { line: self, number })
    }

    fn has_room(&self) -> bool {
        self.runnable.load(Ordering::Relaxed) < RUNNABLE_MAX
    }

    fn wake_first(&self) {
        let first = self.waiting.borrow_mut().front_mut().and_then(|first| first.waker.take());
        if let Some(waker) = first {
            waker.wake();
        }
    }
}

/// A place in the line; dropping it leaves the line.
struct Place<'a> {
    line: &'a Line,
    number: u64,
}

impl Place<'_> {
    /// Ready when it is first and there is room.
    fn poll(&self, look: &mut Interval, cx: &mut Context<'_>) -> Poll<()> {
        let is_first = {
            let mut waiting = self.line.waiting.borrow_mut();
            let is_first = waiting.front().is_some_and(|first| first.number == self.number);
            if is_first && self.line.has_room() {
                return Poll::Ready(());
            }
            if let Some(own) = waiting.iter_mut().find(|it| it.number == self.number) {
                own.waker = Some(cx.waker().clone());
            }
            is_first
        };
        if is_first {
            while look.poll_tick(cx).is_ready() {}
        }
        Poll::Pending
    }
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        self.line.waiting.borrow_mut().retain(|it| it.number != self.number);
        self.line.wake_first();
    }
}

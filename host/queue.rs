//! Where requests wait for their turn, first come first served.
//!
//! Owns the order of those that wait, how many may wait, and for how long. A burst may fill a
//! queue. One that has been full, or in which somebody has waited for too long, is kept short as
//! long as there are more to refuse: more comes than there is time for, so the newest are refused,
//! or all would be late (Maurer, "Fail at Scale", ACM Queue 13/8, 2015). Who waits holds nothing
//! but its place. Lives on one thread.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::pin::pin;
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

use tokio::time::{Interval, MissedTickBehavior, interval};

use crate::config::QueueLimits;
use crate::message::Reject;

/// Places in a queue that is kept short. The wait in it is that many times as long as a request
/// takes, which is well within ten times with those that are being served.
const SHORT: usize = 4;
/// How long a queue is kept short after the last that was refused.
const SHORT_FOR: Duration = Duration::from_millis(250);

/// A queue of requests.
pub struct Queue {
    limits: QueueLimits,
    waiting: RefCell<VecDeque<Waiting>>,
    arrivals: Cell<u64>,
    refused_at: Cell<Option<Instant>>,
}

struct Waiting {
    number: u64,
    waker: Option<Waker>,
}

impl Queue {
    pub fn new(limits: QueueLimits) -> Self {
        let (waiting, arrivals, refused_at) = Default::default();
        Queue { limits, waiting, arrivals, refused_at }
    }

    pub fn is_empty(&self) -> bool {
        self.waiting.borrow().is_empty()
    }

    /// Lets the first see whether there is something for it.
    pub fn wake_first(&self) {
        let first = self.waiting.borrow_mut().front_mut().and_then(|first| first.waker.take());
        if let Some(waker) = first {
            waker.wake();
        }
    }

    /// Waits until it is first and `take` gives something, which is tried when it gets there,
    /// whenever it is woken, and every `look_every`.
    ///
    /// # Errors
    /// [`Reject::NoInstance`]: too many wait, or it has taken too long. `deadline` is the latest.
    pub async fn turn<T>(
        &self,
        deadline: Instant,
        look_every: Option<Duration>,
        mut take: impl FnMut() -> Option<T>,
    ) -> Result<T, Reject> {
        let place = self.join()?;
        let deadline = deadline.min(Instant::now() + self.limits.wait_max);
        let mut look = look_every.map(|every| {
            let mut look = interval(every);
            look.set_missed_tick_behavior(MissedTickBehavior::Delay);
            look
        });
        let turn = pin!(std::future::poll_fn(|cx| place.poll(&mut look, &mut take, cx)));
        let turn = tokio::time::timeout_at(deadline.into(), turn).await;
        turn.unwrap_or_else(|_| {
            self.shorten();
            Err(Reject::NoInstance)
        })
    }

    fn join(&self) -> Result<Place<'_>, Reject> {
        if self.waiting.borrow().len() >= self.length_max() {
            self.shorten();
            return Err(Reject::NoInstance);
        }
        let number = self.arrivals.get();
        self.arrivals.set(number + 1);
        self.waiting.borrow_mut().push_back(Waiting { number, waker: None });
        Ok(Place { queue: self, number })
    }

    fn length_max(&self) -> usize {
        let most = self.limits.length_max;
        let is_short = self.refused_at.get().is_some_and(|at| at.elapsed() < SHORT_FOR);
        if is_short { most.min(SHORT) } else { most }
    }

    /// Sends the newest away.
    fn shorten(&self) {
        self.refused_at.set(Some(Instant::now()));
        let mut waiting = self.waiting.borrow_mut();
        let stay = waiting.len().min(self.length_max());
        let wakers: Vec<Waker> = waiting.drain(stay..).filter_map(|it| it.waker).collect();
        drop(waiting);
        wakers.into_iter().for_each(Waker::wake);
    }
}

/// A place in a queue; dropping it leaves the queue.
struct Place<'a> {
    queue: &'a Queue,
    number: u64,
}

impl Place<'_> {
    fn poll<T>(
        &self,
        look: &mut Option<Interval>,
        take: &mut impl FnMut() -> Option<T>,
        cx: &mut Context<'_>,
    ) -> Poll<Result<T, Reject>> {
        let is_first = {
            let mut waiting = self.queue.waiting.borrow_mut();
            let Some(at) = waiting.iter().position(|it| it.number == self.number) else {
                return Poll::Ready(Err(Reject::NoInstance));
            };
            waiting[at].waker = Some(cx.waker().clone());
            at == 0
        };
        if !is_first {
            return Poll::Pending;
        }
        if let Some(taken) = take() {
            return Poll::Ready(Ok(taken));
        }
        if let Some(look) = look {
            while look.poll_tick(cx).is_ready() {}
        }
        Poll::Pending
    }
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        let queue = self.queue;
        queue.waiting.borrow_mut().retain(|it| it.number != self.number);
        queue.wake_first();
    }
}

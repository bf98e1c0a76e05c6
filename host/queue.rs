//! Where requests wait for their turn. Next is the client that holds the fewest places; among
//! equals, the client whose last turn is longest ago; of one client, the oldest request.
//!
//! Owns the order of waiting requests, how many may wait, and for how long. A burst may fill a
//! queue. Once a queue has been full, or a request has waited too long, the load is higher than the
//! host can serve. Then all requests would be late, so the queue is kept short and refuses some
//! (Maurer, "Fail at Scale", ACM Queue 13/8, 2015), until no more need refusing. It refuses the
//! newest request of the client that asks for the most. Lives on one thread.

use std::cell::{Cell, RefCell};
use std::collections::{HashMap, VecDeque};
use std::pin::pin;
use std::rc::{Rc, Weak};
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

use tokio::time::{Interval, MissedTickBehavior, interval};

use crate::grants::QueueLimits;
use crate::message::Reject;

/// Length of a queue that is kept short. A request waits in it about four times as long as a
/// request takes, so with the requests being served it stays well below ten times.
const SHORT: usize = 4;
/// How long a queue is kept short after the last refused request.
const SHORT_FOR: Duration = Duration::from_millis(250);
/// How many waiting requests are compared to find the next one, or the one to refuse.
const LOOKED_AT: usize = 256;

/// The queues of one owner together may be this many times as long as one queue may be, plus
/// [`SHORT`] requests for each.
const OWNER_TIMES: usize = 4;
/// One queue may be this many times as long as the rest of its owner's bound.
const OF_AN_OWNER: usize = 3;

/// How many places one client, or one owner of handlers, has on one worker.
#[derive(Default)]
pub struct Holder {
    /// Places that its requests hold.
    held: Cell<usize>,
    /// How many of its requests wait.
    waiting: Cell<usize>,
    /// The value of [`TAKEN`] when it last took a place.
    taken_at: Cell<u64>,
}

thread_local! {
    /// How many places have been taken on this thread so far.
    static TAKEN: Cell<u64> = const { Cell::new(0) };
}

impl Holder {
    /// How many places its requests hold.
    pub fn held(&self) -> usize {
        self.held.get()
    }

    /// Counts one more held place.
    pub fn acquire(&self) {
        self.held.set(self.held.get() + 1);
        let taken = TAKEN.get() + 1;
        TAKEN.set(taken);
        self.taken_at.set(taken);
    }

    /// Counts one held place less.
    pub fn release(&self) {
        self.held.set(self.held.get() - 1);
    }

    /// Held places and waiting requests together.
    fn demand(&self) -> usize {
        self.held.get() + self.waiting.get()
    }
}

/// The [`Holder`] of each owner, by the owner's id.
#[derive(Default)]
pub struct Holders(RefCell<HashMap<u64, Weak<Holder>>>);

impl Holders {
    /// The holder of the owner with this id. It is made if nobody has a reference to one.
    pub fn of(&self, owner: u64) -> Rc<Holder> {
        let mut holders = self.0.borrow_mut();
        if let Some(holder) = holders.get(&owner).and_then(Weak::upgrade) {
            return holder;
        }
        if holders.len() == holders.capacity() {
            holders.retain(|_, holder| holder.strong_count() > 0);
        }
        let holder = Rc::default();
        holders.insert(owner, Rc::downgrade(&holder));
        holder
    }
}

/// A queue of requests. Each waits until it is given a `T`, or until it is first and can take one.
pub struct Queue<T = ()> {
    limits: Cell<QueueLimits>,
    /// The owner of the queue's handler, who may have more queues.
    owner: Option<Rc<Holder>>,
    waiting: RefCell<VecDeque<Waiter<T>>>,
    arrivals: Cell<u64>,
    refused_at: Cell<Option<Instant>>,
}

struct Waiter<T> {
    number: u64,
    client: WaitCount,
    _owner: Option<WaitCount>,
    waker: Option<Waker>,
    given: Option<T>,
}

/// Counts one waiting request of a client or an owner until it is dropped.
struct WaitCount(Rc<Holder>);

impl WaitCount {
    fn new(holder: &Rc<Holder>) -> Self {
        holder.waiting.set(holder.waiting.get() + 1);
        WaitCount(holder.clone())
    }
}

impl Drop for WaitCount {
    fn drop(&mut self) {
        self.0.waiting.set(self.0.waiting.get() - 1);
    }
}

impl<T> Queue<T> {
    /// An empty queue of one handler. With an `owner`, the length also depends on how many requests
    /// wait in the owner's other queues.
    pub fn new(limits: QueueLimits, owner: Option<Rc<Holder>>) -> Self {
        let (arrivals, refused_at) = Default::default();
        Queue {
            owner,
            limits: Cell::new(limits),
            waiting: RefCell::new(VecDeque::new()),
            arrivals,
            refused_at,
        }
    }

    /// Sets how many requests may wait from now on, and how long.
    pub fn limit(&self, limits: QueueLimits) {
        self.limits.set(limits);
    }

    /// Whether no request waits.
    pub fn is_empty(&self) -> bool {
        self.waiting.borrow().is_empty()
    }

    /// The client whose request is next, if any waits.
    pub fn next(&self) -> Option<Rc<Holder>> {
        let waiting = self.waiting.borrow();
        first(&waiting).map(|at| waiting[at].client.0.clone())
    }

    /// Gives `given` to the first waiting request of a client. Returns it if none waits.
    pub fn give(&self, client: &Rc<Holder>, given: T) -> Option<T> {
        let waker = {
            let mut waiting = self.waiting.borrow_mut();
            let is_next = |it: &Waiter<T>| it.given.is_none() && Rc::ptr_eq(&it.client.0, client);
            let Some(at) = waiting.iter().position(is_next) else { return Some(given) };
            waiting[at].given = Some(given);
            waiting[at].waker.take()
        };
        if let Some(waker) = waker {
            waker.wake();
        }
        None
    }

    /// Wakes the next request, so that it tries again to take what it waits for.
    pub fn wake_first(&self) {
        let waker = {
            let mut waiting = self.waiting.borrow_mut();
            first(&waiting).and_then(|at| waiting[at].waker.take())
        };
        if let Some(waker) = waker {
            waker.wake();
        }
    }

    /// Waits until [`Queue::give`] gives this request something, at most until `deadline`. Cancel
    /// safe: dropping the future leaves the queue.
    ///
    /// # Errors
    /// [`Reject::NoInstance`]: too many requests wait, or this one has waited too long.
    pub async fn wait(&self, client: &Rc<Holder>, deadline: Instant) -> Result<T, Reject> {
        let place = self.join(client)?;
        self.in_time(deadline, std::future::poll_fn(|cx| place.poll(cx))).await
    }

    /// Waits until this request is first and `take` returns something. `take` is tried when the
    /// request becomes first, whenever it is woken, and every `look_every`. Cancel safe.
    ///
    /// # Errors
    /// As [`Queue::wait`].
    pub async fn wait_first<R>(
        &self,
        client: &Rc<Holder>,
        deadline: Instant,
        look_every: Duration,
        mut take: impl FnMut() -> Option<R>,
    ) -> Result<R, Reject> {
        let place = self.join(client)?;
        let mut look = interval(look_every);
        look.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let turn = std::future::poll_fn(|cx| place.poll_first(&mut look, &mut take, cx));
        self.in_time(deadline, turn).await
    }

    async fn in_time<R>(
        &self,
        deadline: Instant,
        turn: impl Future<Output = Result<R, Reject>>,
    ) -> Result<R, Reject> {
        let latest = Instant::now().checked_add(self.limits.get().wait_max);
        let deadline = latest.map_or(deadline, |latest| deadline.min(latest));
        let turn = tokio::time::timeout_at(deadline.into(), pin!(turn)).await;
        turn.unwrap_or_else(|_| {
            self.shed();
            Err(Reject::NoInstance)
        })
    }

    fn join(&self, client: &Rc<Holder>) -> Result<QueueTicket<'_, T>, Reject> {
        if self.waiting.borrow().len() >= self.length_max() {
            self.shed();
            if !self.shed_for(client) {
                return Err(Reject::NoInstance);
            }
        }
        let number = self.arrivals.get();
        self.arrivals.set(number + 1);
        let (client, owner) = (WaitCount::new(client), self.owner.as_ref().map(WaitCount::new));
        let waiting = Waiter { number, client, _owner: owner, waker: None, given: None };
        self.waiting.borrow_mut().push_back(waiting);
        Ok(QueueTicket { queue: self, number })
    }

    /// Makes room for `client` by refusing a request of a client that asks for more. Returns
    /// whether there was one.
    fn shed_for(&self, client: &Holder) -> bool {
        let sent = {
            let mut waiting = self.waiting.borrow_mut();
            let Some(at) = greediest(&waiting) else { return false };
            if waiting[at].client.0.demand() <= client.demand() + 1 {
                return false;
            }
            waiting.remove(at)
        };
        sent.into_iter().for_each(Waiter::refuse);
        true
    }

    fn length_max(&self) -> usize {
        let most = self.limits.get().length_max;
        let left = |owner: &Rc<Holder>| {
            let all = most.saturating_mul(OWNER_TIMES);
            all.saturating_sub(owner.waiting.get()).saturating_mul(OF_AN_OWNER)
        };
        // A few requests may always wait here, however many wait in the owner's other queues.
        let most = self.owner.as_ref().map_or(most, |owner| most.min(left(owner).max(SHORT)));
        let is_short = self.refused_at.get().is_some_and(|at| at.elapsed() < SHORT_FOR);
        if is_short { most.min(SHORT) } else { most }
    }

    /// Keeps the queue short from now on, and refuses the requests that are too many for that.
    fn shed(&self) {
        self.refused_at.set(Some(Instant::now()));
        let stay = self.length_max();
        let mut sent = VecDeque::new();
        {
            let mut waiting = self.waiting.borrow_mut();
            if waiting.len() > stay.max(LOOKED_AT) {
                sent = waiting.split_off(stay.max(LOOKED_AT));
            }
            while waiting.len() > stay {
                let Some(at) = greediest(&waiting) else { break };
                sent.extend(waiting.remove(at));
            }
        }
        sent.into_iter().for_each(Waiter::refuse);
    }
}

impl<T> Waiter<T> {
    /// Wakes a request that was removed from the queue. It finds itself missing and is refused.
    fn refuse(self) {
        if let Some(waker) = self.waker {
            waker.wake();
        }
    }
}

/// The index of the next request: the first one of the client that holds the fewest places; among
/// equals, of the client whose last turn is longest ago.
fn first<T>(waiting: &VecDeque<Waiter<T>>) -> Option<usize> {
    let not_served = |(_, it): &(usize, &Waiter<T>)| it.given.is_none();
    let looked_at = waiting.iter().enumerate().filter(not_served).take(LOOKED_AT);
    let key = |client: &Holder| (client.held(), client.taken_at.get());
    looked_at.min_by_key(|(_, it)| key(&it.client.0)).map(|(at, _)| at)
}

/// The index of the newest request of the client that asks for the most.
fn greediest<T>(waiting: &VecDeque<Waiter<T>>) -> Option<usize> {
    let not_served = |(_, it): &(usize, &Waiter<T>)| it.given.is_none();
    let looked_at = waiting.iter().enumerate().rev().filter(not_served).take(LOOKED_AT);
    // The iterator is reversed and `max_by_key` takes the last of equals, so compare the index too.
    let greediest = looked_at.max_by_key(|(at, it)| (it.client.0.demand(), *at));
    greediest.map(|(at, _)| at)
}

/// A place in a queue; dropping it leaves the queue.
struct QueueTicket<'a, T> {
    queue: &'a Queue<T>,
    number: u64,
}

impl<T> QueueTicket<'_, T> {
    /// Ready with what [`Queue::give`] gave to this request.
    fn poll(&self, cx: &mut Context<'_>) -> Poll<Result<T, Reject>> {
        let mut waiting = self.queue.waiting.borrow_mut();
        let Some(at) = self.find(&waiting) else { return Poll::Ready(Err(Reject::NoInstance)) };
        if let Some(given) = waiting[at].given.take() {
            return Poll::Ready(Ok(given));
        }
        waiting[at].waker = Some(cx.waker().clone());
        Poll::Pending
    }

    fn poll_first<R>(
        &self,
        look: &mut Interval,
        take: &mut impl FnMut() -> Option<R>,
        cx: &mut Context<'_>,
    ) -> Poll<Result<R, Reject>> {
        let is_first = {
            let mut waiting = self.queue.waiting.borrow_mut();
            let Some(at) = self.find(&waiting) else {
                return Poll::Ready(Err(Reject::NoInstance));
            };
            waiting[at].waker = Some(cx.waker().clone());
            first(&waiting) == Some(at)
        };
        if !is_first {
            // This one may have been first before. Then the new first has no timer yet: wake it.
            self.queue.wake_first();
            return Poll::Pending;
        }
        if let Some(taken) = take() {
            return Poll::Ready(Ok(taken));
        }
        while look.poll_tick(cx).is_ready() {}
        Poll::Pending
    }

    fn find(&self, waiting: &VecDeque<Waiter<T>>) -> Option<usize> {
        waiting.binary_search_by_key(&self.number, |it| it.number).ok()
    }
}

impl<T> Drop for QueueTicket<'_, T> {
    fn drop(&mut self) {
        let left = {
            let mut waiting = self.queue.waiting.borrow_mut();
            self.find(&waiting).and_then(|at| waiting.remove(at))
        };
        // Dropping what it was given may offer that to another request of this queue, so the
        // borrow has to end first.
        if let Some(left) = left {
            drop(left);
        }
        self.queue.wake_first();
    }
}

#[cfg(test)]
mod tests;

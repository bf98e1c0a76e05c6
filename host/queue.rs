//! Where requests wait for their turn: the client that holds the least is next, of several the one
//! whose last turn is longest ago, and then who came first.
//!
//! Owns the order of those that wait, how many may wait, and for how long. A burst may fill a
//! queue. One that has been full, or in which somebody has waited for too long, is kept short as
//! long as there are more to refuse: more comes than there is time for, so some are refused, or all
//! would be late (Maurer, "Fail at Scale", ACM Queue 13/8, 2015). Those are of the client that asks
//! for the most, and of these the newest. Lives on one thread.

use std::cell::{Cell, RefCell};
use std::collections::{HashMap, VecDeque};
use std::pin::pin;
use std::rc::{Rc, Weak};
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

use tokio::time::{Interval, MissedTickBehavior, interval};

use crate::grants::QueueLimits;
use crate::message::Reject;

/// Places in a queue that is kept short. The wait in it is that many times as long as a request
/// takes, which is well within ten times with those that are being served.
const SHORT: usize = 4;
/// How long a queue is kept short after the last that was refused.
const SHORT_FOR: Duration = Duration::from_millis(250);
/// Of a queue that is longer, so many are looked at to find the next, or one to refuse.
const LOOKED_AT: usize = 256;

/// All queues of one owner together may be so many times as long as one, and a little more: see
/// [`SHORT`].
const OWNER_TIMES: usize = 4;
/// One of them may be so many times as long as all of them have left.
const OF_AN_OWNER: usize = 3;

/// What one client has of one worker, or one owner of handlers.
#[derive(Default)]
pub struct Holder {
    /// Places that its requests hold.
    held: Cell<usize>,
    /// Its requests that wait.
    waiting: Cell<usize>,
    /// When it took a place last, as [`TAKEN`] counts.
    taken_at: Cell<u64>,
}

thread_local! {
    /// Places that have been taken on this thread.
    static TAKEN: Cell<u64> = const { Cell::new(0) };
}

impl Holder {
    pub fn held(&self) -> usize {
        self.held.get()
    }

    /// Counts one more place that it holds.
    pub fn acquire(&self) {
        self.held.set(self.held.get() + 1);
        let taken = TAKEN.get() + 1;
        TAKEN.set(taken);
        self.taken_at.set(taken);
    }

    /// Counts one less.
    pub fn release(&self) {
        self.held.set(self.held.get() - 1);
    }

    /// What it asks for in all.
    fn demand(&self) -> usize {
        self.held.get() + self.waiting.get()
    }
}

/// What each owner has, by its id.
#[derive(Default)]
pub struct Holders(RefCell<HashMap<u64, Weak<Holder>>>);

impl Holders {
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

/// A queue of requests. To who waits in it a `T` may be given.
pub struct Queue<T = ()> {
    limits: Cell<QueueLimits>,
    /// Who has other queues beside this one.
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

/// One that waits, of a client or an owner.
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
    /// The queue of a handler, whose owner may have others.
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

    /// Says how many may wait from now on, and how long.
    pub fn limit(&self, limits: QueueLimits) {
        self.limits.set(limits);
    }

    pub fn is_empty(&self) -> bool {
        self.waiting.borrow().is_empty()
    }

    /// The client that is next.
    pub fn next(&self) -> Option<Rc<Holder>> {
        let waiting = self.waiting.borrow();
        first(&waiting).map(|at| waiting[at].client.0.clone())
    }

    /// Gives something to the first of a client. Returns it where none of that waits.
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

    /// Lets the next see whether there is something for it.
    pub fn wake_first(&self) {
        let waker = {
            let mut waiting = self.waiting.borrow_mut();
            first(&waiting).and_then(|at| waiting[at].waker.take())
        };
        if let Some(waker) = waker {
            waker.wake();
        }
    }

    /// Waits until it is given something.
    ///
    /// # Errors
    /// [`Reject::NoInstance`]: too many wait, or it has taken too long. `deadline` is the latest.
    pub async fn wait(&self, client: &Rc<Holder>, deadline: Instant) -> Result<T, Reject> {
        let place = self.join(client)?;
        self.in_time(deadline, std::future::poll_fn(|cx| place.poll(cx))).await
    }

    /// Waits until it is first and `take` gives something, which is tried when it gets there,
    /// whenever it is woken, and every `look_every`.
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

    /// Sends one away for a client that asks for less than it does.
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
        // A few may wait for each, however many do for the others of its owner.
        let most = self.owner.as_ref().map_or(most, |owner| most.min(left(owner).max(SHORT)));
        let is_short = self.refused_at.get().is_some_and(|at| at.elapsed() < SHORT_FOR);
        if is_short { most.min(SHORT) } else { most }
    }

    /// Sends those away that are too many in a short queue.
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
    /// Lets it see that it waits no more.
    fn refuse(self) {
        if let Some(waker) = self.waker {
            waker.wake();
        }
    }
}

/// Who is next: the first of the client that holds the least, and of those that hold as much the
/// one whose last place is longest ago.
fn first<T>(waiting: &VecDeque<Waiter<T>>) -> Option<usize> {
    let not_served = |(_, it): &(usize, &Waiter<T>)| it.given.is_none();
    let looked_at = waiting.iter().enumerate().filter(not_served).take(LOOKED_AT);
    let key = |client: &Holder| (client.held(), client.taken_at.get());
    looked_at.min_by_key(|(_, it)| key(&it.client.0)).map(|(at, _)| at)
}

/// The newest of the client that asks for the most.
fn greediest<T>(waiting: &VecDeque<Waiter<T>>) -> Option<usize> {
    let not_served = |(_, it): &(usize, &Waiter<T>)| it.given.is_none();
    let looked_at = waiting.iter().enumerate().rev().filter(not_served).take(LOOKED_AT);
    // The newest comes first, and the last of those that are alike would be taken.
    let greediest = looked_at.max_by_key(|(at, it)| (it.client.0.demand(), *at));
    greediest.map(|(at, _)| at)
}

/// A place in a queue; dropping it leaves the queue.
struct QueueTicket<'a, T> {
    queue: &'a Queue<T>,
    number: u64,
}

impl<T> QueueTicket<'_, T> {
    /// Ready with what it is given.
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
            // It may have been first before, and have had the timer.
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
        // What it was given and has not taken goes to another, who may look into this queue.
        if let Some(left) = left {
            drop(left);
        }
        self.queue.wake_first();
    }
}

#[cfg(test)]
mod tests;

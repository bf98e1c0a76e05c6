//! In what order heavy calls run in the fast lane: those that a worker is to go on with at the same
//! time, and that each take a good part of a quantum.
//!
//! Owns the order: the guest that has used the least CPU time is next, as in the slow lane. Between
//! two rounds of them the worker serves everything else that is ready, and looks at its sockets. So
//! a short request waits for one heavy slice at most, however many there are. A call that comes
//! while nobody waits and the round has time left runs at once. Lives on one thread.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::rc::Rc;
use std::task::{Context, Waker};
use std::time::Duration;

use tokio::sync::Notify;

/// Calls that are expected to take no longer together run without a look at the sockets between
/// them.
const ROUND_MAX: Duration = Duration::from_micros(250);

/// The heavy calls of one worker that can go on.
#[derive(Default)]
pub struct RunQueue {
    state: RefCell<State>,
    /// Says that somebody waits.
    work: Notify,
}

#[derive(Default)]
struct State {
    /// Guests with calls that wait or have the turn, and those that have used more than others.
    shares: Vec<Share>,
    /// What the guest had used that had the turn last. A guest that comes begins there: it is next,
    /// and has saved nothing up (start-time fair queueing; Goyal, Vin and Cheng, SIGCOMM 1996).
    floor: Duration,
    calls: u64,
    /// What the turns of this round are expected to take.
    round: Duration,
}

/// What a guest has in the queue.
struct Share {
    guest: usize,
    used: Duration,
    waiting: VecDeque<Waiting>,
    /// Calls that have the turn.
    running: usize,
}

struct Waiting {
    number: u64,
    expected: Duration,
    waker: Waker,
}

/// A call's place in the queue, and then its turn. Nobody waits for the end of a turn, so a call
/// that is not polled holds up no other. Dropping it gives up either.
pub struct Turn {
    queue: Rc<RunQueue>,
    guest: usize,
    number: u64,
    expected: Duration,
    /// What it took, once it has run.
    used: Duration,
}

impl RunQueue {
    /// Has a call of a guest wait for a turn, of which it is `expected` to use so much, or gives it
    /// the turn if it need not wait.
    pub fn join(self: &Rc<Self>, guest: usize, expected: Duration, cx: &Context<'_>) -> Turn {
        let mut state = self.state.borrow_mut();
        state.calls += 1;
        let (number, floor) = (state.calls, state.floor);
        let is_next = !state.has_waiting() && state.round < ROUND_MAX;
        let share = state.share(guest);
        share.used = share.used.max(floor);
        share.waiting.push_back(Waiting { number, expected, waker: cx.waker().clone() });
        if is_next {
            drop(state.next());
        }
        self.work.notify_one();
        Turn { queue: self.clone(), guest, number, expected, used: Duration::ZERO }
    }

    /// Gives turns, for ever.
    pub async fn run(self: Rc<Self>) {
        loop {
            while self.state.borrow().is_active() {
                // The runtime takes up whoever yields behind all that is ready, and behind a look
                // at the sockets.
                tokio::task::yield_now().await;
                self.give();
            }
            self.work.notified().await;
        }
    }

    /// Begins a round: gives turns to those that are next.
    fn give(&self) {
        self.state.borrow_mut().round = Duration::ZERO;
        while self.state.borrow().round < ROUND_MAX {
            let Some(next) = self.state.borrow_mut().next() else { return };
            next.waker.wake();
        }
    }
}

impl State {
    fn share(&mut self, guest: usize) -> &mut Share {
        let found = self.shares.iter().position(|share| share.guest == guest);
        let at = found.unwrap_or_else(|| {
            let (used, waiting) = Default::default();
            self.shares.push(Share { guest, used, waiting, running: 0 });
            self.shares.len() - 1
        });
        &mut self.shares[at]
    }

    fn next(&mut self) -> Option<Waiting> {
        let waiting = self.shares.iter_mut().filter(|share| !share.waiting.is_empty());
        let share = waiting.min_by_key(|share| share.used)?;
        let next = share.waiting.pop_front()?;
        self.floor = self.floor.max(share.used);
        share.running += 1;
        share.used += next.expected;
        self.round += next.expected;
        Some(next)
    }

    /// Takes a call off.
    fn leave(&mut self, turn: &Turn) {
        let share = self.share(turn.guest);
        match share.place(turn.number) {
            Some(place) => drop(share.waiting.remove(place)),
            None => {
                share.running -= 1;
                share.used = (share.used + turn.used).saturating_sub(turn.expected);
            }
        }
        let floor = self.floor;
        self.shares
            .retain(|share| share.running > 0 || !share.waiting.is_empty() || share.used > floor);
    }

    /// Whether there is a round to be ended, or one to be begun.
    fn is_active(&self) -> bool {
        !self.round.is_zero() || self.has_waiting()
    }

    fn has_waiting(&self) -> bool {
        self.shares.iter().any(|share| !share.waiting.is_empty())
    }
}

impl Share {
    /// Where a call waits, unless it has the turn.
    fn place(&self, number: u64) -> Option<usize> {
        self.waiting.binary_search_by_key(&number, |waiting| waiting.number).ok()
    }
}

impl Turn {
    /// Whether it is this call's turn; if not, it is woken then.
    pub fn poll(&self, cx: &Context<'_>) -> bool {
        let mut state = self.queue.state.borrow_mut();
        let share = state.share(self.guest);
        let Some(place) = share.place(self.number) else { return true };
        share.waiting[place].waker.clone_from(cx.waker());
        false
    }

    /// Gives up the turn, after so much CPU time.
    pub fn end(mut self, used: Duration) {
        self.used = used;
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        self.queue.state.borrow_mut().leave(self);
    }
}

#[cfg(test)]
mod tests;

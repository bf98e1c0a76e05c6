//! The order of heavy calls in the fast lane: those that are ready at the same time, and take a
//! good part of a quantum each.
//!
//! Owns the order. Next is the owner whose guests have used the least CPU time, then the guest of
//! that owner that has used the least, as in the slow lane. Between two rounds of heavy calls the
//! worker serves everything else that is ready, and polls its sockets. So a short request waits for
//! one heavy slice at most, however many there are. A call that comes while none waits runs at
//! once, if the round has time left. Lives on one thread.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::rc::Rc;
use std::task::{Context, Waker};
use std::time::Duration;

use tokio::sync::Notify;

use super::lane::Payer;

/// Calls that are expected to take no longer together run in one round, without polling the sockets
/// between them.
const ROUND_MAX: Duration = Duration::from_micros(250);

/// The heavy calls of one worker that can go on.
#[derive(Default)]
pub struct RunQueue {
    state: RefCell<RunQueueState>,
    /// Notified when a call waits.
    work: Notify,
}

#[derive(Default)]
struct RunQueueState {
    /// Owners with calls that wait or have their turn, and those that have used more than the
    /// floor.
    owners: Vec<RunQueueOwner>,
    /// The CPU time that the owner of the last turn had used. A newcomer starts there: it is next,
    /// but has saved nothing up (start-time fair queueing; Goyal, Vin and Cheng, SIGCOMM 1996).
    floor: Duration,
    calls: u64,
    /// The CPU time that the turns of this round are expected to take.
    round: Duration,
}

/// What an owner has in the queue.
struct RunQueueOwner {
    owner: u64,
    used: Duration,
    /// Its guests with calls, and those that have used more than the floor.
    guests: Vec<RunQueueGuest>,
    floor: Duration,
}

/// What a guest has in the queue.
struct RunQueueGuest {
    guest: usize,
    used: Duration,
    waiting: VecDeque<QueuedCall>,
    /// How many calls have their turn.
    running: usize,
}

struct QueuedCall {
    number: u64,
    expected: Duration,
    waker: Waker,
}

/// A call's place in the queue, and then its turn. Nobody waits for a turn to end, so a call that
/// is not polled holds up no other. Dropping it gives up the place or the turn.
pub struct RunPermit {
    queue: Rc<RunQueue>,
    payer: Payer,
    number: u64,
    expected: Duration,
    /// What the turn took, once it has ended.
    used: Duration,
}

impl RunQueue {
    /// Puts a call of a guest in the queue, or gives it its turn at once if it need not wait.
    /// `expected` is the CPU time that it is expected to take.
    pub fn join(self: &Rc<Self>, payer: Payer, expected: Duration, cx: &Context<'_>) -> RunPermit {
        let mut state = self.state.borrow_mut();
        state.calls += 1;
        let (number, floor) = (state.calls, state.floor);
        let is_next = !state.has_waiting() && state.round < ROUND_MAX;
        let owner = state.owner(payer.owner);
        owner.used = owner.used.max(floor);
        let floor = owner.floor;
        let guest = owner.guest(payer.guest);
        guest.used = guest.used.max(floor);
        guest.waiting.push_back(QueuedCall { number, expected, waker: cx.waker().clone() });
        if is_next {
            drop(state.next());
        }
        self.work.notify_one();
        RunPermit { queue: self.clone(), payer, number, expected, used: Duration::ZERO }
    }

    /// Gives turns, for ever. Each worker runs this as a task.
    pub async fn run(self: Rc<Self>) {
        loop {
            while self.state.borrow().is_active() {
                // The runtime polls a task that has yielded after all that are ready, and after the
                // sockets.
                tokio::task::yield_now().await;
                self.start_round();
            }
            self.work.notified().await;
        }
    }

    /// Begins a round: gives turns to the next calls until its time is used up.
    fn start_round(&self) {
        self.state.borrow_mut().round = Duration::ZERO;
        while self.state.borrow().round < ROUND_MAX {
            let Some(next) = self.state.borrow_mut().next() else { return };
            next.waker.wake();
        }
    }
}

impl RunQueueState {
    fn owner(&mut self, owner: u64) -> &mut RunQueueOwner {
        let found = self.owners.iter().position(|it| it.owner == owner);
        let at = found.unwrap_or_else(|| {
            let (used, guests, floor) = Default::default();
            self.owners.push(RunQueueOwner { owner, used, guests, floor });
            self.owners.len() - 1
        });
        &mut self.owners[at]
    }

    fn next(&mut self) -> Option<QueuedCall> {
        let waiting = self.owners.iter_mut().filter(|owner| owner.has_waiting());
        let owner = waiting.min_by_key(|owner| owner.used)?;
        let next = owner.next()?;
        self.floor = self.floor.max(owner.used);
        owner.used += next.expected;
        self.round += next.expected;
        Some(next)
    }

    /// Removes a call, and corrects what its owner has used.
    fn leave(&mut self, turn: &RunPermit) {
        let owner = self.owner(turn.payer.owner);
        if owner.leave(turn) {
            owner.used = (owner.used + turn.used).saturating_sub(turn.expected);
        }
        let floor = self.floor;
        self.owners.retain(|owner| owner.is_active() || owner.used > floor);
        if !self.owners.iter().any(RunQueueOwner::is_active) {
            // No call is left that it matters to.
            self.owners.clear();
            self.floor = Duration::ZERO;
        }
    }

    /// Whether a round has to end, or another one to begin.
    fn is_active(&self) -> bool {
        !self.round.is_zero() || self.has_waiting()
    }

    fn has_waiting(&self) -> bool {
        self.owners.iter().any(RunQueueOwner::has_waiting)
    }
}

impl RunQueueOwner {
    fn guest(&mut self, guest: usize) -> &mut RunQueueGuest {
        let found = self.guests.iter().position(|it| it.guest == guest);
        let at = found.unwrap_or_else(|| {
            let (used, waiting) = Default::default();
            self.guests.push(RunQueueGuest { guest, used, waiting, running: 0 });
            self.guests.len() - 1
        });
        &mut self.guests[at]
    }

    fn next(&mut self) -> Option<QueuedCall> {
        let waiting = self.guests.iter_mut().filter(|guest| !guest.waiting.is_empty());
        let guest = waiting.min_by_key(|guest| guest.used)?;
        let next = guest.waiting.pop_front()?;
        self.floor = self.floor.max(guest.used);
        guest.running += 1;
        guest.used += next.expected;
        Some(next)
    }

    /// Removes a call. Returns whether it had its turn.
    fn leave(&mut self, turn: &RunPermit) -> bool {
        let guest = self.guest(turn.payer.guest);
        let place = guest.place(turn.number);
        match place {
            Some(place) => drop(guest.waiting.remove(place)),
            None => {
                guest.running -= 1;
                guest.used = (guest.used + turn.used).saturating_sub(turn.expected);
            }
        }
        let floor = self.floor;
        self.guests.retain(|guest| guest.is_active() || guest.used > floor);
        place.is_none()
    }

    fn has_waiting(&self) -> bool {
        self.guests.iter().any(|guest| !guest.waiting.is_empty())
    }

    fn is_active(&self) -> bool {
        self.guests.iter().any(RunQueueGuest::is_active)
    }
}

impl RunQueueGuest {
    fn is_active(&self) -> bool {
        self.running > 0 || !self.waiting.is_empty()
    }

    /// Where a call waits; `None` if it has its turn.
    fn place(&self, number: u64) -> Option<usize> {
        self.waiting.binary_search_by_key(&number, |waiting| waiting.number).ok()
    }
}

impl RunPermit {
    /// Whether it is this call's turn. If not, it is woken then.
    pub fn poll(&self, cx: &Context<'_>) -> bool {
        let mut state = self.queue.state.borrow_mut();
        let guest = state.owner(self.payer.owner).guest(self.payer.guest);
        let Some(place) = guest.place(self.number) else { return true };
        guest.waiting[place].waker.clone_from(cx.waker());
        false
    }

    /// Ends the turn, after so much CPU time.
    pub fn end(mut self, used: Duration) {
        self.used = used;
    }
}

impl Drop for RunPermit {
    fn drop(&mut self) {
        self.queue.state.borrow_mut().leave(self);
    }
}

#[cfg(test)]
mod tests;

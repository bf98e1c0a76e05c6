//! Admission: how many requests may be in flight, in all, to one guest, and of one client.
//!
//! Owns a worker's places and who gets one. A request holds a permit from before it takes an
//! instance until its response is made, so that instances cannot run out while a gate is open.
//! Lives on one thread.
//!
//! The fewer places are free, the fewer anybody may hold: a guest three times as many as are free,
//! a client seven times (dynamic thresholds; Choudhury and Hahne, IEEE/ACM Transactions on
//! Networking 6/2, 1998). So one guest alone gets three quarters of all. The last eighth is for
//! guests that hold less than four, the last sixteenth for those that hold none: it takes twenty
//! guests that want all of it before one that wants a single place has to wait.
//!
//! All that is said of guests is so of their owners, with all the guests that each has. What an
//! owner may hold is divided between its guests in the same way.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::rc::{Rc, Weak};
use std::time::Instant;

use crate::grants::{QueueLimits, Share};
use crate::message::Reject;
use crate::queue::{Holder, Holders, Queue};

/// How many times as many places as are free a guest may hold, and a client.
const OF_A_GUEST: usize = 3;
const OF_A_CLIENT: usize = 7;
/// What part of all is kept for guests that hold less than [`FEW`], and for those that hold none.
const RESERVED_FOR_FEW: usize = 8;
const RESERVED_FOR_NONE: usize = 16;
const FEW: usize = 4;

/// The places of one worker.
pub struct AdmissionGate {
    taken: Cell<usize>,
    taken_max: usize,
    /// Guests with requests that wait. The one that got a place last is at the end.
    waiting: RefCell<Vec<Rc<GuestGate>>>,
    /// What each owner of guests has.
    owners: Holders,
}

/// What one guest has of them.
pub struct GuestGate {
    gate: Rc<AdmissionGate>,
    /// What its owner has, with all its guests, and who that is.
    owner: Rc<Holder>,
    share: Cell<Share>,
    held: Cell<usize>,
    held_max: Cell<usize>,
    queue: Queue<Permit>,
}

/// The same of guests that come and go: each is there as long as it holds a place or waits for one.
pub struct GuestGates {
    gate: Rc<AdmissionGate>,
    guests: RefCell<HashMap<usize, Weak<GuestGate>>>,
}

/// The right to be in flight. Dropping it gives the place to the next.
pub struct Permit {
    guest: Rc<GuestGate>,
    client: Rc<Holder>,
}

impl AdmissionGate {
    pub fn new(taken_max: usize) -> Rc<Self> {
        let (taken, waiting, owners) = Default::default();
        Rc::new(AdmissionGate { taken, taken_max, waiting, owners })
    }

    pub fn taken_max(&self) -> usize {
        self.taken_max
    }

    fn free(&self) -> usize {
        self.taken_max - self.taken.get()
    }

    /// Gives free places to those that wait, of the owner that holds the least first, and of that
    /// the guest that does.
    fn dispatch_permits(&self) {
        while self.free() > 0 {
            let Some((guest, client)) = self.next() else { return };
            let permit = guest.acquire_permit(&client);
            // It is for the client that it is charged to, who waits there.
            drop(guest.queue.give(&client, permit));
        }
    }

    fn next(&self) -> Option<(Rc<GuestGate>, Rc<Holder>)> {
        let mut waiting = self.waiting.borrow_mut();
        if waiting.is_empty() {
            return None;
        }
        waiting.retain(|guest| !guest.queue.is_empty());
        let next = |guest: &Rc<GuestGate>| guest.queue.next().filter(|it| guest.has_permit(it));
        let ready = waiting.iter().enumerate().filter_map(|(at, guest)| Some((at, next(guest)?)));
        let held = |guest: &GuestGate| (guest.owner.held(), guest.held.get());
        let (at, client) = ready.min_by_key(|(at, _)| held(&waiting[*at]))?;
        let guest = waiting.remove(at);
        waiting.push(guest.clone());
        Some((guest, client))
    }
}

impl GuestGate {
    /// `share` is whose places it takes, `held_max` the most that it may hold in any case, `queue`
    /// bounds those who wait.
    pub fn new(
        gate: &Rc<AdmissionGate>,
        share: Share,
        held_max: usize,
        queue: QueueLimits,
    ) -> Rc<Self> {
        let owner = gate.owners.of(share.id);
        let queue = Queue::new(queue, Some(owner.clone()));
        let (gate, held, share) = (gate.clone(), Cell::new(0), Cell::new(share));
        Rc::new(GuestGate { gate, owner, share, held, held_max: Cell::new(held_max), queue })
    }

    /// Says the same of one that is there, if it is of the same owner. Whether it is.
    pub fn limit(&self, share: Share, held_max: usize, queue: QueueLimits) -> bool {
        if self.share.get().id != share.id {
            return false;
        }
        self.share.set(share);
        self.held_max.set(held_max);
        self.queue.limit(queue);
        true
    }

    /// Takes a place. Nobody who waits for one of the same guest is overtaken.
    ///
    /// # Errors
    /// [`Reject::NoInstance`] where there is none.
    pub fn admit(self: &Rc<Self>, client: &Rc<Holder>) -> Result<Permit, Reject> {
        if self.has_permit(client) && self.queue.is_empty() {
            Ok(self.acquire_permit(client))
        } else {
            Err(Reject::NoInstance)
        }
    }

    /// Waits for a place, until `deadline` at most.
    ///
    /// # Errors
    /// [`Reject::NoInstance`]: too many wait, or it has taken too long.
    pub async fn wait(
        self: Rc<Self>,
        client: &Rc<Holder>,
        deadline: Instant,
    ) -> Result<Permit, Reject> {
        let mut waited = std::pin::pin!(self.queue.wait(client, deadline));
        let mut is_listed = false;
        let waited = std::future::poll_fn(|cx| {
            let polled = waited.as_mut().poll(cx);
            if polled.is_pending() && !is_listed {
                is_listed = true;
                self.list_waiter();
                // There may be a place since it was refused one.
                self.gate.dispatch_permits();
            }
            polled
        });
        waited.await
    }

    /// Has the gate look at its queue when places are free.
    fn list_waiter(self: &Rc<Self>) {
        let mut waiting = self.gate.waiting.borrow_mut();
        if !waiting.iter().any(|guest| Rc::ptr_eq(guest, self)) {
            waiting.push(self.clone());
        }
    }

    fn has_permit(&self, client: &Holder) -> bool {
        let (free, all) = (self.gate.free(), self.gate.taken_max);
        // An owner may have three times what is free, and each of its guests three times what is
        // left of that.
        let (owned, of_owner) = (self.owner.held(), OF_A_GUEST * free);
        let left = of_owner.saturating_sub(owned);
        let of_guest = if self.share.get().is_sole || self.held.get() == 0 {
            of_owner
        } else {
            // What one more takes from the owner is its place and what is no longer free.
            let left_behind = left.saturating_sub(1 + OF_A_GUEST);
            (OF_A_GUEST * left).min(held_max_of_reserve(left_behind, of_owner))
        };
        self.held.get() < self.held_max.get().min(of_guest)
            && owned < of_owner.min(held_max_of_reserve(free, all))
            && client.held() < OF_A_CLIENT * free
    }

    fn acquire_permit(self: &Rc<Self>, client: &Rc<Holder>) -> Permit {
        self.gate.taken.set(self.gate.taken.get() + 1);
        self.held.set(self.held.get() + 1);
        self.owner.acquire();
        client.acquire();
        Permit { guest: self.clone(), client: client.clone() }
    }
}

/// How many may be held by who wants one more, where so many are left of all.
fn held_max_of_reserve(left: usize, all: usize) -> usize {
    if left > all / RESERVED_FOR_FEW {
        usize::MAX
    } else if left > all / RESERVED_FOR_NONE {
        FEW
    } else {
        1
    }
}

impl GuestGates {
    pub fn new(taken_max: usize) -> Self {
        GuestGates { gate: AdmissionGate::new(taken_max), guests: RefCell::default() }
    }

    /// What a guest has of the places, by its id. `share` is whose they are, `queue` bounds those
    /// who wait for them.
    pub fn of(&self, id: usize, share: Share, queue: QueueLimits) -> Rc<GuestGate> {
        let mut guests = self.guests.borrow_mut();
        let known = guests.get(&id).and_then(Weak::upgrade);
        if let Some(guest) = known.filter(|guest| guest.limit(share, usize::MAX, queue)) {
            return guest;
        }
        if guests.len() >= 2 * self.gate.taken_max {
            guests.retain(|_, guest| guest.strong_count() > 0);
        }
        let guest = GuestGate::new(&self.gate, share, usize::MAX, queue);
        guests.insert(id, Rc::downgrade(&guest));
        guest
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        let guest = &self.guest;
        guest.held.set(guest.held.get() - 1);
        guest.owner.release();
        guest.gate.taken.set(guest.gate.taken.get() - 1);
        self.client.release();
        guest.gate.dispatch_permits();
    }
}

#[cfg(test)]
mod tests;

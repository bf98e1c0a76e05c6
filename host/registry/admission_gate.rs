//! Admission: how many requests may be in flight, in all, to one handler, and of one client.
//!
//! Owns a worker's permits and decides who gets one. A request takes its permit before it takes an
//! instance, and holds it until its response is made. So instances cannot run out while the gate is
//! open. Lives on one thread.
//!
//! The fewer permits are free, the fewer anyone may hold: a handler three times as many as are
//! free, a client seven times (dynamic thresholds; Choudhury and Hahne, IEEE/ACM Transactions on
//! Networking 6/2, 1998). So one handler alone gets three quarters of all. The last eighth is
//! reserved for handlers that hold less than four, the last sixteenth for handlers that hold none.
//! A handler that wants a single permit has to wait only if twenty others want as many as they can
//! get.
//!
//! The same rules hold between owners, each with all its handlers. What an owner may hold is
//! divided between its handlers in the same way.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::rc::{Rc, Weak};
use std::time::Instant;

use crate::grants::{QueueLimits, Share};
use crate::message::Reject;
use crate::queue::{Holder, Holders, Queue};

/// How many permits a handler may hold, in multiples of the free ones.
const OF_A_GUEST: usize = 3;
/// How many permits a client may hold, in multiples of the free ones.
const OF_A_CLIENT: usize = 7;
/// One part in eight is reserved for handlers that hold less than [`FEW`].
const RESERVED_FOR_FEW: usize = 8;
/// One part in sixteen is reserved for handlers that hold none.
const RESERVED_FOR_NONE: usize = 16;
const FEW: usize = 4;

/// The permits of one worker.
pub struct AdmissionGate {
    taken: Cell<usize>,
    taken_max: usize,
    /// Handlers with waiting requests. The handler that got a permit last is at the end.
    waiting: RefCell<Vec<Rc<GuestGate>>>,
    /// How many permits the handlers of each owner hold.
    owners: Holders,
}

/// One handler's part of an [`AdmissionGate`].
pub struct GuestGate {
    gate: Rc<AdmissionGate>,
    /// The permits of all handlers of the same owner.
    owner: Rc<Holder>,
    share: Cell<Share>,
    held: Cell<usize>,
    held_max: Cell<usize>,
    queue: Queue<Permit>,
}

/// An [`AdmissionGate`] whose handlers come and go: each handler's gate exists as long as it has a
/// permit or a waiting request.
pub struct GuestGates {
    gate: Rc<AdmissionGate>,
    guests: RefCell<HashMap<usize, Weak<GuestGate>>>,
}

/// The right to be in flight. Dropping it gives it to the next request.
pub struct Permit {
    guest: Rc<GuestGate>,
    client: Rc<Holder>,
}

impl AdmissionGate {
    /// A gate with `taken_max` permits, all of them free.
    pub fn new(taken_max: usize) -> Rc<Self> {
        let (taken, waiting, owners) = Default::default();
        Rc::new(AdmissionGate { taken, taken_max, waiting, owners })
    }

    /// How many permits there are, free or taken.
    pub fn taken_max(&self) -> usize {
        self.taken_max
    }

    fn free(&self) -> usize {
        self.taken_max - self.taken.get()
    }

    /// Gives free permits to waiting requests: first to the owner that holds the fewest, and among
    /// its handlers to the one that holds the fewest.
    fn dispatch_permits(&self) {
        while self.free() > 0 {
            let Some((guest, client)) = self.next() else { return };
            let permit = guest.acquire_permit(&client);
            // The permit counts for `client`, which has a waiting request in this queue.
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
    /// A handler's part of `gate`. `share` names its owner, `held_max` bounds the permits that it
    /// may hold in any case, and `queue` bounds its waiting requests.
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

    /// Changes the limits of [`GuestGate::new`]. Returns `false`, without any change, if `share`
    /// names another owner.
    pub fn limit(&self, share: Share, held_max: usize, queue: QueueLimits) -> bool {
        if self.share.get().id != share.id {
            return false;
        }
        self.share.set(share);
        self.held_max.set(held_max);
        self.queue.limit(queue);
        true
    }

    /// Takes a permit at once. Never overtakes a waiting request of the same handler.
    ///
    /// # Errors
    /// [`Reject::NoInstance`] if there is none.
    pub fn admit(self: &Rc<Self>, client: &Rc<Holder>) -> Result<Permit, Reject> {
        if self.has_permit(client) && self.queue.is_empty() {
            Ok(self.acquire_permit(client))
        } else {
            Err(Reject::NoInstance)
        }
    }

    /// Waits for a permit, at most until `deadline`. Cancel safe.
    ///
    /// # Errors
    /// [`Reject::NoInstance`]: too many requests wait, or this one has waited too long.
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
                // A permit may have become free since this request was refused one.
                self.gate.dispatch_permits();
            }
            polled
        });
        waited.await
    }

    /// Makes the gate consider this handler's queue when permits become free.
    fn list_waiter(self: &Rc<Self>) {
        let mut waiting = self.gate.waiting.borrow_mut();
        if !waiting.iter().any(|guest| Rc::ptr_eq(guest, self)) {
            waiting.push(self.clone());
        }
    }

    fn has_permit(&self, client: &Holder) -> bool {
        let (free, all) = (self.gate.free(), self.gate.taken_max);
        // An owner may hold three times the free permits, and each of its handlers three times what
        // the owner has left of that.
        let (owned, of_owner) = (self.owner.held(), OF_A_GUEST * free);
        let left = of_owner.saturating_sub(owned);
        let of_guest = if self.share.get().is_sole || self.held.get() == 0 {
            of_owner
        } else {
            // One more permit lowers what the owner has left by itself, and by three because one
            // less is free.
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

/// How many permits a holder may have to get one more, if `left` of `all` are left.
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
    /// Gates for `taken_max` permits, all of them free.
    pub fn new(taken_max: usize) -> Self {
        GuestGates { gate: AdmissionGate::new(taken_max), guests: RefCell::default() }
    }

    /// The gate of the handler with this id. `share` names its owner, `queue` bounds its waiting
    /// requests.
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

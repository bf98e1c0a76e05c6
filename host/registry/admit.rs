//! Admission: how many requests may be in flight, in all and per guest.
//!
//! Owns the gates and who waits before them. A request holds a permit from before it takes an
//! instance until its response is made, so that instances cannot run out while a gate is open.
//! Gates live on one thread.

use std::cell::Cell;
use std::rc::Rc;
use std::time::Instant;

use crate::config::QueueLimits;
use crate::message::Reject;
use crate::queue::Queue;

/// Lets a bounded number of requests in at once. A gate may stand behind another.
pub struct Gate {
    in_flight: Cell<usize>,
    in_flight_max: usize,
    queue: Queue,
    parent: Option<Rc<Gate>>,
}

/// The right to be in flight. Dropping it gives the place back, here and in every parent.
pub struct Permit {
    gate: Rc<Gate>,
    /// How many gates have been passed, from `gate` on: all of them, but while it waits.
    passed: usize,
}

impl Gate {
    /// `queue` bounds those who wait for a place.
    pub fn new(in_flight_max: usize, queue: QueueLimits, parent: Option<Rc<Gate>>) -> Rc<Self> {
        let queue = Queue::new(queue);
        Rc::new(Gate { in_flight: Cell::new(0), in_flight_max, queue, parent })
    }

    /// Takes a place here and in every parent, or none. Nobody who waits is overtaken.
    ///
    /// # Errors
    /// [`Reject::NoInstance`] where one of them is full.
    pub fn admit(self: &Rc<Self>) -> Result<Permit, Reject> {
        if !self.chain().all(|gate| gate.has_room() && gate.queue.is_empty()) {
            return Err(Reject::NoInstance);
        }
        let mut passed = 0;
        for gate in self.chain() {
            gate.in_flight.set(gate.in_flight.get() + 1);
            passed += 1;
        }
        Ok(Permit { gate: self.clone(), passed })
    }

    /// Waits for a place here, and then in one parent after the other, until `deadline` at most.
    ///
    /// # Errors
    /// [`Reject::NoInstance`]: too many wait at one of them, or it has taken too long.
    pub async fn wait(self: Rc<Self>, deadline: Instant) -> Result<Permit, Reject> {
        let mut permit = Permit { gate: self.clone(), passed: 0 };
        for gate in self.chain() {
            gate.queue.turn(deadline, None, || gate.enter()).await?;
            permit.passed += 1;
        }
        Ok(permit)
    }

    fn has_room(&self) -> bool {
        self.in_flight.get() < self.in_flight_max
    }

    fn enter(&self) -> Option<()> {
        self.has_room().then(|| self.in_flight.set(self.in_flight.get() + 1))
    }

    /// This gate and the ones that it stands behind.
    fn chain(&self) -> impl Iterator<Item = &Gate> {
        std::iter::successors(Some(self), |gate| gate.parent.as_deref())
    }

    pub fn in_flight_max(&self) -> usize {
        self.in_flight_max
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        for gate in self.gate.chain().take(self.passed) {
            gate.in_flight.set(gate.in_flight.get() - 1);
            gate.queue.wake_first();
        }
    }
}

//! Admission: how many requests may be in flight, in all and per guest.
//!
//! Owns the gates. A request holds a permit from before it takes an instance until its response is
//! made, so that instances cannot run out while a gate is open. Gates live on one thread.

use std::cell::Cell;
use std::rc::Rc;

use crate::message::Reject;

/// Lets a bounded number of requests in at once. A gate may stand behind another.
pub struct Gate {
    in_flight: Cell<usize>,
    in_flight_max: usize,
    parent: Option<Rc<Gate>>,
}

/// The right to be in flight. Dropping it gives the place back, here and in every parent.
pub struct Permit(Rc<Gate>);

impl Gate {
    pub fn new(in_flight_max: usize, parent: Option<Rc<Gate>>) -> Rc<Self> {
        Rc::new(Gate { in_flight: Cell::new(0), in_flight_max, parent })
    }

    /// Takes a place here and in every parent, or none.
    ///
    /// # Errors
    /// [`Reject::NoInstance`] where one of them is full.
    pub fn admit(self: &Rc<Self>) -> Result<Permit, Reject> {
        if !self.chain().all(|gate| gate.in_flight.get() < gate.in_flight_max) {
            return Err(Reject::NoInstance);
        }
        for gate in self.chain() {
            gate.in_flight.set(gate.in_flight.get() + 1);
        }
        Ok(Permit(self.clone()))
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
        for gate in self.0.chain() {
            gate.in_flight.set(gate.in_flight.get() - 1);
        }
    }
}

//! Admission on one worker: decides whether a request may go to its guest now or has to wait.
//!
//! Owns the gates of this worker's handlers, of its twins, and of requests whose guest is still to
//! be loaded.

use std::cell::RefCell;
use std::rc::Rc;
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use super::worker_clients::ClientShares;
use crate::config::Config;
use crate::grants::{Concurrency, Grants, QueueLimits, Share};
use crate::guest::Guest;
use crate::message::Reject;
use crate::registry::admission_gate::{AdmissionGate, GuestGate, GuestGates, Permit};
use crate::registry::{CurrentGuest, Handler};

/// How many requests of one worker may wait for guests to be loaded. They hold no instance.
const WAITING_MAX: usize = 1024;

/// No request waits for a permit to wait for its guest.
const NO_QUEUE: QueueLimits = QueueLimits { length_max: 0, wait_max: Duration::ZERO };

/// The gate of a handler. Ids are reused, so the grants identify the handler.
type HandlerGate = (Weak<Grants>, Rc<GuestGate>);

/// The gates of one worker.
pub struct Gates {
    workers: usize,
    /// The gate of all requests: this worker's part of the host's requests in flight.
    all: Rc<AdmissionGate>,
    /// The gate of each handler, by its id.
    guest_gates: RefCell<Vec<Option<HandlerGate>>>,
    /// The gate of all twins together.
    pub twins: Rc<GuestGate>,
    /// The gates of requests that wait for their guest to be loaded.
    loading: GuestGates,
}

impl Gates {
    /// Gates without requests. `most` is how many requests the worker has instances for.
    pub fn new(config: &Config, most: usize) -> Self {
        let workers = config.workers;
        let chosen = config.admission.in_flight_max.map(|most| (most / workers).max(1));
        let all = AdmissionGate::new(chosen.unwrap_or(most).min(most));
        let queue = config.grants.of_unrouted().concurrency.queue;
        Gates {
            workers,
            twins: GuestGate::new(&all, Share::of_other(0), all.taken_max(), queue),
            all,
            guest_gates: RefCell::default(),
            loading: GuestGates::new(WAITING_MAX),
        }
    }

    /// Takes a permit for a request to a guest; `None` if there is none now.
    ///
    /// # Errors
    /// [`Reject::Paused`]: the guest's circuit breaker is open.
    pub fn try_admit(
        &self,
        guest: &Guest,
        client: &ClientShares,
    ) -> Result<Option<Permit>, Reject> {
        let Ok(permit) = self.guest_gate(guest).admit(&client.serving) else { return Ok(None) };
        guest.info.breaker.admit()?;
        Ok(Some(permit))
    }

    /// Waits for a permit, at most until `deadline`. Cancel safe.
    ///
    /// # Errors
    /// [`Reject::NoInstance`]: the queue is full, or the wait was too long. [`Reject::Paused`]: the
    /// guest's circuit breaker is open.
    pub async fn admit(
        &self,
        guest: &Guest,
        client: &ClientShares,
        deadline: Instant,
    ) -> Result<Permit, Reject> {
        let permit = self.guest_gate(guest).wait(&client.serving, deadline).await?;
        guest.info.breaker.admit()?;
        Ok(permit)
    }

    /// Waits until a handler's guest is loaded, at most until `deadline`. Requests to other guests
    /// are not held up meanwhile.
    ///
    /// # Errors
    /// [`Reject::Loading`], [`Reject::NotLoaded`], or [`Reject::NoRoute`] if the handler was
    /// removed meanwhile.
    pub async fn loaded(
        &self,
        handler: &Handler,
        client: &ClientShares,
        deadline: Instant,
    ) -> Result<CurrentGuest, Reject> {
        let gate = self.loading.of(handler.id, handler.grants.share(), NO_QUEUE);
        let _place = gate.admit(&client.loading).map_err(|_| Reject::Loading)?;
        let guest = tokio::time::timeout_at(deadline.into(), handler.wait()).await;
        guest.unwrap_or(Err(Reject::Loading)).map(CurrentGuest::from)
    }

    /// The gate of one guest's handler, with its current limits.
    fn guest_gate(&self, guest: &Guest) -> Rc<GuestGate> {
        let (id, workers) = (guest.id, self.workers);
        let grants = &guest.info.grants;
        let (share, limits) = (grants.share(), grants.concurrency);
        let Concurrency { in_flight_max, queue } = limits;
        let held_max = in_flight_max.map_or(usize::MAX, |most| (most / workers).max(1));
        let mut gates = self.guest_gates.borrow_mut();
        if id >= gates.len() {
            gates.resize(id + 1, None);
        }
        match &gates[id] {
            // Another handler may have this id by now.
            Some((of, gate)) if std::ptr::eq(of.as_ptr(), Arc::as_ptr(grants)) => {
                gate.limit(share, held_max, queue);
                gate.clone()
            }
            _ => {
                let gate = GuestGate::new(&self.all, share, held_max, queue);
                gates[id] = Some((Arc::downgrade(grants), gate.clone()));
                gate
            }
        }
    }
}

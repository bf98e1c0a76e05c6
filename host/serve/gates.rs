//! Whether a request may go to its guest now: the places of one worker, and who waits for them.
//!
//! Owns the gates of this worker's handlers, of its twins, and of what is to be loaded first.

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

/// Requests of one worker that may wait for guests to be loaded. They hold no instance.
const WAITING_MAX: usize = 1024;

/// Nobody waits for a place to wait in.
const NO_QUEUE: QueueLimits = QueueLimits { length_max: 0, wait_max: Duration::ZERO };

/// The gate of a handler, which is told from another of its id by its grants.
type HandlerGate = (Weak<Grants>, Rc<GuestGate>);

/// The gates of one worker.
pub struct Gates {
    workers: usize,
    /// Before every request: this worker's part of what the host does at once.
    all: Rc<AdmissionGate>,
    /// What each handler has of that, by its id.
    guest_gates: RefCell<Vec<Option<HandlerGate>>>,
    /// What all twins have of it.
    pub twins: Rc<GuestGate>,
    /// Before which requests wait for guests to be loaded.
    loading: GuestGates,
}

impl Gates {
    /// `most` is how many requests there are instances for.
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

    /// Takes a place for a request to a guest, if there is one.
    ///
    /// # Errors
    /// [`Reject::Paused`].
    pub fn try_admit(
        &self,
        guest: &Guest,
        client: &ClientShares,
    ) -> Result<Option<Permit>, Reject> {
        let Ok(permit) = self.guest_gate(guest).admit(&client.serving) else { return Ok(None) };
        guest.info.breaker.admit()?;
        Ok(Some(permit))
    }

    /// Waits for one, until `deadline` at most.
    ///
    /// # Errors
    /// [`Reject::NoInstance`], [`Reject::Paused`].
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

    /// Waits until a handler's guest is loaded, in a place where other requests do not stand behind
    /// it, until `deadline` at most.
    ///
    /// # Errors
    /// [`Reject::Loading`], [`Reject::NotLoaded`], or [`Reject::NoRoute`] where its file was
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

    /// Before the requests to one guest.
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
            // The handler of this id may be another by now.
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

//! Metrics of each handler.
//!
//! Owns the counters that one worker keeps for one handler, and how the counters of all workers are
//! added up by name. The thread that asks adds them up, so workers spend no time on that.

use std::any::Any;
use std::collections::BTreeMap;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Duration;

use super::counter::Counter;
use super::duration::{Durations, empty_histogram};
use crate::status::{Histogram, MetricValue, Status, metrics};

metrics! {
    REQUESTS = "handler_requests", Counter, "requests",
        "Requests of each handler that have been answered, by it or in its place, since it came.";
    REJECTS = "handler_rejects", Counter, "requests",
        "Those of them that the host has answered itself.";
    DURATION = "handler_duration", Histogram, "microseconds",
        "Time from the end of a request's head to the beginning of its answer, of each handler.";
}

/// One worker's counters of one handler.
#[derive(Default)]
pub struct HandlerCounters {
    rejects: Counter,
    durations: Durations,
}

impl HandlerCounters {
    /// Counts a request that has been answered.
    pub fn note(&self, duration: Duration, is_reject: bool) {
        self.durations.note(duration);
        if is_reject {
            self.rejects.add(1);
        }
    }
}

/// Announces that a worker has begun to count a handler's requests.
pub struct HandlerRegistration {
    /// The handler's name.
    pub name: Box<str>,
    /// The handler. When it is gone, its counters are dropped.
    pub handler: Weak<dyn Any + Send + Sync>,
    /// The worker's counters of the handler.
    pub counts: Arc<HandlerCounters>,
}

/// The sums over all workers.
struct HandlerTotals {
    rejects: u64,
    durations: Histogram,
}

/// The counters of all handlers.
pub struct HandlerMetrics {
    registration_sender: Sender<HandlerRegistration>,
    registrations: Mutex<HandlerRegistrations>,
}

struct HandlerRegistrations {
    registration_receiver: Receiver<HandlerRegistration>,
    registered: Vec<HandlerRegistration>,
}

impl HandlerRegistrations {
    /// Takes over new registrations, and drops those of handlers that are gone.
    fn sweep(&mut self) {
        self.registered.extend(self.registration_receiver.try_iter());
        self.registered.retain(|begun| begun.handler.strong_count() > 0);
    }
}

impl Default for HandlerMetrics {
    fn default() -> Self {
        let (sender, receiver) = channel();
        HandlerMetrics {
            registration_sender: sender,
            registrations: Mutex::new(HandlerRegistrations {
                registration_receiver: receiver,
                registered: Vec::new(),
            }),
        }
    }
}

impl HandlerMetrics {
    /// Registers a worker's counters. Takes no lock.
    pub fn begin(&self, begun: HandlerRegistration) {
        // Sending cannot fail, because the receiver lives as long as the sender.
        drop(self.registration_sender.send(begun));
    }

    /// Drops the counters of handlers that are gone, unless another thread holds the lock.
    pub fn sweep(&self) {
        if let Ok(mut known) = self.registrations.try_lock() {
            known.sweep();
        }
    }

    /// Adds the sums over all workers to `status`.
    pub fn put(&self, status: &mut Status) {
        let mut known = self.registrations.lock().unwrap_or_else(PoisonError::into_inner);
        known.sweep();
        let mut sums: BTreeMap<&str, HandlerTotals> = BTreeMap::new();
        for HandlerRegistration { name, counts, .. } in &known.registered {
            let none = || HandlerTotals { rejects: 0, durations: empty_histogram() };
            let sum = sums.entry(name).or_insert_with(none);
            sum.rejects += counts.rejects.get();
            counts.durations.add_to(&mut sum.durations);
        }
        let numbers = |number: fn(&HandlerTotals) -> u64| {
            sums.iter().map(|(name, sum)| ((*name).into(), number(sum))).collect()
        };
        status.put(&REQUESTS, MetricValue::ByHandler(numbers(|sum| sum.durations.count())));
        status.put(&REJECTS, MetricValue::ByHandler(numbers(|sum| sum.rejects)));
        let durations = sums.into_iter().map(|(name, sum)| (name.into(), sum.durations));
        status.put(&DURATION, MetricValue::HistogramByHandler(durations.collect()));
    }
}

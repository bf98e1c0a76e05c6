//! What is counted of each handler.
//!
//! Owns what one worker counts of one handler, and how that of all workers is put together by name:
//! by whoever asks, so that no worker does anything for it.

use std::any::Any;
use std::collections::BTreeMap;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Duration;

use super::counter::Counter;
use super::duration::{Durations, no_durations};
use crate::status::{Histogram, Status, Value, metrics};

metrics! {
    REQUESTS = "handler_requests", Counter, "requests",
        "Requests of each handler that have been answered, by it or in its place, since it came.";
    REJECTS = "handler_rejects", Counter, "requests",
        "Those of them that the host has answered itself.";
    DURATION = "handler_duration", Histogram, "microseconds",
        "Time from the end of a request's head to the beginning of its answer, of each handler.";
}

/// What one worker has counted of a handler.
#[derive(Default)]
pub struct OfHandler {
    rejects: Counter,
    durations: Durations,
}

impl OfHandler {
    /// Counts a request that has been answered.
    pub fn note(&self, duration: Duration, is_reject: bool) {
        self.durations.note(duration);
        if is_reject {
            self.rejects.add(1);
        }
    }
}

/// The counts that a worker has begun for a handler.
pub struct Begun {
    pub name: Box<str>,
    /// The handler: what was counted of it goes with it.
    pub handler: Weak<dyn Any + Send + Sync>,
    pub counts: Arc<OfHandler>,
}

/// What all workers have.
struct Sum {
    rejects: u64,
    durations: Histogram,
}

/// The counts that there are.
pub struct Handlers {
    tell: Sender<Begun>,
    known: Mutex<Known>,
}

struct Known {
    told: Receiver<Begun>,
    begun: Vec<Begun>,
}

impl Known {
    /// Takes up what was told, and forgets handlers that are gone.
    fn sweep(&mut self) {
        self.begun.extend(self.told.try_iter());
        self.begun.retain(|begun| begun.handler.strong_count() > 0);
    }
}

impl Default for Handlers {
    fn default() -> Self {
        let (tell, told) = channel();
        Handlers { tell, known: Mutex::new(Known { told, begun: Vec::new() }) }
    }
}

impl Handlers {
    /// Says that a worker has begun to count. Takes no lock.
    pub fn begin(&self, begun: Begun) {
        // The other end is here, too.
        drop(self.tell.send(begun));
    }

    /// Forgets handlers that are gone, unless somebody else is at it or is adding up.
    pub fn sweep(&self) {
        if let Ok(mut known) = self.known.try_lock() {
            known.sweep();
        }
    }

    /// Adds what all workers have counted.
    pub fn put(&self, status: &mut Status) {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        known.sweep();
        let mut sums: BTreeMap<&str, Sum> = BTreeMap::new();
        for Begun { name, counts, .. } in &known.begun {
            let none = || Sum { rejects: 0, durations: no_durations() };
            let sum = sums.entry(name).or_insert_with(none);
            sum.rejects += counts.rejects.get();
            counts.durations.add_to(&mut sum.durations);
        }
        let numbers = |number: fn(&Sum) -> u64| {
            sums.iter().map(|(name, sum)| ((*name).into(), number(sum))).collect()
        };
        status.put(&REQUESTS, Value::ByHandler(numbers(|sum| sum.durations.count())));
        status.put(&REJECTS, Value::ByHandler(numbers(|sum| sum.rejects)));
        let durations = sums.into_iter().map(|(name, sum)| (name.into(), sum.durations));
        status.put(&DURATION, Value::HistogramByHandler(durations.collect()));
    }
}

//! What is counted of each handler.
//!
//! Owns what one worker counts of one handler, and how that of all workers is put together by name.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use super::counter::Counter;
use super::duration::{Durations, no_durations};
use crate::status::{Histogram, Kind, Metric, Status, Value};

static REQUESTS: Metric = Metric {
    name: "handler_requests",
    kind: Kind::Counter,
    unit: "requests",
    help: "Requests of each handler that have been answered, by it or in its place.",
};
static REJECTS: Metric = Metric {
    name: "handler_rejects",
    kind: Kind::Counter,
    unit: "requests",
    help: "Those of them that the host has answered itself.",
};
static DURATION: Metric = Metric {
    name: "handler_duration",
    kind: Kind::Histogram,
    unit: "microseconds",
    help: "Time from the end of a request's head to the beginning of its answer, of each handler.",
};

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

/// What all workers have.
struct Sum {
    rejects: u64,
    durations: Histogram,
}

/// By the handler's name.
type Sums = BTreeMap<Box<str>, Sum>;

/// What each worker said last, in the order of the workers.
pub struct Handlers(Box<[Mutex<Sums>]>);

impl Handlers {
    pub fn new(workers: usize) -> Self {
        Handlers((0..workers).map(|_| Mutex::default()).collect())
    }

    /// Takes down what a worker has of its handlers, in the place of what it said before.
    pub fn publish<'a>(
        &self,
        worker: usize,
        handlers: impl Iterator<Item = (&'a str, &'a OfHandler)>,
    ) {
        let mut sums = Sums::new();
        for (name, counts) in handlers {
            add(&mut sums, name, counts.rejects.get(), |all| counts.durations.add_to(all));
        }
        *lock(&self.0[worker]) = sums;
    }

    /// Adds what all workers have said.
    pub fn put(&self, status: &mut Status) {
        let mut all = Sums::new();
        for worker in &self.0 {
            for (name, sum) in &*lock(worker) {
                add(&mut all, name, sum.rejects, |all| all.add(&sum.durations));
            }
        }
        let numbers = |number: fn(&Sum) -> u64| {
            all.iter().map(|(name, sum)| (name.clone(), number(sum))).collect()
        };
        status.put(&REQUESTS, Value::ByHandler(numbers(|sum| sum.durations.count())));
        status.put(&REJECTS, Value::ByHandler(numbers(|sum| sum.rejects)));
        let durations = all.into_iter().map(|(name, sum)| (name, sum.durations));
        status.put(&DURATION, Value::HistogramByHandler(durations.collect()));
    }
}

fn add(sums: &mut Sums, name: &str, rejects: u64, durations: impl FnOnce(&mut Histogram)) {
    if !sums.contains_key(name) {
        sums.insert(name.into(), Sum { rejects: 0, durations: no_durations() });
    }
    if let Some(sum) = sums.get_mut(name) {
        sum.rejects += rejects;
        durations(&mut sum.durations);
    }
}

fn lock(sums: &Mutex<Sums>) -> MutexGuard<'_, Sums> {
    sums.lock().unwrap_or_else(PoisonError::into_inner)
}

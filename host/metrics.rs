//! Counters of what the host has done.
//!
//! Owns one set of counters per worker, written by that worker alone and read by anyone. Imports
//! nothing but the names of the rejects.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::message::Reject;

/// One worker's counters, on cache lines of their own.
#[repr(align(128))]
#[derive(Default)]
pub struct Counters {
    pub requests: Counter,
    pub in_flight: Counter,
    pub connections: Counter,
    pub instances_ready: Counter,
    pub instances_out: Counter,
    /// The last question for counts that this worker has answered.
    pub published: Counter,
    rejects: [Counter; Reject::NAMES.len()],
}

/// A number that one thread writes. No atomic read-modify-write is needed for that.
#[derive(Default)]
pub struct Counter(AtomicU64);

impl Counter {
    pub fn add(&self, n: u64) {
        self.0.store(self.get().wrapping_add(n), Ordering::Relaxed);
    }

    pub fn sub(&self, n: u64) {
        self.0.store(self.get().wrapping_sub(n), Ordering::Relaxed);
    }

    pub fn set(&self, n: u64) {
        self.0.store(n, Ordering::Relaxed);
    }

    pub fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

impl Counters {
    pub fn reject(&self, reject: Reject) {
        self.rejects[reject.index()].add(1);
    }
}

/// The counters of all workers.
#[derive(Clone)]
pub struct Metrics(Arc<[Counters]>);

impl Metrics {
    pub fn new(workers: usize) -> Self {
        Metrics((0..workers).map(|_| Counters::default()).collect())
    }

    /// The counters of worker `index`.
    pub fn worker(&self, index: usize) -> &Counters {
        &self.0[index]
    }

    /// The counters of every worker.
    pub fn all(&self) -> impl Iterator<Item = &Counters> {
        self.0.iter()
    }

    fn sum(&self, counter: impl Fn(&Counters) -> &Counter) -> u64 {
        self.0.iter().map(|counters| counter(counters).get()).sum()
    }
}

/// One line: `requests=12 in_flight=0 ... rejects=[trap:1]`.
impl fmt::Display for Metrics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let by_worker: Vec<String> =
            self.0.iter().map(|counters| counters.requests.get().to_string()).collect();
        let rejects: Vec<String> = Reject::NAMES
            .iter()
            .enumerate()
            .map(|(index, name)| (name, self.sum(|counters| &counters.rejects[index])))
            .filter(|(_, count)| *count > 0)
            .map(|(name, count)| format!("{name}:{count}"))
            .collect();
        write!(
            f,
            "requests={} in_flight={} connections={} instances_ready={} instances_out={} \
             workers={} requests_by_worker=[{}] rejects=[{}]",
            self.sum(|counters| &counters.requests),
            self.sum(|counters| &counters.in_flight),
            self.sum(|counters| &counters.connections),
            self.sum(|counters| &counters.instances_ready),
            self.sum(|counters| &counters.instances_out),
            self.0.len(),
            by_worker.join(" "),
            rejects.join(" ")
        )
    }
}

//! Counters of what the host has done.
//!
//! Owns one set of counters per worker, written by that worker alone and read by anyone. Does not
//! know what the rejects mean that it counts by number.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// One worker's counters, on cache lines of their own.
#[repr(align(128))]
pub struct Counters {
    pub requests: Counter,
    pub in_flight: Counter,
    pub connections: Counter,
    /// Those of them that are idle and hold nothing but their sockets.
    pub connections_parked: Counter,
    /// Connections for which there was no place.
    pub connections_refused: Counter,
    pub instances_ready: Counter,
    pub instances_out: Counter,
    /// The most CPU time that one task of this worker has had in one piece, in microseconds.
    pub turn_max_us: Counter,
    /// The last question for counts that this worker has answered.
    pub published: Counter,
    rejects: Box<[Counter]>,
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
    fn new(rejects: usize) -> Self {
        Counters {
            requests: Counter::default(),
            in_flight: Counter::default(),
            connections: Counter::default(),
            connections_parked: Counter::default(),
            connections_refused: Counter::default(),
            instances_ready: Counter::default(),
            instances_out: Counter::default(),
            turn_max_us: Counter::default(),
            published: Counter::default(),
            rejects: (0..rejects).map(|_| Counter::default()).collect(),
        }
    }

    /// Counts a reject by its place in the list of names.
    pub fn reject(&self, index: usize) {
        self.rejects[index].add(1);
    }
}

/// The counters of all workers.
#[derive(Clone)]
pub struct Metrics {
    counters: Arc<[Counters]>,
    reject_names: &'static [&'static str],
}

impl Metrics {
    pub fn new(workers: usize, reject_names: &'static [&'static str]) -> Self {
        let counters = (0..workers).map(|_| Counters::new(reject_names.len())).collect();
        Metrics { counters, reject_names }
    }

    /// The counters of worker `index`.
    pub fn worker(&self, index: usize) -> &Counters {
        &self.counters[index]
    }

    /// The counters of every worker.
    pub fn all(&self) -> impl Iterator<Item = &Counters> {
        self.counters.iter()
    }

    fn sum(&self, counter: impl Fn(&Counters) -> &Counter) -> u64 {
        self.counters.iter().map(|counters| counter(counters).get()).sum()
    }
}

/// One counter of a worker's.
type Of = fn(&Counters) -> &Counter;

/// One line: `requests=12 in_flight=0 ... rejects=[trap:1]`.
impl fmt::Display for Metrics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let by_worker: Vec<String> =
            self.counters.iter().map(|counters| counters.requests.get().to_string()).collect();
        let rejects: Vec<String> = self
            .reject_names
            .iter()
            .enumerate()
            .map(|(index, name)| (name, self.sum(|counters| &counters.rejects[index])))
            .filter(|(_, count)| *count > 0)
            .map(|(name, count)| format!("{name}:{count}"))
            .collect();
        let sums: [(&str, Of); 7] = [
            ("requests", |counters| &counters.requests),
            ("in_flight", |counters| &counters.in_flight),
            ("connections", |counters| &counters.connections),
            ("connections_parked", |counters| &counters.connections_parked),
            ("connections_refused", |counters| &counters.connections_refused),
            ("instances_ready", |counters| &counters.instances_ready),
            ("instances_out", |counters| &counters.instances_out),
        ];
        for (name, counter) in sums {
            write!(f, "{name}={} ", self.sum(counter))?;
        }
        let turns = self.counters.iter().map(|counters| counters.turn_max_us.get());
        write!(f, "turn_max_us={} ", turns.max().unwrap_or_default())?;
        let (workers, by_worker) = (self.counters.len(), by_worker.join(" "));
        let rejects = rejects.join(" ");
        write!(f, "workers={workers} requests_by_worker=[{by_worker}] rejects=[{rejects}]")
    }
}

//! The host's metrics.
//!
//! Owns one set of counters per worker, which only that worker writes and any thread may read. Each
//! counter is declared once. Counts rejects by index, without knowing what they mean.

mod counter;
mod duration;
mod handler_metrics;

use std::ops::Deref;
use std::sync::Arc;

use crate::status::{MetricValue, Status, metrics};
pub use counter::Counter;
use duration::{Durations, empty_histogram};
use handler_metrics::HandlerMetrics;
pub use handler_metrics::{HandlerCounters, HandlerRegistration};

/// Declares the counters of a worker: name, kind, unit, how the workers' numbers are combined, and
/// a help text. They are shown in this order.
macro_rules! counters {
    ($($name:ident: $kind:ident, $unit:literal, $all:ident, $help:literal;)*) => {
        /// One worker's counters, on cache lines of their own.
        #[repr(align(128))]
        pub struct Counters {
            $(#[doc = $help] pub $name: Counter,)*
            /// The number of the last status request that this worker has answered.
            pub published: Counter,
            /// Events by their reason.
            pub reasons: Reasons,
            /// Time from the end of a request's head to the beginning of its answer.
            pub durations: Durations,
            rejects: Box<[Counter]>,
        }

        impl Counters {
            fn new(rejects: usize) -> Self {
                Counters {
                    $($name: Counter::default(),)*
                    published: Counter::default(),
                    reasons: Reasons::default(),
                    durations: Durations::default(),
                    rejects: (0..rejects).map(|_| Counter::default()).collect(),
                }
            }
        }

        impl Metrics {
            fn put_counters(&self, status: &mut Status) {
                $({
                    metrics! { METRIC = stringify!($name), $kind, $unit, $help; }
                    let all = self.counters.iter().map(|counters| counters.$name.get());
                    status.one(&METRIC, $all(all));
                })*
            }
        }
    };
}

/// Declares groups of counters that count one kind of event by its reason.
macro_rules! reasons {
    ($($group:ident: $type:ident, $unit:literal, $help:literal {
        $($name:ident: $what:literal,)*
    })*) => {
        $(
            #[doc = $help]
            #[derive(Default)]
            pub struct $type {
                $(#[doc = $what] pub $name: Counter,)*
            }
        )*

        /// A worker's events by their reason.
        #[derive(Default)]
        pub struct Reasons {
            $(#[doc = $help] pub $group: $type,)*
        }

        impl Metrics {
            fn put_reasons(&self, status: &mut Status) {
                $({
                    metrics! { METRIC = stringify!($group), Counter, $unit, $help; }
                    let counts = vec![$((
                        stringify!($name),
                        sum(self.all().map(|it| it.reasons.$group.$name.get())),
                    ),)*];
                    status.put(&METRIC, MetricValue::ByReason(counts));
                })*
            }
        }
    };
}

reasons! {
    calls: CallReasons, "calls", "Calls of guests, by where they have run." {
        fast: "Begun on their worker's thread.",
        moved: "Of these, gone on in the slow lane, as they had used up their quantum.",
        slow: "Begun in the slow lane: their handler's calls are long, or its owner's first ones.",
        queued: "Waited because too many long calls of the handler were running.",
        handed: "Begun on another worker than that of their connection, as that had no permit.",
        turns: "Waited for their turn on their worker's thread, as their handler is heavy, or new.",
    }
    instances: InstanceReasons, "instances", "Instances, by what has become of them." {
        made: "Made.",
        reset: "Put back into the state in which they were made.",
        reused: "Kept as they were, for another request.",
        evicted: "Dropped for those of a handler that is asked for more.",
        retired: "Dropped because a newer version is served, or none.",
        relieved: "Dropped because memory or instance slots were short.",
        spent: "Dropped because they had had their requests, or had grown too much.",
        idle: "Dropped because they had had no request for a while, though they can have several.",
        given_up: "Dropped because a request was given up that the guest may still have been at.",
        unwanted: "Not kept, because other handlers are asked for more.",
    }
}

counters! {
    requests: Counter, "requests", sum, "Requests that have come.";
    in_flight: Gauge, "requests", sum, "Requests that are being served.";
    connections: Gauge, "connections", sum, "Connections of clients.";
    connections_parked: Gauge, "connections", sum,
        "Those of them that are idle and hold nothing but their sockets.";
    connections_refused: Counter, "connections", sum,
        "Connections refused because there were as many as the limit allows.";
    instances_ready: Gauge, "instances", sum, "Instances that wait for a request.";
    instances_out: Gauge, "instances", sum, "Instances that have one.";
    turn_max_us: Gauge, "microseconds", most,
        "The most CPU time that one task of a worker has had in one piece.";
}

metrics! {
    WORKERS = "workers", Gauge, "threads", "Threads that serve.";
    REQUESTS_BY_WORKER = "requests_by_worker", Counter, "requests",
        "Requests that have come to each worker.";
    DURATION = "request_duration", Histogram, "microseconds",
        "Time from the end of a request's head to the beginning of its answer.";
    REJECTS = "rejects", Counter, "requests",
        "Requests that the host has answered itself, by the reason.";
}

fn sum(all: impl Iterator<Item = u64>) -> u64 {
    all.sum()
}

fn most(all: impl Iterator<Item = u64>) -> u64 {
    all.max().unwrap_or_default()
}

impl Counters {
    /// Counts a reject by its index in the list of names.
    pub fn reject(&self, index: usize) {
        self.rejects[index].add(1);
    }
}

/// A handle to one worker's counters.
#[derive(Clone)]
pub struct WorkerCounters {
    metrics: Metrics,
    index: usize,
}

impl Deref for WorkerCounters {
    type Target = Counters;

    fn deref(&self) -> &Counters {
        self.metrics.worker(self.index)
    }
}

/// The counters of all workers.
#[derive(Clone)]
pub struct Metrics {
    counters: Arc<[Counters]>,
    handlers: Arc<HandlerMetrics>,
    reject_names: &'static [&'static str],
}

impl Metrics {
    /// Counters that start at zero, for this many workers and these rejects.
    pub fn new(workers: usize, reject_names: &'static [&'static str]) -> Self {
        let counters = (0..workers).map(|_| Counters::new(reject_names.len())).collect();
        Metrics { counters, handlers: Arc::default(), reject_names }
    }

    /// The counters of worker `index`.
    pub fn worker(&self, index: usize) -> &Counters {
        &self.counters[index]
    }

    /// An owned handle to the counters of worker `index`.
    pub fn of_worker(&self, index: usize) -> WorkerCounters {
        WorkerCounters { metrics: self.clone(), index }
    }

    /// Registers the counters that a worker has begun for a handler.
    pub fn register_handler(&self, begun: HandlerRegistration) {
        self.handlers.begin(begun);
    }

    /// The counters of every worker.
    pub fn all(&self) -> impl Iterator<Item = &Counters> {
        self.counters.iter()
    }

    /// Adds the metrics of all workers to `status`, without those of single handlers.
    pub fn put(&self, status: &mut Status) {
        self.put_counters(status);
        status.one(&WORKERS, self.counters.len() as u64);
        let by_worker = self.counters.iter().map(|counters| counters.requests.get());
        status.put(&REQUESTS_BY_WORKER, MetricValue::ByWorker(by_worker.collect()));
        let count = |index: usize| sum(self.all().map(|counters| counters.rejects[index].get()));
        let rejects = self.reject_names.iter().enumerate().map(|(at, name)| (*name, count(at)));
        let rejects = rejects.filter(|(_, count)| *count > 0).collect();
        status.put(&REJECTS, MetricValue::ByReason(rejects));
        self.put_reasons(status);
        let mut durations = empty_histogram();
        self.all().for_each(|counters| counters.durations.add_to(&mut durations));
        status.put(&DURATION, MetricValue::Histogram(durations));
    }

    /// Drops the counters of handlers that are gone.
    pub fn sweep_handlers(&self) {
        self.handlers.sweep();
    }

    /// Adds the metrics of each handler to `status`.
    pub fn put_handlers(&self, status: &mut Status) {
        self.handlers.put(status);
    }
}

//! What one thread of the generator counts, and the sum of several.
//!
//! Owns the resolution of latencies. Knows no socket and no server.

use std::time::Duration;

use hdrhistogram::Histogram;

use super::reading::{Errors, Examples};

/// The longest latency that is told apart, in nanoseconds; longer ones count as this.
const LATENCY_NS_MAX: u64 = 3_600_000_000_000;
/// Significant digits of a latency: an error of at most 0.1 %.
const LATENCY_DIGITS: u8 = 3;

/// An empty histogram of nanoseconds, for any thread's latencies: all can be added up.
pub fn histogram() -> Histogram<u64> {
    Histogram::new_with_bounds(1, LATENCY_NS_MAX, LATENCY_DIGITS)
        .expect("the bounds are in order and the digits at most five")
}

/// What part of the requests that are due has to be sent; below that, a run is saturated. The rest
/// is for those due just before the end, when the generator is not awake yet.
pub const RATE_REACHED_MIN: f64 = 0.99;

/// Counts of one measurement.
pub struct LoadStats {
    /// Of every good answer, in nanoseconds from when its request was due.
    pub latency: Histogram<u64>,
    /// Requests that were due before the end. In a closed loop, those that were sent.
    pub due: u64,
    /// Requests that were written, at least in part, before the end.
    pub sent: u64,
    /// Answers with an expected status.
    pub answered: u64,
    /// Those of them which came before the end.
    pub answered_in_time: u64,
    /// Bytes of answers that came before the end, heads and all.
    pub bytes: u64,
    pub errors: Errors,
    pub examples: Examples,
    /// How long requests were sent.
    pub elapsed: Duration,
    /// What the generator's thread took of its CPU.
    pub client_cpu: Duration,
}

impl LoadStats {
    pub fn new() -> Self {
        Self {
            latency: histogram(),
            due: 0,
            sent: 0,
            answered: 0,
            answered_in_time: 0,
            bytes: 0,
            errors: Errors::default(),
            examples: Examples::default(),
            elapsed: Duration::ZERO,
            client_cpu: Duration::ZERO,
        }
    }

    /// `count` good answers after `latency_ns` each.
    pub fn answers(&mut self, latency_ns: u64, count: u64) {
        self.answered += count;
        self.latency.saturating_record_n(latency_ns.max(1), count);
    }

    /// What part of the requests that were due has been sent.
    pub fn rate_reached(&self) -> f64 {
        self.sent as f64 / self.due.max(1) as f64
    }

    pub fn add(&mut self, other: &Self) {
        self.latency.add(&other.latency).expect("all have the same bounds");
        self.due += other.due;
        self.sent += other.sent;
        self.answered += other.answered;
        self.answered_in_time += other.answered_in_time;
        self.bytes += other.bytes;
        self.errors.add(&other.errors);
        self.examples.add(&other.examples);
        // All threads send at the same time.
        self.elapsed = self.elapsed.max(other.elapsed);
        self.client_cpu += other.client_cpu;
    }
}

impl Default for LoadStats {
    fn default() -> Self {
        Self::new()
    }
}

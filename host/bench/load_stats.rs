//! The counts of one generator thread, and their sum over several threads.
//!
//! Owns the resolution of latencies. Knows no socket and no server.

use std::time::Duration;

use hdrhistogram::Histogram;

use super::reading::{Errors, Examples};

/// The longest latency that a histogram can hold, in nanoseconds. Longer ones count as this.
const LATENCY_NS_MAX: u64 = 3_600_000_000_000;
/// Significant digits of a latency: an error of at most 0.1 %.
const LATENCY_DIGITS: u8 = 3;

/// An empty histogram of nanoseconds. The histograms of all threads can be added up.
pub fn histogram() -> Histogram<u64> {
    Histogram::new_with_bounds(1, LATENCY_NS_MAX, LATENCY_DIGITS)
        .expect("the bounds are in order and the digits at most five")
}

/// If a smaller part of the due requests is sent, a run is saturated. The part is less than 1
/// because the generator may be asleep when the last requests become due.
pub const RATE_REACHED_MIN: f64 = 0.99;

/// Counts of one measurement.
pub struct LoadStats {
    /// The latency of every good answer, in nanoseconds from when its request was due.
    pub latency: Histogram<u64>,
    /// Requests that were due before the end. In a closed loop, these are the requests sent.
    pub due: u64,
    /// Requests that were written, at least in part, before the end.
    pub sent: u64,
    /// Good answers: their status is as expected, and their body is right if bodies are checked.
    pub answered: u64,
    /// Good answers that came before the end.
    pub answered_in_time: u64,
    /// Bytes of answers that came before the end, heads included.
    pub bytes: u64,
    /// Failed requests, by kind.
    pub errors: Errors,
    /// The first failure of each kind.
    pub examples: Examples,
    /// How long requests were sent.
    pub elapsed: Duration,
    /// CPU time of the generator's threads.
    pub client_cpu: Duration,
}

impl LoadStats {
    /// Counts at zero.
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

    /// Counts `count` good answers that took `latency_ns` each.
    pub fn answers(&mut self, latency_ns: u64, count: u64) {
        self.answered += count;
        self.latency.saturating_record_n(latency_ns.max(1), count);
    }

    /// The part of the due requests that was sent, from 0 to 1.
    pub fn rate_reached(&self) -> f64 {
        self.sent as f64 / self.due.max(1) as f64
    }

    /// Adds the counts of another thread, which sent at the same time.
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

//! Measures what a server does with more requests than it has time for.
//!
//! A closed loop finds the capacity. Then a load far below the capacity shows the latency of an
//! unloaded server. Then the generator offers a multiple of the capacity on the stream's own
//! connections, whether or not answers come. The server may refuse requests that it has no time
//! for: under this overload, answers with an unexpected status count as refused and not as failed.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::{Context as _, bail};
use hdrhistogram::Histogram;

use super::load_run::reading;
use super::load_stats::{LoadStats, RATE_REACHED_MIN};
use super::reading::{Quantity, Reading};
use super::stream;
use super::suite::{Overload, Side, Stream};
use super::target::Target;

/// Measures with the first stream of the side. Blocks for some multiple of `duration`, and ends
/// early once `stop` is set. Returns the reading, and the latencies of good answers under overload.
///
/// # Errors
/// The side has no stream, or no connection can be made.
pub fn measure(
    side: &Side,
    target: &Target,
    overload: &Overload,
    duration: Duration,
    seed: u64,
    stop: &AtomicBool,
) -> anyhow::Result<(Reading, Histogram<u64>)> {
    let stream = side.streams.first().context("an overload needs requests")?;
    let run = |stream: Stream, duration| -> anyhow::Result<LoadStats> {
        let streams = [stream];
        let done = stream::run(&streams, &target.destination, duration, &[], seed, stop, || ())?;
        // What was ended before its time says nothing of the server.
        if stop.load(Ordering::Relaxed) {
            bail!("interrupted");
        }
        done.0.into_iter().next().context("a stream has counts")
    };
    let mut closed = stream.clone();
    closed.load.rate = None;
    closed.load.connections = overload.capacity_connections;
    let closed = run(closed, duration)?;
    let per_s =
        |stats: &LoadStats| stats.answered_in_time as f64 / stats.elapsed.as_secs_f64().max(1e-9);
    let capacity = per_s(&closed);
    let at = |part: f64| {
        let mut open = stream.clone();
        open.load.rate = Some((capacity * part).max(1.0));
        open
    };
    let unloaded = run(at(overload.unloaded), duration)?;
    let offered = at(overload.times);
    let mut over = run(offered.clone(), duration.mul_f64(overload.longer))?;
    let refused = std::mem::take(&mut over.errors.status);
    over.examples.forget("status");
    let mut reading = reading(&offered, &over);
    reading.counts.insert("refused".to_owned(), refused as f64);
    for stats in [&closed, &unloaded] {
        reading.errors.add(&stats.errors);
        reading.examples.add(&stats.examples);
    }
    let p99_us = |stats: &LoadStats| stats.latency.value_at_quantile(0.99) as f64 / 1e3;
    // Requests that were not sent have no latency, so then the figures would mean nothing.
    if over.rate_reached() >= RATE_REACHED_MIN && capacity > 0.0 {
        reading.values.insert(Quantity::GoodputOfCapacity, per_s(&over) / capacity);
        if ![&over, &unloaded].iter().any(|it| it.latency.is_empty()) {
            let p99 = p99_us(&over) / p99_us(&unloaded).max(1e-3);
            reading.values.insert(Quantity::P99ToUnloaded, p99);
        }
    }
    Ok((reading, over.latency))
}

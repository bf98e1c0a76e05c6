//! What a server does with more requests than it has time for.
//!
//! First the capacity is found by a closed loop; then the latency far below it; then a multiple of
//! the capacity is offered, on the stream's own connections and whether or not answers come. A
//! server may refuse what it has no time for: answers with an unexpected status are counted, and
//! are no failures here.

use std::sync::atomic::AtomicBool;
use std::time::Duration;

use anyhow::Context as _;
use hdrhistogram::Histogram;

use super::load_stats::{LoadStats, RATE_REACHED_MIN};
use super::reading::{Quantity, Reading};
use super::stream;
use super::suite::{Overload, Side, Stream};
use super::target::Target;

/// The first stream's requests, offered in three ways.
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
    let mut over = run(at(overload.times), duration.mul_f64(overload.longer))?;
    let mut reading = Reading::default();
    for stats in [&closed, &unloaded] {
        reading.errors.add(&stats.errors);
        reading.examples.add(&stats.examples);
    }
    reading.counts.insert("refused".to_owned(), over.errors.status as f64);
    over.errors.status = 0;
    reading.errors.add(&over.errors);
    let is_offered = over.rate_reached() >= RATE_REACHED_MIN;
    reading.examples.add(&over.examples);
    let p99_us = |stats: &LoadStats| stats.latency.value_at_quantile(0.99) as f64 / 1e3;
    let values = &mut reading.values;
    values.insert(Quantity::ReqPerS, per_s(&over));
    values.insert(Quantity::RateReached, over.rate_reached());
    values.insert(Quantity::P50Us, over.latency.value_at_quantile(0.5) as f64 / 1e3);
    values.insert(Quantity::P99Us, p99_us(&over));
    values.insert(Quantity::MaxUs, over.latency.max() as f64 / 1e3);
    // What was not sent has no latency.
    if is_offered && capacity > 0.0 {
        values.insert(Quantity::GoodputOfCapacity, per_s(&over) / capacity);
        values.insert(Quantity::P99ToUnloaded, p99_us(&over) / p99_us(&unloaded).max(1e-3));
    }
    Ok((reading, over.latency))
}

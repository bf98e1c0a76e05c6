//! Finds the highest load at which short requests stay short beside long ones.
//!
//! *Slowdown* is a request's latency divided by the time that its kind takes on an idle server. The
//! literature on scheduling compares servers by the tail of the slowdown over all kinds together
//! (Shinjuku, NSDI 2019; LibPreemptible, HPCA 2024). The measurement first times every kind alone
//! and finds the capacity with a closed loop. Then it offers rising parts of the capacity, with
//! independent arrivals. It offers a low load for longer than a high one, so that every tail is
//! made of as many requests.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::{Context as _, bail};
use hdrhistogram::Histogram;

use super::load::Arrivals;
use super::load_stats::{LoadStats, RATE_REACHED_MIN, histogram};
use super::reading::{Errors, Examples, Quantity, Reading};
use super::stream;
use super::suite::{Curve, Side, Stream};
use super::target::Target;

/// The histogram's value for a slowdown of 1. It leaves three digits behind the point.
const SLOWDOWN_ONE: f64 = 1000.0;
/// The part of `duration` for which each kind is timed alone.
const ALONE_PART: f64 = 0.25;
/// The most times `duration` that a low load may take.
const LONGER_MAX: f64 = 10.0;

/// Measures with the first stream of the side. Each of its different paths is a kind, whose share
/// of the requests is how often the path is listed. Blocks for a multiple of `duration`, or until
/// `stop` is set. Returns the reading, and the latencies at the highest load that kept
/// the slowdown bounded.
///
/// # Errors
/// The side has no stream, no connection can be made, or `stop` is set before the end.
pub fn measure(
    side: &Side,
    target: &Target,
    curve: &Curve,
    duration: Duration,
    seed: u64,
    stop: &AtomicBool,
) -> anyhow::Result<(Reading, Histogram<u64>)> {
    let run = |streams: &[Stream], duration| -> anyhow::Result<Vec<LoadStats>> {
        let done = stream::run(streams, &target.destination, duration, &[], seed, stop, || ())?.0;
        // What was ended before its time says nothing of the server.
        if stop.load(Ordering::Relaxed) {
            bail!("interrupted");
        }
        Ok(done)
    };
    let mix = closed(side.streams.first().context("a curve needs requests")?);
    let kinds = kinds(&mix);
    let (mut errors, mut examples) = (Errors::default(), Examples::default());
    let mut alone_ns = Vec::new();
    for (kind, _) in &kinds {
        let mut alone = kind.clone();
        alone.load.connections = 1;
        let tally = &run(&[alone], duration.mul_f64(ALONE_PART))?[0];
        errors.add(&tally.errors);
        examples.add(&tally.examples);
        alone_ns.push(tally.latency.mean().max(1.0));
    }
    let tally = &run(&[mix], duration)?[0];
    errors.add(&tally.errors);
    examples.add(&tally.examples);
    let capacity = tally.answered_in_time as f64 / tally.elapsed.as_secs_f64().max(1e-9);
    let (mut at_best, mut best) = (histogram(), 0.0);
    let highest = curve.loads.last().copied().unwrap_or(1.0);
    for load in &curve.loads {
        let at_rate = |(kind, share): &(Stream, f64)| at_rate(kind, capacity * load * share);
        let streams: Vec<Stream> = kinds.iter().map(at_rate).collect();
        let longer = (highest / load).min(LONGER_MAX);
        let tallies = run(&streams, duration.mul_f64(longer))?;
        let mut all = LoadStats::new();
        tallies.iter().for_each(|tally| all.add(tally));
        errors.add(&all.errors);
        examples.add(&all.examples);
        let slowdown = slowdown(&tallies, &alone_ns).value_at_quantile(curve.quantile);
        let is_bounded = slowdown as f64 / SLOWDOWN_ONE <= curve.slowdown_max;
        // Requests that were not sent have no latency.
        let is_offered = all.rate_reached() >= RATE_REACHED_MIN;
        if !is_bounded || !is_offered {
            break;
        }
        (at_best, best) = (all.latency, *load);
    }
    let mut reading = Reading { errors, examples, ..Reading::default() };
    reading.values.insert(Quantity::LoadMaxPerS, capacity * best);
    reading.values.insert(Quantity::LoadMaxOfCapacity, best);
    Ok((reading, at_best))
}

/// The same requests in a closed loop: each connection sends one once its last is answered.
fn closed(stream: &Stream) -> Stream {
    let mut stream = stream.clone();
    stream.load.rate = None;
    stream.load.threads = 1;
    stream.load.pipeline = 1;
    stream
}

/// A stream for each of the different paths, and its share of all requests.
fn kinds(mix: &Stream) -> Vec<(Stream, f64)> {
    let paths = &mix.request.paths;
    let mut kinds: Vec<(Stream, f64)> = Vec::new();
    for path in paths {
        let share = 1.0 / paths.len() as f64;
        match kinds.iter_mut().find(|(kind, _)| kind.request.paths[0] == *path) {
            Some((_, sum)) => *sum += share,
            None => {
                let mut kind = mix.clone();
                kind.request.paths = vec![path.clone()];
                kinds.push((kind, share));
            }
        }
    }
    kinds
}

/// The kind at a rate, with independent arrivals, which make a queue even below the capacity.
fn at_rate(kind: &Stream, rate: f64) -> Stream {
    let mut kind = kind.clone();
    kind.load.rate = Some(rate);
    kind.load.arrivals = Arrivals::Poisson;
    kind
}

/// The slowdowns of all requests, in thousandths.
fn slowdown(tallies: &[LoadStats], alone_ns: &[f64]) -> Histogram<u64> {
    let mut all = histogram();
    for (tally, alone_ns) in tallies.iter().zip(alone_ns) {
        for value in tally.latency.iter_recorded() {
            let slowdown = value.value_iterated_to() as f64 / alone_ns * SLOWDOWN_ONE;
            all.saturating_record_n(slowdown as u64, value.count_at_value());
        }
    }
    all
}

//! Measures one side under its load, once: its streams, and the swaps or the program beside them.
//!
//! Also reads the server's CPU time, memory and counters. Knows no rounds.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use super::along::Running;
use super::bodies;
use super::load::Bodies;
use super::load_stats::LoadStats;
use super::process::{Meter, Server, Usage};
use super::published_versions::PublishedVersions;
use super::reading::{Quantity, Reading, SideReadings};
use super::stream;
use super::suite::{Pace, Side, Stream};
use super::swap::{self, Swapper};
use super::target::Target;

/// With fewer answers, the 99.999th percentile would be a single answer, or none.
const ANSWERS_FOR_FIFTH_NINE: u64 = 100_000;

/// Runs the side's streams for `duration`, and ends early once `stop` is set. Returns the reading
/// and the latencies of each stream. The first stream's reading also has the memory, the swaps and
/// the counters, and the CPU time if there is only one stream.
///
/// # Errors
/// No connection can be made, a swap or a check fails, the program beside the side fails, or the
/// server ends.
pub fn load(
    side: &Side,
    target: &Target,
    duration: Duration,
    seed: u64,
    stop: &AtomicBool,
) -> anyhow::Result<SideReadings> {
    let first = &side.streams[0];
    let mut swapped = Reading::default();
    let published = match &side.swaps {
        Some(versions)
            if versions.pace == Pace::Seen || first.request.bodies == Bodies::AsBefore =>
        {
            let hashes = swap::learn(versions, target, first, &mut swapped, stop)?;
            Some(Arc::new(PublishedVersions::new(hashes)))
        }
        _ => None,
    };
    let checks = side.streams.iter();
    let checks = checks.enumerate().map(|(number, stream)| {
        // The file that is swapped answers one path.
        let is_swapped = number == 0 && stream.request.paths.len() == 1;
        let versions = published.as_ref().filter(|_| is_swapped);
        bodies::check_of(stream, &target.destination, versions, stop)
    });
    let checks = checks.collect::<anyhow::Result<Vec<_>>>()?;
    let along = side.along.as_ref().map(|along| Running::start(along, target, stop));
    let mut along = along.transpose()?;
    let swapper = side.swaps.as_ref().map(|it| Swapper::start(it, target, first, published));
    let swaps = || swapper.as_ref().map_or(0, Swapper::swaps);
    let begins = || (swaps(), target.pid.map(Meter::start).transpose());
    let run =
        stream::run(&side.streams, &target.destination, duration, &checks, seed, stop, begins);
    let swaps = swaps();
    // Before the last version is waited for, which is no part of the load.
    let run = run.and_then(|(tallies, (swaps_before, meter))| {
        let usage = meter?.map(|meter| meter.stop()).transpose()?;
        Ok((tallies, swaps_before, usage))
    });
    // End the swaps even if the load has failed.
    let is_over = || stop.load(Ordering::Relaxed) || target.server.is_some_and(Server::has_ended);
    let swapper = swapper.map(|it| it.stop(is_over)).transpose();
    let (tallies, swaps_before, usage) = run?;
    if let Some(along) = &mut along {
        along.check()?;
    }
    drop(along);
    let mut readings: SideReadings = Vec::new();
    for (stream, tally) in side.streams.iter().zip(tallies) {
        readings.push((reading(stream, &tally), tally.latency));
    }
    let (first, latency) = &mut readings[0];
    if let Some(later) = swapper? {
        // Those of the warm-up do not count.
        first.counts.insert("swaps".to_owned(), (swaps - swaps_before) as f64);
        swapped.add_failures(&later);
        first.add_failures(&swapped);
    }
    // A server has no time to tell them once the user has interrupted all this.
    if let Some(server) = target.server.filter(|_| !stop.load(Ordering::Relaxed)) {
        first.counts.extend(server.counters(stop)?);
    }
    if let Some(usage) = usage {
        // With several streams, nobody knows how much CPU time each of them took.
        let answers = if side.streams.len() == 1 { latency.len() } else { 0 };
        add_usage(first, &usage, target, answers);
    }
    Ok(readings)
}

/// Adds the memory of the server, and its CPU time for each of the answers, if there are any.
fn add_usage(reading: &mut Reading, usage: &Usage, target: &Target, answers: u64) {
    let values = &mut reading.values;
    values.insert(Quantity::RssPeakBytes, usage.rss_peak_bytes as f64);
    // Of a server that is this program's, above what it had before anybody asked it for anything.
    let before = target.server.map_or(usage.rss_before_bytes, Server::rss_ready_bytes);
    let growth = usage.rss_peak_bytes as f64 - before as f64;
    values.insert(Quantity::RssGrowthBytes, growth);
    if answers > 0 {
        let us_per_req = |time: Duration| time.as_secs_f64() * 1e6 / answers as f64;
        values.insert(Quantity::CpuUsPerReq, us_per_req(usage.user + usage.kernel));
        values.insert(Quantity::CpuUserUsPerReq, us_per_req(usage.user));
        values.insert(Quantity::CpuKernelUsPerReq, us_per_req(usage.kernel));
    }
}

/// Makes a reading of the counts of one stream.
pub fn reading(stream: &Stream, tally: &LoadStats) -> Reading {
    let mut reading =
        Reading { errors: tally.errors, examples: tally.examples.clone(), ..Reading::default() };
    reading.counts.insert("answers".to_owned(), tally.answered as f64);
    let values = &mut reading.values;
    let seconds = tally.elapsed.as_secs_f64().max(1e-9);
    values.insert(Quantity::ReqPerS, tally.answered_in_time as f64 / seconds);
    values.insert(Quantity::MbPerS, tally.bytes as f64 / 1e6 / seconds);
    if stream.load.rate.is_some() {
        values.insert(Quantity::RateReached, tally.rate_reached());
    }
    if tally.latency.is_empty() {
        return reading;
    }
    let client_us = tally.client_cpu.as_secs_f64() * 1e6 / tally.latency.len() as f64;
    values.insert(Quantity::ClientCpuUsPerReq, client_us);
    let us = |quantile: f64| tally.latency.value_at_quantile(quantile) as f64 / 1e3;
    values.insert(Quantity::P50Us, us(0.5));
    values.insert(Quantity::P90Us, us(0.9));
    values.insert(Quantity::P99Us, us(0.99));
    values.insert(Quantity::P999Us, us(0.999));
    values.insert(Quantity::P9999Us, us(0.9999));
    if tally.answered >= ANSWERS_FOR_FIFTH_NINE {
        values.insert(Quantity::P99999Us, us(0.99999));
    }
    values.insert(Quantity::MaxUs, tally.latency.max() as f64 / 1e3);
    reading
}

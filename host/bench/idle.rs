//! Measures how much memory a connection costs the server while nothing happens on it.
//!
//! Reads the memory three times, each time once it has stopped changing: without connections, with
//! connections that were never used, and after one request on each of them.

use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};

use super::probe::Probe;
use super::process::rss_now_bytes;
use super::reading::{Quantity, Reading};
use super::response::is_expected;
use super::suite::Side;
use super::target::Target;

/// Requests before the first reading. The server grows its pools for them, so that the growth does
/// not count for the connections.
const REQUESTS_BEFORE: usize = 1000;
/// If memory still changes after so many times `at_rest`, its last reading counts.
const AT_REST_TRIES: u32 = 25;
/// Pause between two looks at whether to stop.
const LOOK_EVERY: Duration = Duration::from_millis(50);

/// Opens the first stream's connections, and uses each of them once. `at_rest` is how long memory
/// has to stay the same before it is read. Blocks until all is read.
///
/// # Errors
/// The side has no stream, the server's process is not known, a connection cannot be opened, or an
/// answer is missing or has an unexpected status.
pub fn measure(
    side: &Side,
    target: &Target,
    at_rest: Duration,
    stop: &AtomicBool,
) -> anyhow::Result<Reading> {
    let stream = side.streams.first().context("idle connections need a request")?;
    let pid = target.pid.context("memory can be read of a known process only: name it by --pid")?;
    let (count, timeout) = (stream.load.connections, stream.load.timeout);
    let connect = || Probe::connect(&target.destination, timeout, stop);
    let mut first = connect()?;
    for _ in 0..REQUESTS_BEFORE.min(10 * count) {
        first.ask(&stream.request)?;
    }
    drop(first);
    let before = rss_at_rest(pid, at_rest, stop)?;
    let mut probes = Vec::with_capacity(count);
    for number in 1..=count {
        probes.push(connect().with_context(|| format!("connection {number} of {count}"))?);
    }
    let never_used = rss_at_rest(pid, at_rest, stop)?;
    for (number, probe) in probes.iter_mut().enumerate() {
        let answered = probe.ask(&stream.request);
        let answered = answered.with_context(|| format!("connection {} of {count}", number + 1))?;
        if !is_expected(stream.request.status, answered.status) {
            bail!("connection {} of {count}: status {}", number + 1, answered.status);
        }
    }
    let used_once = rss_at_rest(pid, at_rest, stop)?;
    let per_connection = |after: u64| (after as f64 - before as f64) / count as f64;
    let mut reading = Reading::default();
    reading.values.insert(Quantity::NeverUsedBytes, per_connection(never_used));
    reading.values.insert(Quantity::UsedOnceBytes, per_connection(used_once));
    Ok(reading)
}

/// Resident memory in bytes, once it has stayed the same for `at_rest`.
fn rss_at_rest(pid: u32, at_rest: Duration, stop: &AtomicBool) -> anyhow::Result<u64> {
    let began = Instant::now();
    let mut last = rss_now_bytes(pid)?;
    while began.elapsed() < at_rest * AT_REST_TRIES {
        let until = Instant::now() + at_rest;
        while Instant::now() < until {
            if stop.load(Ordering::Relaxed) {
                bail!("interrupted");
            }
            let left = until.saturating_duration_since(Instant::now());
            thread::sleep(left.min(LOOK_EVERY));
        }
        let now = rss_now_bytes(pid)?;
        if now == last {
            break;
        }
        last = now;
    }
    Ok(last)
}

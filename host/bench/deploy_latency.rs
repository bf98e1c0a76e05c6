//! Measures how long it takes from a new version of a file to its first answer.
//!
//! The server serves the first version at the beginning, and the second one at the end.

use std::sync::atomic::AtomicBool;
use std::time::Instant;

use anyhow::{Context as _, bail};

use super::probe;
use super::reading::{Quantity, Reading};
use super::suite::{Side, Versions};
use super::swap::{SERVED_WITHIN, failures, replace_file, target_path};
use super::target::Target;

/// Puts the second version over the first, and asks until the answer has another body. Requests
/// that fail meanwhile are errors. Blocks for at most [`SERVED_WITHIN`].
///
/// # Errors
/// The side has no stream, the file cannot be replaced, or the new version is not served in time.
pub fn measure(
    side: &Side,
    target: &Target,
    versions: &Versions,
    stop: &AtomicBool,
) -> anyhow::Result<Reading> {
    let path = target_path(versions, target);
    let stream = side.streams.first().context("a drop needs a request")?;
    let (request, to) = (&stream.request, &target.destination);
    let before = probe::ask(to, request, stream.load.timeout, stop)?;
    let version = &versions.versions[1];
    let since = Instant::now();
    replace_file(version, &path, false)?;
    let mut reading = Reading::default();
    let is_new = |answered| {
        let body = probe::expected_body(answered, request, &mut reading);
        body.is_some_and(|body| body != before.body)
    };
    let until = since + SERVED_WITHIN;
    if !probe::ask_until(to, stream, until, stop, is_new) {
        let (version, failures) = (version.path().display(), failures(&reading));
        bail!("{version} is not served after {SERVED_WITHIN:?}{failures}");
    };
    let took = since.elapsed();
    reading.values.insert(Quantity::DropMs, took.as_secs_f64() * 1e3);
    Ok(reading)
}

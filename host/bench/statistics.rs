//! Computes medians, spreads and ratios of rounds, and the curve of a histogram.
//!
//! Owns the name and the format of each quantity. Takes ratios within each round, in which both
//! sides had the same machine, and then their median. Knows nothing of tables and files.

use hdrhistogram::Histogram;

use super::reading::{Errors, Quantity, Reading};
use super::run::Row;

/// The points of a curve in each power of ten of `1/(1-quantile)`. Among them are 50 %, 75 %, 80 %
/// and 90 %, then 95 %, 99 %, 99.5 % and so on.
const CURVE_STEPS: [f64; 10] = [1.0, 1.25, 1.6, 2.0, 2.5, 3.2, 4.0, 5.0, 6.4, 8.0];

/// One quantity over several rounds.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Spread {
    /// The median of the rounds.
    pub median: f64,
    /// The lowest round.
    pub min: f64,
    /// The highest round.
    pub max: f64,
    /// How many rounds have the quantity, at least 1.
    pub rounds: usize,
}

/// The middle value, or the mean of the two in the middle. Values that are not finite are left out.
/// `None` if no value is left.
pub fn median(values: &[f64]) -> Option<f64> {
    let mut values: Vec<f64> = values.iter().copied().filter(|value| value.is_finite()).collect();
    values.sort_by(f64::total_cmp);
    let last = values.len().checked_sub(1)?;
    Some(f64::midpoint(values[last / 2], values[values.len() / 2]))
}

/// The spread of the finite values. `None` if there are none.
pub fn spread(values: impl IntoIterator<Item = f64>) -> Option<Spread> {
    let values: Vec<f64> = values.into_iter().filter(|value| value.is_finite()).collect();
    let min = values.iter().copied().min_by(f64::total_cmp)?;
    let max = values.iter().copied().max_by(f64::total_cmp)?;
    Some(Spread { median: median(&values)?, min, max, rounds: values.len() })
}

/// A quantity over the rounds of a row.
pub fn quantity(row: &Row, quantity: Quantity) -> Option<Spread> {
    spread(row.rounds.iter().filter_map(|reading| reading.values.get(&quantity).copied()))
}

/// A quantity of `row`, divided by that of `to` in each round that both have.
pub fn ratio(row: &Row, to: &Row, which: Quantity) -> Option<Spread> {
    // A row that cannot show the quantity has no ratio, either.
    quantity(row, which).and(quantity(to, which))?;
    let within = |reading: &Reading| {
        let value = reading.values.get(&which)?;
        let base = to.rounds.iter().find(|other| other.round == reading.round)?;
        Some(value / base.values.get(&which)?)
    };
    spread(row.rounds.iter().filter_map(within))
}

/// A quantity of `row`, less that of `to` in each round that both have.
pub fn difference(row: &Row, to: &Row, which: Quantity) -> Option<Spread> {
    let within = |reading: &Reading| {
        let value = reading.values.get(&which)?;
        let base = to.rounds.iter().find(|other| other.round == reading.round)?;
        Some(value - base.values.get(&which)?)
    };
    spread(row.rounds.iter().filter_map(within))
}

/// Errors of all rounds together.
pub fn errors(row: &Row) -> Errors {
    let mut sum = Errors::default();
    for reading in &row.rounds {
        sum.add(&reading.errors);
    }
    sum
}

/// Rising quantiles with their latencies in microseconds. The last is 1, with the maximum. Empty if
/// there are no latencies.
pub fn curve(latency: &Histogram<u64>) -> Vec<(f64, f64)> {
    if latency.is_empty() {
        return Vec::new();
    }
    let samples = latency.len() as f64;
    let decades = (0..=20).map(|power| 10_f64.powi(power));
    let steps = decades.flat_map(|decade| CURVE_STEPS.map(|step| step * decade));
    let quantiles = steps.take_while(|&step| step < samples).map(|step| (step - 1.0) / step);
    let us = |ns: u64| ns as f64 / 1000.0;
    let at = |quantile| (quantile, us(latency.value_at_quantile(quantile)));
    quantiles.map(at).chain([(1.0, us(latency.max()))]).collect()
}

impl Quantity {
    /// In the order of the report.
    pub const ALL: [Self; 24] = [
        Self::ReqPerS,
        Self::P50Us,
        Self::P90Us,
        Self::P99Us,
        Self::P999Us,
        Self::P9999Us,
        Self::P99999Us,
        Self::MaxUs,
        Self::CpuUsPerReq,
        Self::CpuUserUsPerReq,
        Self::CpuKernelUsPerReq,
        Self::ClientCpuUsPerReq,
        Self::RssPeakBytes,
        Self::RssGrowthBytes,
        Self::RateReached,
        Self::NeverUsedBytes,
        Self::UsedOnceBytes,
        Self::StartMs,
        Self::DropMs,
        Self::LoadMaxPerS,
        Self::LoadMaxOfCapacity,
        Self::GoodputOfCapacity,
        Self::P99ToUnloaded,
        Self::MbPerS,
    ];

    /// Whether it is a latency of requests.
    pub fn is_latency(&self) -> bool {
        (Self::P50Us..=Self::MaxUs).contains(self)
    }

    /// The quantity's name in files, with its unit last.
    pub fn key(self) -> &'static str {
        match self {
            Self::ReqPerS => "req_per_s",
            Self::P50Us => "p50_us",
            Self::P90Us => "p90_us",
            Self::P99Us => "p99_us",
            Self::P999Us => "p99_9_us",
            Self::P9999Us => "p99_99_us",
            Self::P99999Us => "p99_999_us",
            Self::MaxUs => "max_us",
            Self::CpuUsPerReq => "cpu_us_per_req",
            Self::CpuUserUsPerReq => "cpu_user_us_per_req",
            Self::CpuKernelUsPerReq => "cpu_kernel_us_per_req",
            Self::ClientCpuUsPerReq => "client_cpu_us_per_req",
            Self::RssPeakBytes => "rss_peak_bytes",
            Self::RssGrowthBytes => "rss_growth_bytes",
            Self::GoodputOfCapacity => "goodput_of_capacity",
            Self::P99ToUnloaded => "p99_to_unloaded",
            Self::RateReached => "rate_reached",
            Self::NeverUsedBytes => "never_used_bytes",
            Self::UsedOnceBytes => "used_once_bytes",
            Self::StartMs => "start_ms",
            Self::DropMs => "drop_ms",
            Self::LoadMaxPerS => "load_max_per_s",
            Self::LoadMaxOfCapacity => "load_max_of_capacity",
            Self::MbPerS => "mb_per_s",
        }
    }

    /// The head of the quantity's column. The word after the last space is the unit.
    pub fn title(self) -> &'static str {
        match self {
            Self::ReqPerS => "req/s",
            Self::P50Us => "p50 µs",
            Self::P90Us => "p90 µs",
            Self::P99Us => "p99 µs",
            Self::P999Us => "p99.9 µs",
            Self::P9999Us => "p99.99 µs",
            Self::P99999Us => "p99.999 µs",
            Self::MaxUs => "max µs",
            Self::CpuUsPerReq => "CPU µs/req",
            Self::CpuUserUsPerReq => "user µs/req",
            Self::CpuKernelUsPerReq => "kernel µs/req",
            Self::ClientCpuUsPerReq => "client µs/req",
            Self::RssPeakBytes => "peak RSS MB",
            Self::RssGrowthBytes => "RSS growth MB",
            Self::GoodputOfCapacity => "goodput %",
            Self::P99ToUnloaded => "p99 to unloaded x",
            Self::RateReached => "of rate %",
            Self::NeverUsedBytes => "unused bytes",
            Self::UsedOnceBytes => "used once bytes",
            Self::StartMs => "start ms",
            Self::DropMs => "drop ms",
            Self::LoadMaxPerS => "load max req/s",
            Self::LoadMaxOfCapacity => "of capacity %",
            Self::MbPerS => "answers MB/s",
        }
    }

    /// A value in the unit of the title, without it.
    pub fn format(self, value: f64) -> String {
        match self {
            Self::RssPeakBytes | Self::RssGrowthBytes => number(value / 1e6),
            // Rounded down, so that a rate just missed does not look as if it was reached.
            Self::RateReached => format!("{:.2}", (value * 1e4 + 1e-6).floor() / 1e2),
            Self::LoadMaxOfCapacity | Self::GoodputOfCapacity => number(value * 100.0),
            Self::NeverUsedBytes | Self::UsedOnceBytes => thousands(value),
            _ => number(value),
        }
    }
}

/// A number with three digits, or with as many as there are before the point.
pub fn number(value: f64) -> String {
    match value.abs() {
        0.0 => "0".to_owned(),
        it if it < 0.0995 => format!("{value:.3}"),
        it if it < 9.995 => format!("{value:.2}"),
        it if it < 99.95 => format!("{value:.1}"),
        _ => thousands(value),
    }
}

/// A number rounded to a whole one, as in `1,234,567`.
pub fn thousands(value: f64) -> String {
    let digits = format!("{:.0}", value.abs());
    let mut text = String::from(if value < -0.5 { "-" } else { "" });
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

#[cfg(test)]
mod tests;

//! The host's metrics at one moment, as plain numbers.
//!
//! This module is a leaf. A module that counts something declares it once as a [`Metric`] and puts
//! its value into a [`Status`] when asked. A log line is one rendering of that.

use std::fmt;

/// Describes one number that the host counts or measures.
#[derive(Debug, PartialEq, Eq)]
pub struct Metric {
    /// The name, in `snake_case`.
    pub name: &'static str,
    /// How the number behaves over time.
    pub kind: MetricKind,
    /// The unit, in plural, such as `requests` or `microseconds`.
    pub unit: &'static str,
    /// One sentence that explains the number.
    pub help: &'static str,
}

/// Declares metrics: what each is called, how it behaves, its unit, and one sentence of help.
macro_rules! metrics {
    ($($name:ident = $text:expr, $kind:ident, $unit:literal, $help:expr;)*) => {
        $(static $name: $crate::status::Metric = $crate::status::Metric {
            name: $text,
            kind: $crate::status::MetricKind::$kind,
            unit: $unit,
            help: $help,
        };)*
    };
}
pub(crate) use metrics;

/// How a number behaves over time.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum MetricKind {
    /// It only grows.
    Counter,
    /// It goes up and down.
    Gauge,
    /// Many measurements, counted by their size.
    Histogram,
}

/// The numbers of one metric.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum MetricValue {
    /// One number for the whole host.
    One(u64),
    /// One number per worker, in the order of the workers.
    ByWorker(Vec<u64>),
    /// One number per reason, from a closed list. Reasons with 0 may be missing.
    ByReason(Vec<(&'static str, u64)>),
    /// One number per handler that has had requests, by the handler's name.
    ByHandler(Vec<(Box<str>, u64)>),
    /// Measurements of the whole host.
    Histogram(Histogram),
    /// Measurements per handler that has had requests, by the handler's name.
    HistogramByHandler(Vec<(Box<str>, Histogram)>),
}

/// Measurements, counted by their size.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Histogram {
    /// Upper bounds of the buckets, inclusive, in the metric's unit, in ascending order.
    pub bounds: &'static [u64],
    /// How many measurements each bucket has. The last bucket has no upper bound, so there is one
    /// more count than bounds.
    pub counts: Vec<u64>,
    /// The sum of all measurements, in the metric's unit.
    pub sum: u64,
}

impl Histogram {
    /// How many measurements there are.
    pub fn count(&self) -> u64 {
        self.counts.iter().sum()
    }

    /// The smallest bound that `per_mille` of a thousand measurements do not exceed. `None` if
    /// there are no measurements, or if the quantile is above all bounds.
    pub fn quantile(&self, per_mille: u64) -> Option<u64> {
        let wanted = (u128::from(self.count()) * u128::from(per_mille)).div_ceil(1000);
        let mut passed = 0;
        let at = self.counts.iter().position(|count| {
            passed += u128::from(*count);
            passed > 0 && passed >= wanted
        });
        self.bounds.get(at?).copied()
    }
}

/// The number of measurements, and bounds of the median and of the 99th percentile.
impl fmt::Display for Histogram {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let count = self.count();
        write!(f, "count:{count}")?;
        for (name, per_mille) in [("p50", 500), ("p99", 990)] {
            match self.quantile(per_mille) {
                Some(bound) => write!(f, " {name}:{bound}")?,
                None if count == 0 => {}
                None => write!(f, " {name}:inf")?,
            }
        }
        Ok(())
    }
}

/// Metrics with their values at one moment, in the order in which they were put in.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Status(Vec<(&'static Metric, MetricValue)>);

impl Status {
    /// Adds a metric with its value.
    pub fn put(&mut self, metric: &'static Metric, value: MetricValue) {
        self.0.push((metric, value));
    }

    /// Adds a metric that is one number.
    pub fn one(&mut self, metric: &'static Metric, number: u64) {
        self.put(metric, MetricValue::One(number));
    }

    /// All metrics with their values.
    pub fn values(&self) -> impl Iterator<Item = (&'static Metric, &MetricValue)> {
        self.0.iter().map(|(metric, value)| (*metric, value))
    }
}

/// How many handlers a log line names: those with the most requests.
const HANDLERS_SHOWN: usize = 8;

/// One line: `requests=12 requests_by_worker=[7 5] rejects=[trap:1]`. It names only the
/// eight handlers with the most requests.
impl fmt::Display for Status {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let shown = self.most_asked();
        for (at, (metric, value)) in self.0.iter().enumerate() {
            let blank = if at == 0 { "" } else { " " };
            match value {
                MetricValue::One(number) => write!(f, "{blank}{}={number}", metric.name)?,
                MetricValue::ByWorker(numbers) => {
                    let numbers: Vec<String> = numbers.iter().map(u64::to_string).collect();
                    write!(f, "{blank}{}=[{}]", metric.name, numbers.join(" "))?;
                }
                MetricValue::ByReason(counts) => {
                    let count = |(name, count): &(&str, u64)| format!("{name}:{count}");
                    let counts: Vec<String> = counts.iter().map(count).collect();
                    write!(f, "{blank}{}=[{}]", metric.name, counts.join(" "))?;
                }
                MetricValue::ByHandler(counts) => {
                    let counts = of(&shown, counts);
                    let count = |(name, count): &(Box<str>, u64)| format!("{name:?}:{count}");
                    let counts: Vec<String> = counts.into_iter().map(count).collect();
                    write!(f, "{blank}{}=[{}]", metric.name, counts.join(" "))?;
                }
                MetricValue::Histogram(histogram) => {
                    write!(f, "{blank}{}=[{histogram}]", metric.name)?;
                }
                MetricValue::HistogramByHandler(histograms) => {
                    let histograms = of(&shown, histograms);
                    let each = |(name, it): &(Box<str>, Histogram)| format!("{name:?}:{{{it}}}");
                    let each: Vec<String> = histograms.into_iter().map(each).collect();
                    write!(f, "{blank}{}=[{}]", metric.name, each.join(" "))?;
                }
            }
        }
        Ok(())
    }
}

impl Status {
    /// The handlers with the highest counts, in the first metric that has counts by handler.
    fn most_asked(&self) -> Vec<&str> {
        let mut by_handler = self.0.iter().filter_map(|(_, value)| match value {
            MetricValue::ByHandler(counts) => Some(counts),
            _ => None,
        });
        let mut all: Vec<_> = by_handler.next().into_iter().flatten().collect();
        all.sort_by_key(|(_, count)| std::cmp::Reverse(*count));
        all.into_iter().take(HANDLERS_SHOWN).map(|(name, _)| &**name).collect()
    }
}

/// The values of these handlers, in the order of `names`.
fn of<'a, T>(names: &[&str], all: &'a [(Box<str>, T)]) -> Vec<&'a (Box<str>, T)> {
    names.iter().filter_map(|name| all.iter().find(|(of, _)| **of == **name)).collect()
}

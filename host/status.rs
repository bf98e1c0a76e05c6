//! What the host can say of itself at one moment, as plain numbers.
//!
//! A leaf: whoever counts something declares it once as a [`Metric`], and puts it here when it is
//! asked. What is made of it, a line of the log say, is a rendering.

use std::fmt;

/// Something that is counted or measured.
#[derive(Debug, PartialEq, Eq)]
pub struct Metric {
    pub name: &'static str,
    pub kind: MetricKind,
    pub unit: &'static str,
    /// One sentence.
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

/// How a number behaves.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum MetricKind {
    /// It only grows.
    Counter,
    /// It is what it is at that moment.
    Gauge,
    /// Measurements, counted by their size.
    Histogram,
}

/// The numbers of one metric.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum MetricValue {
    One(u64),
    /// One for each worker.
    ByWorker(Vec<u64>),
    /// Those of a closed list of reasons that are not 0.
    ByReason(Vec<(&'static str, u64)>),
    /// One for each handler that has been asked, by its name.
    ByHandler(Vec<(Box<str>, u64)>),
    Histogram(Histogram),
    HistogramByHandler(Vec<(Box<str>, Histogram)>),
}

/// Measurements, counted by their size.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Histogram {
    /// The most that each count's measurements have, in the metric's unit, in growing order.
    pub bounds: &'static [u64],
    /// How many there are up to each bound and above the one before, and last how many are above
    /// all.
    pub counts: Vec<u64>,
    /// All of them together, in the metric's unit.
    pub sum: u64,
}

impl Histogram {
    /// How many measurements there are.
    pub fn count(&self) -> u64 {
        self.counts.iter().sum()
    }

    /// A bound that so many of a thousand measurements do not exceed; `None` where there are none,
    /// or where it is above all bounds.
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

/// What a line says of one: how many there are, and bounds that a half and 99 of 100 do not exceed.
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

/// All numbers, in the order in which they were put in.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Status(Vec<(&'static Metric, MetricValue)>);

impl Status {
    /// Adds what comes of one metric.
    pub fn put(&mut self, metric: &'static Metric, value: MetricValue) {
        self.0.push((metric, value));
    }

    /// Adds a number.
    pub fn one(&mut self, metric: &'static Metric, number: u64) {
        self.put(metric, MetricValue::One(number));
    }

    pub fn values(&self) -> impl Iterator<Item = (&'static Metric, &MetricValue)> {
        self.0.iter().map(|(metric, value)| (*metric, value))
    }
}

/// Handlers that a line names: those that have been asked most.
const HANDLERS_SHOWN: usize = 8;

/// One line: `requests=12 requests_by_worker=[7 5] rejects=[trap:1]`. Of many handlers it has those
/// alone that have been asked most.
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
    /// The handlers that have most of the first number that there is by handler.
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

/// What there is of these handlers, in their order.
fn of<'a, T>(names: &[&str], all: &'a [(Box<str>, T)]) -> Vec<&'a (Box<str>, T)> {
    names.iter().filter_map(|name| all.iter().find(|(of, _)| **of == **name)).collect()
}

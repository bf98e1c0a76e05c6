//! What the host can say of itself at one moment, as plain numbers.
//!
//! A leaf: whoever counts something declares it once as a [`Metric`], and puts it here when it is
//! asked. What is made of it, a line of the log say, is a rendering.

use std::fmt;

/// Something that is counted or measured.
#[derive(Debug, PartialEq, Eq)]
pub struct Metric {
    pub name: &'static str,
    pub kind: Kind,
    pub unit: &'static str,
    /// One sentence.
    pub help: &'static str,
}

/// How a number behaves.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Kind {
    /// It only grows.
    Counter,
    /// It is what it is at that moment.
    Gauge,
}

/// The numbers of one metric.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Value {
    One(u64),
    /// One for each worker.
    ByWorker(Vec<u64>),
    /// Those of a closed list of reasons that are not 0.
    ByReason(Vec<(&'static str, u64)>),
}

/// All numbers, in the order in which they were put in.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Status(Vec<(&'static Metric, Value)>);

impl Status {
    /// Adds what comes of one metric.
    pub fn put(&mut self, metric: &'static Metric, value: Value) {
        self.0.push((metric, value));
    }

    /// Adds a number.
    pub fn one(&mut self, metric: &'static Metric, number: u64) {
        self.put(metric, Value::One(number));
    }

    pub fn values(&self) -> impl Iterator<Item = (&'static Metric, &Value)> {
        self.0.iter().map(|(metric, value)| (*metric, value))
    }
}

/// One line: `requests=12 requests_by_worker=[7 5] rejects=[trap:1]`.
impl fmt::Display for Status {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, (metric, value)) in self.0.iter().enumerate() {
            let blank = if at == 0 { "" } else { " " };
            match value {
                Value::One(number) => write!(f, "{blank}{}={number}", metric.name)?,
                Value::ByWorker(numbers) => {
                    let numbers: Vec<String> = numbers.iter().map(u64::to_string).collect();
                    write!(f, "{blank}{}=[{}]", metric.name, numbers.join(" "))?;
                }
                Value::ByReason(counts) => {
                    let count = |(name, count): &(&str, u64)| format!("{name}:{count}");
                    let counts: Vec<String> = counts.iter().map(count).collect();
                    write!(f, "{blank}{}=[{}]", metric.name, counts.join(" "))?;
                }
            }
        }
        Ok(())
    }
}

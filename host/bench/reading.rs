//! The numbers of one stream in one round, and its failures.

use std::collections::BTreeMap;
use std::io::{self, ErrorKind};

use hdrhistogram::Histogram;

/// The numbers of one stream in one round.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Reading {
    /// The number of the round, from 1.
    pub round: u32,
    /// The place of the side in the order of its round, from 1.
    pub position: usize,
    /// The measured quantities. One that was not measured is absent.
    pub values: BTreeMap<Quantity, f64>,
    /// Numbers without a column of their own, by name: `answers`, `swaps`, `refused`, and
    /// `counter_NAME` for each counter of the server.
    pub counts: BTreeMap<String, f64>,
    /// Failed requests, by kind.
    pub errors: Errors,
    /// The first failure of each kind.
    pub examples: Examples,
}

impl Reading {
    /// Counts a failure. `text` describes it if it is the first of its kind.
    pub fn fail(&mut self, failed: Errors, text: String) {
        self.errors.add(&failed);
        if let Some((kind, _)) = failed.kinds().into_iter().find(|(_, count)| *count > 0) {
            self.examples.note(kind, || text);
        }
    }

    /// Adds the failures of another reading, which came later.
    pub fn add_failures(&mut self, later: &Self) {
        self.errors.add(&later.errors);
        self.examples.add(&later.examples);
    }
}

/// A quantity that can be measured. Raw numbers stand in this order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Quantity {
    /// Good answers a second.
    ReqPerS,
    /// The median of latency, in microseconds.
    P50Us,
    /// The 90th percentile of latency, in microseconds.
    P90Us,
    /// The 99th percentile of latency, in microseconds.
    P99Us,
    /// The 99.9th percentile of latency, in microseconds.
    P999Us,
    /// The 99.99th percentile of latency, in microseconds.
    P9999Us,
    /// The 99.999th percentile of latency, in microseconds. It takes 100,000 answers.
    P99999Us,
    /// The longest latency, in microseconds.
    MaxUs,
    /// User and kernel time of the server's processes for each answer, in microseconds.
    CpuUsPerReq,
    /// User time of the server's processes for each answer, in microseconds.
    CpuUserUsPerReq,
    /// Kernel time of the server's processes for each answer, in microseconds.
    CpuKernelUsPerReq,
    /// CPU time of the generator's threads for each answer, in microseconds.
    ClientCpuUsPerReq,
    /// The peak of the server's resident memory in this round, in bytes.
    RssPeakBytes,
    /// How far that peak is above the memory at the beginning of the round, in bytes.
    RssGrowthBytes,
    /// The part of the due requests that was sent, from 0 to 1. Only loads with a rate have it.
    RateReached,
    /// Memory for each connection that was never used, in bytes.
    NeverUsedBytes,
    /// Memory for each connection after one request, in bytes.
    UsedOnceBytes,
    /// Time from the start of the server to its first answer, in milliseconds.
    StartMs,
    /// Time from a new version of a file to its first answer, in milliseconds.
    DropMs,
    /// The highest load with a bounded slowdown, in requests a second.
    LoadMaxPerS,
    /// The same load as a part of the capacity.
    LoadMaxOfCapacity,
    /// Good answers a second of an overloaded server, as a part of its capacity.
    GoodputOfCapacity,
    /// The 99th percentile of latency under overload, divided by that of the unloaded server.
    P99ToUnloaded,
    /// Megabytes (10^6 bytes) of answers a second, heads included.
    MbPerS,
}

/// Failed requests, by kind.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Errors {
    /// Connections that could not be made, or not within the timeout.
    pub connect: u64,
    /// Requests in flight on a connection that broke, was closed, or sent no valid HTTP/1.1.
    pub read: u64,
    /// Requests that could not be sent.
    pub write: u64,
    /// Requests without an answer in time.
    pub timeout: u64,
    /// Answers with an unexpected status.
    pub status: u64,
    /// Answers with a wrong body: between rounds, another one than in the first round; during a
    /// load, one that the request's `bodies` do not allow.
    pub body: u64,
}

/// The first failure of each kind, in words.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Examples(BTreeMap<&'static str, String>);

impl Examples {
    /// Notes a failure if it is the first of its kind.
    pub fn note(&mut self, kind: &'static str, text: impl FnOnce() -> String) {
        self.0.entry(kind).or_insert_with(text);
    }

    /// Adds failures that came later.
    pub fn add(&mut self, later: &Self) {
        for (kind, text) in &later.0 {
            self.note(kind, || text.clone());
        }
    }

    /// Forgets the failure of a kind.
    pub fn forget(&mut self, kind: &'static str) {
        self.0.remove(kind);
    }

    /// Each kind with its first failure.
    pub fn iter(&self) -> impl Iterator<Item = (&'static str, &str)> {
        self.0.iter().map(|(kind, text)| (*kind, text.as_str()))
    }
}

impl Errors {
    /// A single failure: the error of a request that was sent on a connection of its own.
    pub fn of(error: &io::Error) -> Self {
        let mut errors = Self::default();
        match error.kind() {
            ErrorKind::InvalidData | ErrorKind::UnexpectedEof | ErrorKind::ConnectionReset => {
                errors.read = 1;
            }
            ErrorKind::BrokenPipe => errors.write = 1,
            ErrorKind::WouldBlock | ErrorKind::TimedOut => errors.timeout = 1,
            _ => errors.connect = 1,
        }
        errors
    }

    /// Failures of all kinds together.
    pub fn total(&self) -> u64 {
        self.kinds().iter().map(|(_, count)| count).sum()
    }

    /// Each kind with its count, in the order of the report.
    pub fn kinds(&self) -> [(&'static str, u64); 6] {
        [
            ("connect", self.connect),
            ("read", self.read),
            ("write", self.write),
            ("timeout", self.timeout),
            ("status", self.status),
            ("body", self.body),
        ]
    }

    /// Adds the failures of another measurement.
    pub fn add(&mut self, other: &Self) {
        self.connect += other.connect;
        self.read += other.read;
        self.write += other.write;
        self.timeout += other.timeout;
        self.status += other.status;
        self.body += other.body;
    }
}

/// The result of one measurement: a reading and the latencies for each stream of the side.
pub type SideReadings = Vec<(Reading, Histogram<u64>)>;

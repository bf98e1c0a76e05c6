//! The numbers of one side in one round, and what failed meanwhile.

use std::collections::BTreeMap;

/// The numbers of one round.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Reading {
    /// Which round it was, from 1.
    pub round: u32,
    /// At which place in its round the side was visited, from 1.
    pub position: usize,
    pub values: BTreeMap<Quantity, f64>,
    /// Numbers without a column of their own, by name: `answers`, `swaps`, `refused`, and what a
    /// server counts itself.
    pub counts: BTreeMap<String, f64>,
    pub errors: Errors,
    pub examples: Examples,
}

/// What a reading can have. In the order of the report.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Quantity {
    /// Answers with an expected status, a second.
    ReqPerS,
    P50Us,
    P90Us,
    P99Us,
    P999Us,
    P9999Us,
    P99999Us,
    MaxUs,
    /// User and kernel time of the server's processes over answers, in microseconds.
    CpuUsPerReq,
    CpuUserUsPerReq,
    CpuKernelUsPerReq,
    /// CPU time of the generator's threads over answers, in microseconds.
    ClientCpuUsPerReq,
    /// Greatest resident memory of the server's processes in this round.
    RssPeakBytes,
    /// What that memory was above the resident memory at the beginning of the round.
    RssGrowthBytes,
    /// Requests that were sent over requests that were due, at a rate.
    RateReached,
    NeverUsedBytes,
    UsedOnceBytes,
    StartMs,
    DropMs,
    /// The highest load with a bounded slowdown, in requests a second.
    LoadMaxPerS,
    /// The same as a part of what the server can do.
    LoadMaxOfCapacity,
    /// What an overloaded server answered well, over what it can answer.
    GoodputOfCapacity,
    /// The 99th percentile of an overloaded server's latency over that of one with little to do.
    P99ToUnloaded,
    /// Megabytes (10^6) of answers a second, heads and all.
    MbPerS,
}

/// Requests that failed, by kind.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Errors {
    /// Connections that could not be made, or within the timeout not.
    pub connect: u64,
    /// Requests in flight on a connection that broke, was closed, or talked nonsense.
    pub read: u64,
    /// Requests that could not be sent.
    pub write: u64,
    /// Requests without an answer in time.
    pub timeout: u64,
    /// Answers with a status that was not expected.
    pub status: u64,
    /// Answers between rounds with another body than the first one had.
    pub body: u64,
}

/// The first failure of each kind, in words.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Examples(BTreeMap<&'static str, String>);

impl Examples {
    /// Takes note of a failure, if it is the first of its kind.
    pub fn note(&mut self, kind: &'static str, text: impl FnOnce() -> String) {
        self.0.entry(kind).or_insert_with(text);
    }

    /// Adds those of later failures.
    pub fn add(&mut self, later: &Self) {
        for (kind, text) in &later.0 {
            self.note(kind, || text.clone());
        }
    }

    /// Each kind and what was the first of it.
    pub fn iter(&self) -> impl Iterator<Item = (&'static str, &str)> {
        self.0.iter().map(|(kind, text)| (*kind, text.as_str()))
    }
}

impl Errors {
    pub fn total(&self) -> u64 {
        self.kinds().iter().map(|(_, count)| count).sum()
    }

    /// In the order of the report.
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

    pub fn add(&mut self, other: &Self) {
        self.connect += other.connect;
        self.read += other.read;
        self.write += other.write;
        self.timeout += other.timeout;
        self.status += other.status;
        self.body += other.body;
    }
}

//! What came of a suite, down to the rows of its tables.
//!
//! Plain values, which `report.rs` tells of.

use hdrhistogram::Histogram;

use super::reading::Reading;
use super::suite::Skipped;

/// What came of a suite.
#[derive(Clone, Debug)]
pub struct Run {
    pub title: String,
    /// The command line, word by word.
    pub command: Vec<String>,
    pub seed: u64,
    /// UTC, as in `2026-11-20T09:30:00Z`.
    pub started_at: String,
    /// Facts about the machine and the programs, title and text: `CPU`, `Kernel`, `guesthouse`.
    pub about: Vec<(String, String)>,
    pub cases: Vec<CaseRun>,
    pub skipped: Vec<Skipped>,
    /// It was ended before its time; what is here is what there was.
    pub interrupted: bool,
}

impl Run {
    /// Requests that failed, of all kinds, rounds and streams.
    pub fn errors(&self) -> u64 {
        let rows = self.cases.iter().flat_map(|case| &case.rows).filter(|row| !row.may_fail);
        rows.flat_map(|row| &row.rounds).map(|reading| reading.errors.total()).sum()
    }
}

/// What came of a case.
#[derive(Clone, Debug)]
pub struct CaseRun {
    pub name: String,
    /// The settings that all rows share, in words: `50 connections, 10 s`.
    pub settings: String,
    /// One for each stream of each side, in the order of the suite.
    pub rows: Vec<Row>,
}

/// What came of one stream of one side.
#[derive(Clone, Debug)]
pub struct Row {
    /// The side's name, and behind a colon that of a stream which is not its first.
    pub name: String,
    /// Whether it is not the first stream of its side.
    pub beside: bool,
    /// Its failures are counted, and make nothing fail.
    pub may_fail: bool,
    /// One for each round that came to its end, in the order of the rounds.
    pub rounds: Vec<Reading>,
    /// Latencies of all rounds together, in nanoseconds, from when a request was due.
    pub latency: Histogram<u64>,
    /// What the reader has to know of this row: `saturated in 2 rounds`.
    pub notes: Vec<String>,
}

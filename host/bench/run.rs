//! The results of a suite, down to the rows of its tables.
//!
//! Plain values. `report.rs` makes reports of them.

use hdrhistogram::Histogram;

use super::reading::Reading;
use super::suite::Skipped;

/// The results of a suite.
#[derive(Clone, Debug)]
pub struct Run {
    /// The title of the suite.
    pub title: String,
    /// The command line, word by word.
    pub command: Vec<String>,
    /// The number that shuffled the sides and drew the paths. With it, a run can be repeated.
    pub seed: u64,
    /// When the run began, in UTC: `2026-11-20T09:30:00Z`.
    pub started_at: String,
    /// Facts about the machine and the programs, each with a title and a text. Titles are `CPU`,
    /// `Kernel` or the name of a server.
    pub about: Vec<(String, String)>,
    /// The results of each case that has begun, in the order of the suite.
    pub cases: Vec<CaseRun>,
    /// Servers and cases that this machine could not run.
    pub skipped: Vec<Skipped>,
    /// The run was ended before its time, and has the numbers until then.
    pub interrupted: bool,
}

impl Run {
    /// How many requests failed, of all kinds, rounds and streams. Streams that may fail do not
    /// count.
    pub fn errors(&self) -> u64 {
        let rows = self.cases.iter().flat_map(|case| &case.rows).filter(|row| !row.may_fail);
        rows.flat_map(|row| &row.rounds).map(|reading| reading.errors.total()).sum()
    }
}

/// The results of a case.
#[derive(Clone, Debug)]
pub struct CaseRun {
    /// The case's name in the suite.
    pub name: String,
    /// The settings that all sides share, in words: `50 connections, 5 rounds of 10s`.
    pub settings: String,
    /// One row for each stream of each side, in the order of the suite.
    pub rows: Vec<Row>,
}

/// The results of one stream of one side.
#[derive(Clone, Debug)]
pub struct Row {
    /// The name of the side. If the stream is not the first, a colon and the stream's name follow.
    pub name: String,
    /// Whether the stream runs beside the first stream of its side.
    pub beside: bool,
    /// Whether failures are expected. They are counted, and do not make the run fail.
    pub may_fail: bool,
    /// A reading for each round that came to its end, in the order of the rounds.
    pub rounds: Vec<Reading>,
    /// Latencies of all rounds together, in nanoseconds, from when a request was due.
    pub latency: Histogram<u64>,
    /// Notes that the reader of this row needs, such as `saturated in 2 of 5 rounds`.
    pub notes: Vec<String>,
}

//! Measuring servers: a load generator, and what is made of its numbers.
//!
//! A *suite* is a list of *cases*; a case is one table of the report. In a case, *sides* take
//! turns: every round visits each of them once, in shuffled order, so that what else happens on
//! the machine hits all alike. A side is a server with one or more *streams* of requests that run
//! at the same time. Reaches every server over TCP, and knows nothing of how guests are served.

use std::collections::BTreeMap;
use std::hash::{BuildHasher as _, RandomState};
use std::path::PathBuf;
use std::time::Duration;

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::SystemTime;

use hdrhistogram::Histogram;
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

pub mod builtin;
pub mod file;
pub mod report;
pub mod scenario;
pub mod url;

mod connection;
mod cpus;
mod curve;
mod drop;
mod idle;
mod plan;
mod probe;
mod process;
mod response;
mod round;
mod statistics;
mod stream;
mod swap;
mod tally;
mod target;
mod worker;

/// Measures a suite, with a progress bar on a terminal. Sets nothing else on fire: a server or a
/// side that fails is named in the result. With `stop` it ends soon, with what there is.
pub fn run(suite: &Suite, command: Vec<String>, stop: &AtomicBool) -> Run {
    let started_at = humantime::format_rfc3339_seconds(SystemTime::now()).to_string();
    let mut about = process::machine();
    about.extend(suite.servers.iter().filter_map(process::version));
    about.dedup();
    let progress = ProgressBar::with_draw_target(
        Some(round::Rounds::visits(suite)),
        ProgressDrawTarget::stderr(),
    );
    let style = ProgressStyle::with_template("{bar:24} {pos}/{len} {wide_msg} {elapsed}");
    progress.set_style(style.expect("the template is right"));
    progress.enable_steady_tick(Duration::from_millis(250));
    let cases = round::Rounds::new(suite, stop, &progress).run();
    progress.finish_and_clear();
    Run {
        title: suite.title.clone(),
        command,
        seed: suite.seed,
        started_at,
        about,
        cases,
        skipped: suite.skipped.clone(),
        interrupted: stop.load(Ordering::Relaxed),
    }
}

/// A seed that is short enough to be typed again.
pub fn draw_seed() -> u64 {
    RandomState::new().hash_one(0) % 1_000_000
}

impl Run {
    /// Requests that failed, of all kinds, rounds and streams.
    pub fn errors(&self) -> u64 {
        let rows = self.cases.iter().flat_map(|case| &case.rows).filter(|row| !row.may_fail);
        rows.flat_map(|row| &row.rounds).map(|reading| reading.errors.total()).sum()
    }
}

pub use process::{cpus_allowed, files_max};

/// All that one command measures.
#[derive(Clone, Debug)]
pub struct Suite {
    pub title: String,
    /// Servers that are started for it. A side names one by its place here.
    pub servers: Vec<Launch>,
    pub cases: Vec<Case>,
    /// What shuffles the sides and draws the paths; printed, so that a run can be repeated.
    pub seed: u64,
    /// Servers and cases that this machine cannot run, each with the reason.
    pub skipped: Vec<Skipped>,
}

/// What was left out, and why.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Skipped {
    pub name: String,
    pub reason: String,
}

/// How to start a server. `{port}` in the command, the environment and `ready` is a free port of
/// 127.0.0.1, `{dir}` an empty folder that is removed when the server has stopped.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Launch {
    pub name: String,
    /// Program and arguments.
    pub command: Vec<String>,
    pub env: BTreeMap<String, String>,
    /// What tells its version on the first line of stdout; empty: nothing does.
    pub version: Vec<String>,
    /// Where it runs; `None` is the folder of this process.
    pub dir: Option<PathBuf>,
    /// Files that are copied into `{dir}` before it starts: from where, and to which name.
    pub files: Vec<(PathBuf, PathBuf)>,
    /// The path that tells that it is up, by any answer below 400.
    pub ready: String,
    /// How long it may take until then.
    pub ready_within: Duration,
    /// How long it may go on working by itself after that, as one that compiles; zero: it is not
    /// waited for.
    pub settle_within: Duration,
    /// The CPUs that it may use; empty means all.
    pub cpus: Vec<usize>,
    /// Started anew for every round, or once for each case.
    pub restart: Restart,
}

/// When a server is started anew.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Restart {
    Round,
    Case,
}

/// One table of the report: sides that take turns.
#[derive(Clone, Debug)]
pub struct Case {
    pub name: String,
    pub measure: Measure,
    pub rounds: u32,
    /// How long one side is measured in one round.
    pub duration: Duration,
    pub sides: Vec<Side>,
}

/// What is measured of each side.
#[derive(Clone, Debug, PartialEq)]
pub enum Measure {
    /// Requests a second, latency, CPU time and memory under the side's streams.
    Load,
    /// Memory of each of the first stream's connections: open and never used, and used once.
    /// Memory is read when it has not changed for `at_rest`.
    Idle { at_rest: Duration },
    /// Time from the start of the server to its first answer.
    Start,
    /// Time from a new version of a file in the server's folder to the first answer by it.
    Drop(Versions),
    /// The highest load at which slowdown, latency over that of an idle server, stays bounded.
    Curve(Curve),
}

/// Two versions of one file, copied over `path` in turn.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Versions {
    pub files: [PathBuf; 2],
    /// Below the `{dir}` of the server, or absolute.
    pub path: PathBuf,
    /// Time between two of them, where they are swapped beside a load.
    pub every: Duration,
}

/// How the highest load is looked for.
#[derive(Clone, Debug, PartialEq)]
pub struct Curve {
    /// Parts of the capacity that are tried, rising.
    pub loads: Vec<f64>,
    pub slowdown_max: f64,
    /// Of all requests, as in 0.999.
    pub quantile: f64,
}

/// One of those that take turns.
#[derive(Clone, Debug)]
pub struct Side {
    pub name: String,
    pub origin: Origin,
    /// The first is what the side is about, the others run beside it.
    pub streams: Vec<Stream>,
    /// Swaps that go on meanwhile.
    pub swaps: Option<Versions>,
}

/// Which server a side talks to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Origin {
    /// One that somebody else has started: `host:port`, and its process where that is known.
    Elsewhere { authority: String, pid: Option<u32> },
    /// A place in [`Suite::servers`].
    Started(usize),
}

/// Requests that are sent in one way.
#[derive(Clone, Debug)]
pub struct Stream {
    pub name: String,
    pub request: Request,
    pub load: Load,
    /// Its failures are counted, and make nothing fail: the callers of hostile guests expect them.
    pub may_fail: bool,
}

/// What is sent. Nothing here contains a CR or LF.
#[derive(Clone, Debug, PartialEq)]
pub struct Request {
    pub method: String,
    /// Paths with query, at least one; a stream with more than one draws from them.
    pub paths: Vec<String>,
    pub spread: Spread,
    pub headers: Vec<(String, String)>,
    pub body: Vec<u8>,
    /// The status to expect; `None` is any below 400.
    pub status: Option<u16>,
}

impl Request {
    /// A GET without header fields of its own.
    pub fn get(path: &str) -> Self {
        Self {
            method: "GET".to_owned(),
            paths: vec![path.to_owned()],
            spread: Spread::Uniform,
            headers: Vec::new(),
            body: Vec::new(),
            status: None,
        }
    }
}

/// How paths are drawn.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Spread {
    Uniform,
    /// The n-th path is drawn in proportion to `n^-exponent`.
    Zipf {
        exponent: f64,
    },
}

/// How requests are sent.
#[derive(Clone, Debug, PartialEq)]
pub struct Load {
    pub connections: usize,
    pub threads: usize,
    /// Requests that may be in flight on one connection, at least 1.
    pub pipeline: usize,
    /// Requests a second of all connections together; `None`: as fast as answers come.
    pub rate: Option<f64>,
    pub arrivals: Arrivals,
    /// A request without an answer for so long has failed, and its connection is closed.
    pub timeout: Duration,
    /// The CPUs of the generator; empty means all.
    pub cpus: Vec<usize>,
    /// The generator never sleeps: answers do not have to wake it, which costs the server CPU time,
    /// and nothing is sent late. Takes a whole core for each thread.
    pub spin: bool,
}

/// When the requests of a stream with a rate are due.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Arrivals {
    /// At equal distances.
    Constant,
    /// Independently of each other: a Poisson process.
    Poisson,
}

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

/// The numbers of one round.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Reading {
    /// Which round it was, from 1.
    pub round: u32,
    /// At which place in its round the side was visited, from 1.
    pub position: usize,
    pub values: BTreeMap<Quantity, f64>,
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

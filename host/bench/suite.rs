//! What is measured: a suite of cases, and the sides that take turns in each.
//!
//! Plain values. Where they come from is in `scenario.rs` and `builtin.rs`.

use std::hash::{BuildHasher as _, RandomState};
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::launch::Launch;
use super::load::{Load, Request};

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
    /// What is answered of more requests than there is time for, and how late.
    Overload(Overload),
}

/// More requests than there is time for.
#[derive(Clone, Debug, PartialEq)]
pub struct Overload {
    /// What is offered, as a multiple of the capacity.
    pub times: f64,
    /// The load that latency is compared with, as a part of the capacity.
    pub unloaded: f64,
    /// Connections of the closed loop that finds the capacity.
    pub capacity_connections: usize,
    /// How many times as long as a side is measured the overload lasts.
    pub longer: f64,
}

/// Versions of one file, put over `path` in turn.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Versions {
    /// Two at least.
    pub versions: Vec<Version>,
    /// Below the `{dir}` of the server, or absolute.
    pub path: PathBuf,
    /// When the next one comes, where they are swapped beside a load.
    pub pace: Pace,
    /// Every second one is written in place and not renamed to `path`.
    pub in_place: bool,
}

/// What one version of a file is made of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Version {
    /// A copy of this file.
    File(PathBuf),
    /// The text of this file, in which `VERSION` is the number, in five digits.
    Template {
        /// The file.
        path: PathBuf,
        /// The version's number.
        number: usize,
    },
}

impl Version {
    /// The file that it is made of.
    pub fn path(&self) -> &Path {
        match self {
            Self::File(path) | Self::Template { path, .. } => path,
        }
    }
}

/// When the next version comes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pace {
    /// After so long.
    Every(Duration),
    /// As soon as the last one has answered.
    Seen,
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
    /// A program that runs meanwhile.
    pub along: Option<Along>,
}

/// A program that runs beside a measurement, such as one that attacks the server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Along {
    /// Program and arguments. `{port}` is that of the server.
    pub command: Vec<String>,
    /// How long it runs before the measurement begins.
    pub lead: Duration,
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

/// A seed that is short enough to be typed again.
pub fn draw_seed() -> u64 {
    RandomState::new().hash_one(0) % 1_000_000
}

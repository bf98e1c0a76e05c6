//! A suite of cases, and the sides that take turns in each case.
//!
//! Plain values. `scenario.rs` and `builtin.rs` make them.

use std::hash::{BuildHasher as _, RandomState};
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::launch::Launch;
use super::load::{Load, PathDistribution, Request};

/// All measurements of one command.
#[derive(Clone, Debug)]
pub struct Suite {
    /// The title of the report.
    pub title: String,
    /// The servers that are started for the suite. A side names one by its place in this list.
    pub servers: Vec<Launch>,
    /// The tables of the report.
    pub cases: Vec<Case>,
    /// The number that shuffles the sides and draws the paths. It is printed, so that a run can be
    /// repeated.
    pub seed: u64,
    /// Servers and cases that this machine cannot run.
    pub skipped: Vec<Skipped>,
}

/// A server, a side or a case that was left out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Skipped {
    /// The name of the server, side or case.
    pub name: String,
    /// Why it was left out, in words.
    pub reason: String,
}

/// One table of the report: sides that take turns.
#[derive(Clone, Debug)]
pub struct Case {
    /// The title of the table.
    pub name: String,
    /// How each side is measured.
    pub measure: Measure,
    /// How often each side is measured, at least 1.
    pub rounds: u32,
    /// How long one side is measured in one round.
    pub duration: Duration,
    /// The sides. Ratios are to the first one.
    pub sides: Vec<Side>,
}

impl Case {
    /// Whether a stream asks for each of its paths once, and so ends by itself.
    pub fn asks_once(&self) -> bool {
        let mut streams = self.sides.iter().flat_map(|side| &side.streams);
        streams.any(|stream| stream.request.spread == PathDistribution::Once)
    }
}

/// How the sides of a case are measured.
#[derive(Clone, Debug, PartialEq)]
pub enum Measure {
    /// Requests a second, latency, CPU time and memory under the side's streams.
    Load,
    /// Memory of each of the first stream's connections: open and never used, and used once.
    Idle {
        /// Memory is read once it has not changed for so long.
        at_rest: Duration,
    },
    /// Time from the start of the server to its first answer.
    Start,
    /// Time from a new version of a file in the server's folder to the first answer by it.
    Drop(Versions),
    /// The highest load at which the slowdown stays bounded. Slowdown is latency divided by that of
    /// an idle server.
    Curve(Curve),
    /// How many requests an overloaded server answers, and how late.
    Overload(Overload),
}

/// How a server is overloaded.
#[derive(Clone, Debug, PartialEq)]
pub struct Overload {
    /// The load that is offered, as a multiple of the capacity.
    pub times: f64,
    /// The load of an unloaded server, whose latency is compared, as a part of the capacity.
    pub unloaded: f64,
    /// Connections of the closed loop that finds the capacity.
    pub capacity_connections: usize,
    /// How long the overload lasts, as a multiple of the case's duration.
    pub longer: f64,
}

/// Versions of one file, which replace each other.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Versions {
    /// At least two, in the order in which they come.
    pub versions: Vec<Version>,
    /// The file that is replaced. A relative path begins at the `{dir}` of the server.
    pub path: PathBuf,
    /// When the next version comes during a load.
    pub pace: Pace,
    /// Whether every second version is written in place instead of being renamed to `path`.
    pub in_place: bool,
}

/// In the name of a row, stands between the side and a stream beside its first.
pub const BESIDE: &str = ": ";

/// The contents of one version of a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Version {
    /// A copy of this file.
    File(PathBuf),
    /// The text of a file, in which `VERSION` becomes a number of five digits.
    Template {
        /// The file with the text.
        path: PathBuf,
        /// The number.
        number: usize,
    },
}

impl Version {
    /// The file from which the contents come.
    pub fn path(&self) -> &Path {
        match self {
            Self::File(path) | Self::Template { path, .. } => path,
        }
    }
}

/// When the next version comes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pace {
    /// So long after the last one.
    Every(Duration),
    /// As soon as the last one has answered.
    Seen,
}

/// How to find the highest load with a bounded slowdown.
#[derive(Clone, Debug, PartialEq)]
pub struct Curve {
    /// The loads to try, as parts of the capacity, rising.
    pub loads: Vec<f64>,
    /// The bound of the slowdown.
    pub slowdown_max: f64,
    /// The quantile of all requests that has to be within the bound, as in 0.999.
    pub quantile: f64,
}

/// A server and the streams that it gets. The sides of a case take turns.
#[derive(Clone, Debug)]
pub struct Side {
    /// The title of the side's row.
    pub name: String,
    /// The server.
    pub origin: Origin,
    /// At least one. The side's numbers are those of the first; all others run beside it.
    pub streams: Vec<Stream>,
    /// Versions of a file that replace each other during the load.
    pub swaps: Option<Versions>,
    /// A program that runs during the load.
    pub along: Option<Along>,
}

/// A program that runs beside a measurement, such as one that attacks the server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Along {
    /// Program and arguments. `{port}` stands for the server's port.
    pub command: Vec<String>,
    /// How long the program runs before the measurement begins.
    pub lead: Duration,
    /// It may end with success before the measurement does.
    pub may_end: bool,
}

/// The server of a side.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Origin {
    /// A server that runs already.
    Elsewhere {
        /// `host:port`.
        authority: String,
        /// The server's process, if it is known. Without it, CPU time and memory are not measured.
        pid: Option<u32>,
    },
    /// A server that is started for the suite: its place in [`Suite::servers`].
    Started(usize),
}

/// One kind of requests, and how they are sent.
#[derive(Clone, Debug)]
pub struct Stream {
    /// The name in a row's title, unless the stream is the first of its side.
    pub name: String,
    /// The requests.
    pub request: Request,
    /// How they are sent.
    pub load: Load,
    /// Whether failures are expected, as by callers of hostile guests. They are counted, and do not
    /// make the run fail.
    pub may_fail: bool,
}

/// Draws a seed that is short enough to be typed again.
pub fn draw_seed() -> u64 {
    RandomState::new().hash_one(0) % 1_000_000
}

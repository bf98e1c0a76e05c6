//! Requests, and how they are sent to a server.
//!
//! Plain values. `worker.rs` sends requests by them.

use std::time::Duration;

/// A request and the answer that it should get. No text in it may contain a CR or LF.
#[derive(Clone, Debug, PartialEq)]
pub struct Request {
    /// As in `GET`, in capital letters.
    pub method: String,
    /// Paths with their queries. A stream needs at least one, and draws from several.
    pub paths: Vec<String>,
    /// How a stream draws from `paths`.
    pub spread: PathDistribution,
    /// Names and values of header fields. The generator adds `Host` if it is not among them, and
    /// always `Content-Length` if there is a body or the method usually has one.
    pub headers: Vec<(String, String)>,
    /// The body of every request; empty for none.
    pub body: Vec<u8>,
    /// The status that an answer must have. `None` means any below 400.
    pub status: Option<u16>,
    /// The bodies that an answer may have.
    pub bodies: Bodies,
}

/// The bodies that answers may have.
#[derive(Clone, Debug, Default, PartialEq)]
pub enum Bodies {
    /// Any body.
    #[default]
    Any,
    /// Each path must have the body that it had before the measurement. If versions of a file are
    /// swapped, every path may have the body of any version.
    AsBefore,
    /// Each path must have its own of these bodies, which stand in the order of the paths.
    Each(Vec<Vec<u8>>),
}

impl Request {
    /// A GET of this path, without header fields. It may be answered with any body, and with any
    /// status below 400.
    pub fn get(path: &str) -> Self {
        Self {
            method: "GET".to_owned(),
            paths: vec![path.to_owned()],
            spread: PathDistribution::Uniform,
            headers: Vec::new(),
            body: Vec::new(),
            status: None,
            bodies: Bodies::Any,
        }
    }
}

/// How a stream draws from its paths.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum PathDistribution {
    /// All paths are drawn equally often.
    Uniform,
    /// The n-th path is drawn in proportion to `n^-exponent`.
    Zipf {
        /// At least 0, which makes all paths alike.
        exponent: f64,
    },
    /// Every path is asked for once, in shuffled order. Then the stream ends.
    Once,
}

/// How requests are sent.
#[derive(Clone, Debug, PartialEq)]
pub struct Load {
    /// Open connections, at least 1.
    pub connections: usize,
    /// Threads that send. There are never more threads than connections.
    pub threads: usize,
    /// Requests that may be in flight on one connection, at least 1.
    pub pipeline: usize,
    /// Requests a second over all connections together. `None` means as fast as answers come.
    pub rate: Option<f64>,
    /// When requests with a rate are due.
    pub arrivals: Arrivals,
    /// If a request has no answer after so long, it has failed, and its connection is closed.
    pub timeout: Duration,
    /// The CPUs of the generator. Empty means all.
    pub cpus: Vec<usize>,
    /// The generator never sleeps. Then the server spends no CPU time on waking it, and no request
    /// is sent late. Each thread takes a whole core.
    pub spin: bool,
    /// The priority of the generator's threads, from -20 to 19 as for nice(1). 0 leaves it as it
    /// is, and so does a priority that the user may not have.
    pub nice: i8,
}

/// When the requests of a stream with a rate are due.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Arrivals {
    /// At equal distances.
    Constant,
    /// Independently of each other, as a Poisson process.
    Poisson,
}

//! What is sent to a server, and how.
//!
//! Plain values; `worker.rs` sends what they say.

use std::time::Duration;

/// What is sent. Nothing here contains a CR or LF.
#[derive(Clone, Debug, PartialEq)]
pub struct Request {
    pub method: String,
    /// Paths with query, at least one; a stream with more than one draws from them.
    pub paths: Vec<String>,
    pub spread: PathDistribution,
    pub headers: Vec<(String, String)>,
    pub body: Vec<u8>,
    /// The status to expect; `None` is any below 400.
    pub status: Option<u16>,
    /// The bodies that answers have to have.
    pub bodies: Bodies,
}

/// The bodies that answers have to have.
#[derive(Clone, Debug, Default, PartialEq)]
pub enum Bodies {
    /// Whatever comes.
    #[default]
    Any,
    /// Of each path what it answers before the measurement.
    AsBefore,
    /// Of each path this one.
    Each(Vec<Vec<u8>>),
}

impl Request {
    /// A GET without header fields of its own.
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

/// How paths are drawn.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum PathDistribution {
    Uniform,
    /// The n-th path is drawn in proportion to `n^-exponent`.
    Zipf {
        exponent: f64,
    },
    /// Every path is asked for once, in an order that is shuffled, and then the stream ends.
    Once,
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
    /// The priority of the generator's threads, from -20 to 19, as for nice(1); 0 is the usual one.
    /// One that the user may not have is left as it is.
    pub nice: i8,
}

/// When the requests of a stream with a rate are due.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Arrivals {
    /// At equal distances.
    Constant,
    /// Independently of each other: a Poisson process.
    Poisson,
}

//! How to start a server.
//!
//! A plain value. `process.rs` starts servers by it.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

/// How to start a server. In the command, the environment and `ready`, `{port}` stands for a free
/// port of 127.0.0.1. `{dir}` stands for an empty folder, which is removed once the server has
/// stopped.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Launch {
    /// The server's name in reports and messages.
    pub name: String,
    /// Program and arguments.
    pub command: Vec<String>,
    /// Environment variables, added to those of this process.
    pub env: BTreeMap<String, String>,
    /// Program and arguments that print the server's version on the first line of stdout. If
    /// empty, the report has no version.
    pub version: Vec<String>,
    /// The working directory. `None` means that of this process.
    pub dir: Option<PathBuf>,
    /// Files and folders that are copied into `{dir}` before the start: the source, and the path
    /// below `{dir}`.
    pub files: Vec<(PathBuf, PathBuf)>,
    /// The server is up once it answers this path with a status below 400.
    pub ready: String,
    /// How long the server may take until it is up.
    pub ready_within: Duration,
    /// How long the server may then go on working by itself, for example to compile. If zero,
    /// nobody waits for that.
    pub settle_within: Duration,
    /// The CPUs that the server may use. Empty means all.
    pub cpus: Vec<usize>,
    /// When the server is started anew.
    pub restart: Restart,
    /// The names of counters that the server logs as `NAME=NUMBER` after a SIGUSR1.
    pub counters: Vec<String>,
}

/// When a server is started anew.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Restart {
    /// For every side in every round.
    Round,
    /// Once for each case, and again if requests timed out and the server stays busy.
    Case,
}

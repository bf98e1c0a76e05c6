//! How a server is started.
//!
//! A plain value; `process.rs` starts what it says.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

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
    /// It logs what it counts after a SIGUSR1, in `NAME=NUMBER`: these names.
    pub counters: Vec<String>,
}

/// When a server is started anew.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Restart {
    Round,
    Case,
}

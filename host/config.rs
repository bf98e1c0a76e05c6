//! From raw flags to a `Config`: every default, every range and every message about a bad value.
//!
//! [`Flags`] is what the user typed. [`Flags::validate`] collects all mistakes before it reports
//! any. This module makes the grants and does not know who uses them.

use std::ffi::OsString;
use std::net::SocketAddr;
use std::path::PathBuf;

use admission::AdmissionFlags;
use amount::{LOADED, MAPPINGS, TOTAL};
use connections::ConnectionFlags;
use grants::GrantFlags;
use mistakes::{bytes, choice};

mod address;
mod admission;
mod amount;
mod connections;
mod grants;
mod machine;
mod mistakes;
mod outbound;

pub use address::UpstreamUrl;
pub use admission::Admission;
pub use connections::{BalancePolicy, ConnectionLimits};
pub use grants::{GrantTable, LimitMaxima};
pub use mistakes::Mistakes;

/// How the host serves: valid by construction, fixed for the life of the process.
#[derive(Clone, Debug)]
pub struct Config {
    /// Addresses to listen on, at least one. Port 0 stands for any free port.
    pub listen: Vec<SocketAddr>,
    /// Worker threads, 1 to 256.
    pub workers: usize,
    /// The nice level of the slow lane, 0 to 19 above that of the workers. With `None` there is no
    /// slow lane, and every call stays on its worker's thread.
    pub slow_nice: Option<i32>,
    /// The server that gets the requests which no handler answers. With `None` they get a 404.
    pub upstream: Option<UpstreamUrl>,
    /// What each handler may use.
    pub grants: GrantTable,
    /// How many requests may be in flight.
    pub admission: Admission,
    /// How many connections clients may have, and how long each may keep the host waiting.
    pub connections: ConnectionLimits,
    /// Who picks the worker of a new connection.
    pub balance: BalancePolicy,
    /// Bytes that all handlers together may take: instances, large bodies and loaded code.
    pub memory_bytes_total: usize,
    /// Bytes that loaded guests may take. Past it, the host unloads idle ones. It is at most a
    /// quarter of `memory_bytes_total`.
    pub loaded_bytes_max: usize,
    /// Mappings that the process may have. `None` is as many as the kernel allows.
    pub mappings_max: Option<u64>,
    /// The folder of the compile cache. With `None` every start compiles every file.
    pub cache_dir: Option<PathBuf>,
}

/// How a log line is written.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum LogFormat {
    /// For people, in colour where stderr is a terminal.
    Text,
    /// One JSON object a line.
    Json,
}

/// The heading in `--help` over the limits of all handlers together.
const HOST_LIMITS_HEADING: &str = "Limits of the host";
/// The heading in `--help` over the limits of loading.
const LOADING: &str = "Limits of loading";

// These help texts are constants because rustdoc would take their brackets for links.
const WORKERS: &str = "Worker threads, 1 to 256 [default: one for each core]";
const UPSTREAM: &str =
    "Forward to http[s]://HOST[:PORT][/BASE] what no handler answers [default: answer 404]";
const SLOW_PRIORITY_HELP: &str = "By how much long calls are nicer than workers, 0 to 19: the \
    higher it is, the more they yield to short calls; off: they stay on their worker";
const MEMORY_TOTAL: &str = "Memory of all instances, large bodies in transit and loaded guests \
    [default: three quarters of the machine's, or of the cgroup's]";
/// How much nicer the slow lane is by default. The kernel gives such a thread a twentieth of what a
/// worker gets while short calls keep every core busy: the weights are 56 and 1024
/// (sched_prio_to_weight in the kernel's sched/core.c).
const SLOW_NICE: i32 = 13;
const LISTEN: &str = "Address to listen on, IP:PORT or NAME:PORT; may be repeated, port 0 picks a \
    free port, and [::] takes IPv4 as well unless an address of IPv4 with its port is listed, too";
const MAPPINGS_HELP: &str =
    "Memory mappings of the process, for instances and loaded guests [default: vm.max_map_count]";
const CACHE: &str = "Folder for compiled guests [default: guesthouse in the user's cache folder]";

/// The flags of `serve` and `demo` as they were typed. The comments are the help texts, except
/// where an attribute gives another.
#[derive(clap::Args, Clone, Debug)]
pub struct Flags {
    /// Addresses as `IP:PORT` or `NAME:PORT`
    #[arg(long, value_name = "ADDR", help = LISTEN, default_value = "127.0.0.1:8080")]
    pub listen: Vec<String>,

    /// Number of worker threads, 1 to 256
    #[arg(long, value_name = "N", help = WORKERS)]
    pub workers: Option<String>,

    /// By how much the slow lane is nicer than workers, 0 to 19, or `off` for no slow lane
    #[arg(
        long,
        value_name = "NICE|off",
        help = SLOW_PRIORITY_HELP,
        default_value_t = SLOW_NICE.to_string()
    )]
    pub slow_priority: String,

    /// Which worker gets a new connection: the one with the fewest, or one that the kernel picks
    #[arg(long, value_name = "least|kernel", default_value = "least")]
    pub balance: String,

    /// Serve the native twins of the demo handlers under /native/
    #[arg(long)]
    pub native: bool,

    /// URL of the upstream, `http` or `https`
    #[arg(long, value_name = "URL", help = UPSTREAM)]
    pub upstream: Option<String>,

    /// Log lines for people or for programs
    #[arg(long, value_name = "text|json", default_value = "text")]
    pub log: String,

    /// Folder of the compile cache
    #[arg(
        long,
        value_name = "DIR",
        env = "GUESTHOUSE_CACHE_DIR",
        hide_env_values = true,
        help = CACHE
    )]
    pub cache_dir: Option<OsString>,

    /// Keep no compiled guests on disk
    #[arg(long)]
    pub no_cache: bool,

    /// Flags that can be set for one handler.
    #[command(flatten)]
    pub grants: GrantFlags,

    /// Flags for requests in flight.
    #[command(flatten)]
    pub admission: AdmissionFlags,

    /// Flags for connections of clients.
    #[command(flatten)]
    pub connections: ConnectionFlags,

    /// Memory of all handlers together
    #[arg(long, value_name = "SIZE", help_heading = HOST_LIMITS_HEADING, help = MEMORY_TOTAL)]
    pub memory_total: Option<String>,

    /// Number of mappings that the process may have
    #[arg(long, value_name = "N", help_heading = HOST_LIMITS_HEADING, help = MAPPINGS_HELP)]
    pub mappings_max: Option<String>,

    /// Memory for loaded guests; past it, those idle longest are unloaded until they are asked for
    #[arg(long, value_name = "SIZE", help_heading = LOADING, default_value_t = LOADED.default())]
    pub loaded_max: String,
}

impl Flags {
    /// Makes the configuration and the log format of the flags.
    ///
    /// It resolves the names in `--listen`, reads `XDG_CACHE_HOME` and `HOME` for the cache folder,
    /// and asks Linux how much memory there is.
    ///
    /// # Errors
    /// Every mistake in the flags, all at once.
    pub fn validate(&self) -> Result<(Config, LogFormat), Mistakes> {
        let mut mistakes = Mistakes::default();
        let mut config = Config {
            listen: address::listen(&self.listen, &mut mistakes),
            workers: mistakes.check("--workers", workers(self.workers.as_deref()), 1),
            slow_nice: mistakes.check("--slow-priority", slow_nice(&self.slow_priority), None),
            upstream: self.upstream.as_deref().and_then(|url| {
                mistakes.check("--upstream", address::upstream(url).map(Some), None)
            }),
            grants: self.grants.validate(&mut mistakes),
            admission: self.admission.validate(&mut mistakes),
            connections: self.connections.validate(&mut mistakes),
            balance: mistakes.check(
                "--balance",
                BalancePolicy::parse(&self.balance),
                BalancePolicy::DEFAULT,
            ),
            memory_bytes_total: self.memory_total(&mut mistakes),
            loaded_bytes_max: bytes(mistakes.amount(&LOADED, &self.loaded_max)),
            mappings_max: MAPPINGS
                .optional(self.mappings_max.as_deref(), &mut mistakes)
                .map(|count| count as u64),
            cache_dir: mistakes.check("--cache-dir", self.cache_folder(), None),
        };
        // Loaded code is part of the total, and must leave most of it to the instances.
        config.loaded_bytes_max = config.loaded_bytes_max.min(config.memory_bytes_total / 4);
        let formats = [("text", LogFormat::Text), ("json", LogFormat::Json)];
        let format = mistakes.check("--log", choice(&self.log, &formats), LogFormat::Text);
        if mistakes.0.is_empty() { Ok((config, format)) } else { Err(mistakes) }
    }

    /// `--memory-total`, or three quarters of the memory that there is. The last quarter is for
    /// the host itself, for the compiler processes, and for whatever else runs on the machine.
    fn memory_total(&self, mistakes: &mut Mistakes) -> usize {
        bytes(match &self.memory_total {
            Some(text) => mistakes.amount(&TOTAL, text),
            None => {
                machine::memory_bytes().map_or(TOTAL.default, |bytes| TOTAL.clamp(bytes / 4 * 3))
            }
        })
    }

    fn cache_folder(&self) -> Result<Option<PathBuf>, String> {
        if self.no_cache {
            return Ok(None);
        }
        let given = self.cache_dir.as_ref().filter(|dir| !dir.is_empty());
        match given.map(PathBuf::from) {
            Some(dir) if dir.exists() && !dir.is_dir() => {
                Err(format!("{dir:?} is not a folder; name a folder, or give --no-cache"))
            }
            Some(dir) => Ok(Some(dir)),
            None => Ok(user_cache_folder("guesthouse")),
        }
    }
}

fn workers(text: Option<&str>) -> Result<usize, String> {
    const MAX: usize = 256;
    let Some(text) = text else {
        return Ok(std::thread::available_parallelism().map_or(1, |cores| cores.get().min(MAX)));
    };
    match text.trim().parse() {
        Ok(count) if (1..=MAX).contains(&count) => Ok(count),
        _ => Err(format!("{text:?} is not a number of threads; choose one from 1 to {MAX}")),
    }
}

fn slow_nice(text: &str) -> Result<Option<i32>, String> {
    if text.trim().eq_ignore_ascii_case("off") {
        return Ok(None);
    }
    match text.trim().parse() {
        Ok(nice @ 0..=19) => Ok(Some(nice)),
        _ => Err(format!("{text:?} is not a nice level; choose one from 0 to 19, or off")),
    }
}

/// The folder `name` in the user's cache folder. `None` if neither `XDG_CACHE_HOME` nor `HOME` is
/// an absolute path.
pub fn user_cache_folder(name: &str) -> Option<PathBuf> {
    // The XDG base directory specification says that relative paths are to be ignored.
    let folder = |name| std::env::var_os(name).map(PathBuf::from).filter(|dir| dir.is_absolute());
    folder("XDG_CACHE_HOME")
        .or_else(|| folder("HOME").map(|home| home.join(".cache")))
        .map(|cache| cache.join(name))
}

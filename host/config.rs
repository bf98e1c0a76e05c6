//! From raw flags to a `Config`: every default, every range and every message about a bad value.
//!
//! [`Flags`] is what was typed, [`Flags::validate`] collects all mistakes before it reports any.
//! Knows the grants, which are its result, and not who uses them.

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
    pub listen: Vec<SocketAddr>,
    pub workers: usize,
    /// How much nicer than the workers the slow lane is, by the scale of nice(1); `None` for no
    /// slow lane: all calls stay with their workers.
    pub slow_nice: Option<i32>,
    pub upstream: Option<UpstreamUrl>,
    /// What each handler may use.
    pub grants: GrantTable,
    pub admission: Admission,
    pub connections: ConnectionLimits,
    pub balance: BalancePolicy,
    /// Memory that all guests together may have: instances, bodies that are kept, and code.
    pub memory_bytes_total: usize,
    /// Memory for loaded guests, past which idle ones are unloaded.
    pub loaded_bytes_max: usize,
    /// Mappings that the process may have; `None` is as many as the kernel allows.
    pub mappings_max: Option<u64>,
    /// Where compiled guests are kept; `None` compiles at every start.
    pub cache_dir: Option<PathBuf>,
}

/// How a log line is written.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum LogFormat {
    Text,
    Json,
}

/// The heading over the limits of all guests together.
const HOST_LIMITS_HEADING: &str = "Limits of the host";
/// The heading over the limits of loading.
const LOADING: &str = "Limits of loading";

// Help texts that rustdoc would take for links.
const WORKERS: &str = "Worker threads, 1 to 256 [default: one for each core]";
const UPSTREAM: &str =
    "Forward to http[s]://HOST[:PORT][/BASE] what no guest answers [default: answer 404]";
const SLOW_PRIORITY_HELP: &str =
    "How far long calls stand back behind short ones, 0 to 19 as in nice(1), or off for not at all";
const MEMORY_TOTAL: &str = "Memory of all instances, of large bodies on their way and of loaded \
    guests [default: three quarters of the machine's, or of the cgroup's]";
/// Its weight is a twentieth of that of the workers: what long calls get while short ones keep
/// every core busy (sched_prio_to_weight in the kernel's sched/core.c: 56 of 1024).
const SLOW_NICE: i32 = 13;
const LISTEN: &str = "Address to listen on, IP:PORT or NAME:PORT; may be repeated, port 0 picks a \
    free port, and [::] takes IPv4 as well unless an address of IPv4 with its port is listed, too";
const MAPPINGS_HELP: &str =
    "Memory mappings of the process, for instances and loaded guests [default: vm.max_map_count]";
const CACHE: &str = "Folder for compiled guests [default: guesthouse in the user's cache folder]";

/// The flags of `serve` and `demo` as they were typed; the comments are the help texts.
#[derive(clap::Args, Clone, Debug)]
pub struct Flags {
    #[arg(long, value_name = "ADDR", help = LISTEN, default_value = "127.0.0.1:8080")]
    pub listen: Vec<String>,

    #[arg(long, value_name = "N", help = WORKERS)]
    pub workers: Option<String>,

    #[arg(
        long,
        value_name = "NICE|off",
        help = SLOW_PRIORITY_HELP,
        default_value_t = SLOW_NICE.to_string()
    )]
    pub slow_priority: String,

    /// Who decides which worker gets a connection: the kernel, or the number that each has
    #[arg(long, value_name = "least|kernel", default_value = "least")]
    pub balance: String,

    /// Serve the native twins of the demo guests under /native/
    #[arg(long)]
    pub native: bool,

    #[arg(long, value_name = "URL", help = UPSTREAM)]
    pub upstream: Option<String>,

    /// Log lines for people or for programs
    #[arg(long, value_name = "text|json", default_value = "text")]
    pub log: String,

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

    #[command(flatten)]
    pub grants: GrantFlags,

    #[command(flatten)]
    pub admission: AdmissionFlags,

    #[command(flatten)]
    pub connections: ConnectionFlags,

    #[arg(long, value_name = "SIZE", help_heading = HOST_LIMITS_HEADING, help = MEMORY_TOTAL)]
    pub memory_total: Option<String>,

    #[arg(long, value_name = "N", help_heading = HOST_LIMITS_HEADING, help = MAPPINGS_HELP)]
    pub mappings_max: Option<String>,

    /// Memory for loaded guests; past it, those idle longest are unloaded until they are asked for
    #[arg(long, value_name = "SIZE", help_heading = LOADING, default_value_t = LOADED.default())]
    pub loaded_max: String,
}

impl Flags {
    /// The configuration and how to log, or every mistake in the flags.
    ///
    /// Resolves the names in `--listen`; reads `XDG_CACHE_HOME` and `HOME` for the cache folder,
    /// and how much memory there is.
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
        // Code counts as well, and is not to be in the way of what runs it.
        config.loaded_bytes_max = config.loaded_bytes_max.min(config.memory_bytes_total / 4);
        let formats = [("text", LogFormat::Text), ("json", LogFormat::Json)];
        let format = mistakes.check("--log", choice(&self.log, &formats), LogFormat::Text);
        if mistakes.0.is_empty() { Ok((config, format)) } else { Err(mistakes) }
    }

    /// What was typed, or three quarters of what there is: the rest is for the host itself, for
    /// the compilers, and for whatever else runs there.
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

/// A folder in the user's cache folder, if there is one.
pub fn user_cache_folder(name: &str) -> Option<PathBuf> {
    // The XDG base directory specification has relative paths ignored.
    let folder = |name| std::env::var_os(name).map(PathBuf::from).filter(|dir| dir.is_absolute());
    folder("XDG_CACHE_HOME")
        .or_else(|| folder("HOME").map(|home| home.join(".cache")))
        .map(|cache| cache.join(name))
}

//! From raw flags to a `Config`: every default, every range and every message about a bad value.
//!
//! [`Flags`] is what was typed, [`Flags::validate`] collects all mistakes before it reports any.
//! Imports nothing of ours and does not know who uses the result.

use std::ffi::OsString;
use std::fmt;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use http::uri::Authority;
use serde::{Deserialize, Serialize};

use admission::AdmissionFlags;
use amount::{
    BODY, Bound, COMPILE_CPU, COMPILE_MEMORY, CPU, DEADLINE, HEADER, LOADED, MAPPINGS, MEMORY,
    RESPONSE, TOTAL,
};
use connections::ConnectionFlags;
use guests::GuestFlags;
use outbound::OutboundFlags;

mod address;
mod admission;
mod amount;
mod connections;
mod guests;
mod machine;
mod outbound;

pub use admission::{Admission, QueueLimits};
pub use connections::{Balance, ConnectionLimits};
pub use guests::{Guests, Words};
pub use outbound::{Allowance, Hosts, Network, Outbound};

/// How the host serves: valid by construction, fixed for the life of the process.
#[derive(Clone, Debug)]
pub struct Config {
    pub listen: Vec<SocketAddr>,
    pub workers: usize,
    /// How much nicer than the workers the slow lane is, by the scale of nice(1); `None` for no
    /// slow lane: all calls stay with their workers.
    pub slow_nice: Option<i32>,
    pub isolation: Isolation,
    /// Whether the native twins of the demo guests are served under `/native/`.
    pub native: bool,
    pub upstream: Option<Upstream>,
    pub limits: Limits,
    /// What single guests are given, some limits among it.
    pub guests: Guests,
    pub admission: Admission,
    pub connections: ConnectionLimits,
    pub outbound: Outbound,
    pub balance: Balance,
    pub compile: CompileLimits,
    /// Memory that all guests together may have: instances, bodies that are kept, and code.
    pub memory_bytes_total: usize,
    /// Memory for loaded guests, past which idle ones are unloaded.
    pub loaded_bytes_max: usize,
    /// Mappings that the process may have; `None` is as many as the kernel allows.
    pub mappings_max: Option<u64>,
    /// Where compiled guests are kept; `None` compiles at every start.
    pub cache_dir: Option<PathBuf>,
}

/// What compiling one guest may use.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub struct CompileLimits {
    /// CPU time of all its threads.
    pub cpu_max: Duration,
    pub memory_bytes_max: usize,
}

/// What one guest may use. Every limit is finite but for that on what only passes through.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Limits {
    /// All memories of one instance together.
    pub memory_bytes_max: usize,
    /// Wall time from the request to the response head.
    pub deadline: Duration,
    /// CPU time of one request.
    pub cpu_max: Duration,
    /// Request body; `None` is any size.
    pub body_bytes_max: Option<u64>,
    /// Response body.
    pub response_bytes_max: usize,
    /// Request head and response head, each.
    pub header_bytes_max: usize,
}

/// Whether a request can see what an earlier one left in the guest: `Fresh` never, `Reuse` yes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Isolation {
    Fresh,
    Reuse,
}

/// Where requests go that no guest answers.
#[derive(Clone, Debug)]
pub struct Upstream {
    pub authority: Authority,
    /// Put in front of the request's path: no trailing slash, empty for none.
    pub base_path: String,
}

/// How a log line is written.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum LogFormat {
    Text,
    Json,
}

/// The heading over the limits in `--help`.
const LIMITS: &str = "Limits of one guest";
/// The heading over the limits of all guests together.
const TOGETHER: &str = "Limits of the host";
/// The heading over the limits of loading.
const LOADING: &str = "Limits of loading";

// Help texts that rustdoc would take for links.
const WORKERS: &str = "Worker threads, 1 to 256 [default: one for each core]";
const UPSTREAM: &str =
    "Forward to http://HOST[:PORT][/BASE] what no guest answers [default: answer 404]";
const SLOW: &str =
    "How far long calls stand back behind short ones, 0 to 19 as in nice(1), or off for not at all";
const BODY_HELP: &str = "Request body of any guest, or of one; may be repeated, none is any size";
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

    #[arg(long, value_name = "NICE|off", help = SLOW, default_value_t = SLOW_NICE.to_string())]
    pub slow_priority: String,

    /// Who decides which worker gets a connection: the kernel, or the number that each has
    #[arg(long, value_name = "least|kernel", default_value = "least")]
    pub balance: String,

    /// A sandbox for each request, or one that serves many requests in turn
    #[arg(long, value_name = "fresh|reuse", default_value = "fresh")]
    pub isolation: String,

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

    /// Memory of one instance
    #[arg(long, value_name = "SIZE", help_heading = LIMITS, default_value_t = MEMORY.default())]
    pub memory_max: String,

    /// Time until a guest must have answered
    #[arg(long, value_name = "TIME", help_heading = LIMITS, default_value_t = DEADLINE.default())]
    pub deadline: String,

    /// CPU time of one request
    #[arg(long, value_name = "TIME", help_heading = LIMITS, default_value_t = CPU.default())]
    pub cpu_max: String,

    #[arg(
        long,
        value_name = "[GUEST=]SIZE|none",
        help_heading = LIMITS,
        help = BODY_HELP,
        default_values_t = [BODY.default()]
    )]
    pub body_max: Vec<String>,

    /// Response body
    #[arg(long, value_name = "SIZE", help_heading = LIMITS, default_value_t = RESPONSE.default())]
    pub response_max: String,

    /// Request head and response head, each
    #[arg(long, value_name = "SIZE", help_heading = LIMITS, default_value_t = HEADER.default())]
    pub header_max: String,

    #[command(flatten)]
    pub guests: GuestFlags,

    #[command(flatten)]
    pub admission: AdmissionFlags,

    #[command(flatten)]
    pub connections: ConnectionFlags,

    #[command(flatten)]
    pub outbound: OutboundFlags,

    #[arg(long, value_name = "SIZE", help_heading = TOGETHER, help = MEMORY_TOTAL)]
    pub memory_total: Option<String>,

    #[arg(long, value_name = "N", help_heading = TOGETHER, help = MAPPINGS_HELP)]
    pub mappings_max: Option<String>,

    /// Memory for loaded guests; past it, those idle longest are unloaded until they are asked for
    #[arg(long, value_name = "SIZE", help_heading = LOADING, default_value_t = LOADED.default())]
    pub loaded_max: String,

    /// CPU time of compiling one guest
    #[arg(
        long,
        value_name = "TIME",
        help_heading = LOADING,
        default_value_t = COMPILE_CPU.default()
    )]
    pub compile_max: String,

    /// Memory of compiling one guest
    #[arg(
        long,
        value_name = "SIZE",
        help_heading = LOADING,
        default_value_t = COMPILE_MEMORY.default()
    )]
    pub compile_memory_max: String,
}

/// Everything wrong with what was typed, each as `--flag: reason; what to do`.
#[derive(Debug, Default)]
pub struct Mistakes(pub Vec<String>);

impl Flags {
    /// The configuration and how to log, or every mistake in the flags.
    ///
    /// Resolves the names in `--listen`; reads `XDG_CACHE_HOME` and `HOME` for the cache folder,
    /// and how much memory there is.
    pub fn validate(&self) -> Result<(Config, LogFormat), Mistakes> {
        let mut mistakes = Mistakes::default();
        let mut guests = Guests::default();
        let mut config = Config {
            listen: address::listen(&self.listen, &mut mistakes),
            workers: mistakes.check("--workers", workers(self.workers.as_deref()), 1),
            slow_nice: mistakes.check("--slow-priority", slow_nice(&self.slow_priority), None),
            isolation: mistakes.check(
                "--isolation",
                choice(
                    &self.isolation,
                    &[("fresh", Isolation::Fresh), ("reuse", Isolation::Reuse)],
                ),
                Isolation::Fresh,
            ),
            native: self.native,
            upstream: self.upstream.as_deref().and_then(|url| {
                mistakes.check("--upstream", address::upstream(url).map(Some), None)
            }),
            limits: self.limits(&mut guests, &mut mistakes),
            guests,
            admission: self.admission.validate(&mut mistakes),
            connections: self.connections.validate(&mut mistakes),
            outbound: self.outbound.validate(&mut mistakes),
            balance: mistakes.check("--balance", Balance::parse(&self.balance), Balance::DEFAULT),
            compile: self.compile(&mut mistakes),
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

    /// The limits of a guest of which nothing special is said; what is goes to `guests`.
    fn limits(&self, guests: &mut Guests, mistakes: &mut Mistakes) -> Limits {
        Limits {
            memory_bytes_max: bytes(mistakes.amount(&MEMORY, &self.memory_max)),
            deadline: mistakes.time(&DEADLINE, &self.deadline),
            cpu_max: mistakes.time(&CPU, &self.cpu_max),
            body_bytes_max: {
                let (given, most) = self.guests.validate(&self.body_max, mistakes);
                *guests = given;
                most
            },
            response_bytes_max: bytes(mistakes.amount(&RESPONSE, &self.response_max)),
            header_bytes_max: bytes(mistakes.amount(&HEADER, &self.header_max)),
        }
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

    fn compile(&self, mistakes: &mut Mistakes) -> CompileLimits {
        CompileLimits {
            cpu_max: Duration::from_millis(mistakes.amount(&COMPILE_CPU, &self.compile_max)),
            memory_bytes_max: bytes(mistakes.amount(&COMPILE_MEMORY, &self.compile_memory_max)),
        }
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

impl Default for Limits {
    fn default() -> Self {
        Self {
            memory_bytes_max: bytes(MEMORY.default),
            deadline: Duration::from_millis(DEADLINE.default),
            cpu_max: Duration::from_millis(CPU.default),
            body_bytes_max: Some(BODY.default),
            response_bytes_max: bytes(RESPONSE.default),
            header_bytes_max: bytes(HEADER.default),
        }
    }
}

impl Limits {
    /// How much of a request's body the host keeps for a guest: all that it takes, or where that is
    /// any size, as much as the guest could keep itself.
    pub fn kept_bytes_max(&self) -> u64 {
        self.body_bytes_max.unwrap_or(self.memory_bytes_max as u64)
    }
}

impl Default for CompileLimits {
    fn default() -> Self {
        Self {
            cpu_max: Duration::from_millis(COMPILE_CPU.default),
            memory_bytes_max: bytes(COMPILE_MEMORY.default),
        }
    }
}

impl fmt::Display for Isolation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Fresh => "fresh",
            Self::Reuse => "reuse",
        })
    }
}

impl Mistakes {
    /// The parsed value; or the fallback, which nobody sees because the mistake is noted.
    fn check<T>(&mut self, flag: &str, parsed: Result<T, String>, fallback: T) -> T {
        parsed.unwrap_or_else(|mistake| {
            self.0.push(format!("{flag}: {mistake}"));
            fallback
        })
    }

    fn amount(&mut self, bound: &Bound, text: &str) -> u64 {
        self.check(bound.flag, bound.parse(text), bound.default)
    }

    fn time(&mut self, bound: &Bound, text: &str) -> Duration {
        Duration::from_millis(self.amount(bound, text))
    }
}

/// One mistake per line.
impl fmt::Display for Mistakes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.join("\n"))
    }
}

impl std::error::Error for Mistakes {}

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

fn choice<T: Copy>(text: &str, choices: &[(&str, T)]) -> Result<T, String> {
    let found = choices.iter().find(|(name, _)| name.eq_ignore_ascii_case(text.trim()));
    found.map(|(_, value)| *value).ok_or_else(|| {
        let names: Vec<&str> = choices.iter().map(|(name, _)| *name).collect();
        format!("{text:?} is not a choice; write {}", names.join(" or "))
    })
}

/// A folder in the user's cache folder, if there is one.
pub fn user_cache_folder(name: &str) -> Option<PathBuf> {
    // The XDG base directory specification has relative paths ignored.
    let folder = |name| std::env::var_os(name).map(PathBuf::from).filter(|dir| dir.is_absolute());
    folder("XDG_CACHE_HOME")
        .or_else(|| folder("HOME").map(|home| home.join(".cache")))
        .map(|cache| cache.join(name))
}

fn bytes(amount: u64) -> usize {
    usize::try_from(amount).unwrap_or(usize::MAX)
}

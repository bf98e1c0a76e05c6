//! How many connections the host keeps, how long they may make it wait, and which worker gets each.

use std::time::Duration;

use super::amount;
use super::amount::{CountFlag, HEAD, IDLE, STALL};
use super::mistakes::{Mistakes, choice};

/// What clients may do with their connections.
#[derive(Clone, Debug)]
pub struct ConnectionLimits {
    /// Connections in all. `None` is what the limit on open files allows.
    pub count_max: Option<usize>,
    /// Connections of one client, which is an IPv4 address or the first 64 bits of an IPv6 address.
    /// `None` is three quarters of all.
    pub per_client_max: Option<usize>,
    /// Time between two requests, after which the host closes the connection.
    pub idle_max: Duration,
    /// Time until a request's head must be complete. It begins with the connection for the first
    /// request, and with the head's first byte for each later one.
    pub head_max: Duration,
    /// Time for which the host waits for the next byte of a request's body, or for the client to
    /// read more of a response's.
    pub stall_max: Duration,
}

/// How a new connection finds its worker.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum BalancePolicy {
    /// The kernel picks the worker, by a hash of the addresses.
    Kernel,
    /// The worker with the fewest connections gets it.
    Least,
}

impl BalancePolicy {
    /// What `--balance` is by default.
    pub const DEFAULT: Self = BalancePolicy::Least;

    pub(super) fn parse(text: &str) -> Result<Self, String> {
        choice(text, &[("least", BalancePolicy::Least), ("kernel", BalancePolicy::Kernel)])
    }
}

/// The heading in `--help`.
const HEADING: &str = "Limits of connections";
const COUNT: CountFlag = amount::count("--connections-max", (1, 10_000_000));
const PER_CLIENT: CountFlag = amount::count("--client-connections-max", (1, 10_000_000));

const COUNT_HELP: &str =
    "Connections; past it, the one idle longest is closed [default: what open files allow]";
const PER_CLIENT_HELP: &str =
    "Connections of one IPv4 address or IPv6 /64 [default: three quarters of all]";

/// The flags as they were typed.
#[derive(clap::Args, Clone, Debug)]
pub struct ConnectionFlags {
    #[arg(long, value_name = "N", help_heading = HEADING, help = COUNT_HELP)]
    connections_max: Option<String>,

    #[arg(long, value_name = "N", help_heading = HEADING, help = PER_CLIENT_HELP)]
    client_connections_max: Option<String>,

    /// Time without a request until a connection is closed
    #[arg(long, value_name = "TIME", help_heading = HEADING, default_value_t = IDLE.default())]
    idle_timeout: String,

    /// Time in which the head of a request has to come
    #[arg(long, value_name = "TIME", help_heading = HEADING, default_value_t = HEAD.default())]
    head_timeout: String,

    /// Time for which a body may neither come nor be read
    #[arg(long, value_name = "TIME", help_heading = HEADING, default_value_t = STALL.default())]
    stall_timeout: String,
}

impl ConnectionFlags {
    pub(super) fn validate(&self, mistakes: &mut Mistakes) -> ConnectionLimits {
        ConnectionLimits {
            count_max: COUNT.optional(self.connections_max.as_deref(), mistakes),
            per_client_max: PER_CLIENT.optional(self.client_connections_max.as_deref(), mistakes),
            idle_max: mistakes.time(&IDLE, &self.idle_timeout),
            head_max: mistakes.time(&HEAD, &self.head_timeout),
            stall_max: mistakes.time(&STALL, &self.stall_timeout),
        }
    }
}

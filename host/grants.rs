//! What one handler may use, in one value: limits, isolation, concurrency, variables, and where it
//! may send requests.
//!
//! A leaf: plain values, which `config` makes and everyone reads from the guest that is served.
//! What holds for the whole host is in [`crate::config::Config`] and of other types, so that nobody
//! can take the one for the other.

use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use serde::{Deserialize, Serialize};

/// Everything that one handler may use. It is resolved once, from the handler's name, and stays
/// the same for as long as the handler is there.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Grants {
    /// Who pays for what it uses, with all others of the same owner.
    #[serde(skip)]
    pub owner: Arc<Owner>,
    pub isolation: Isolation,
    pub limits: Limits,
    pub concurrency: Concurrency,
    pub compile: CompileLimits,
    pub variables: Variables,
    pub outbound: OutboundGrants,
}

/// Who handlers belong to: those in one folder at the top to that, and a file at the top to the
/// folder of its name. What all share is divided between owners, and what one has between its
/// handlers, so that a hundred files are not a hundred shares.
#[derive(Debug, Default)]
pub struct Owner {
    pub name: Box<str>,
    /// Tells it from all others of this process.
    pub id: u64,
    /// Handlers that it has.
    handlers: AtomicUsize,
}

/// A handler of an owner, for as long as this is there.
#[derive(Debug)]
pub struct OwnerMembership(Arc<Owner>);

impl Owner {
    pub fn new(name: &str, id: u64) -> Self {
        Owner { name: name.into(), id, handlers: AtomicUsize::new(0) }
    }

    /// Counts a handler in.
    pub fn enter(self: &Arc<Self>) -> OwnerMembership {
        self.handlers.fetch_add(1, Ordering::Relaxed);
        OwnerMembership(self.clone())
    }
}

impl Drop for OwnerMembership {
    fn drop(&mut self) {
        self.0.handlers.fetch_sub(1, Ordering::Relaxed);
    }
}

/// An owner, as those see it who divide something.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Share {
    /// The owner's.
    pub id: u64,
    /// Whether it has one handler only.
    pub is_sole: bool,
}

impl Grants {
    /// Those that a compiler has to know: where its guest may send requests is nothing to it.
    pub fn for_compiler(&self) -> Grants {
        let Grants { isolation, concurrency, compile, .. } = *self;
        let (limits, variables) = (self.limits.clone(), self.variables.clone());
        let (owner, outbound) = Default::default();
        Grants { owner, isolation, limits, concurrency, compile, variables, outbound }
    }

    /// Whose share it uses.
    pub fn share(&self) -> Share {
        let handlers = self.owner.handlers.load(Ordering::Relaxed);
        Share { id: self.owner.id, is_sole: handlers <= 1 }
    }
}

impl Share {
    /// That of somebody who is no handler, by a number of its own. Those of owners are counted.
    pub fn of_other(number: usize) -> Self {
        Share { id: !(number as u64), is_sole: true }
    }
}

/// Whether a request can see what an earlier one left in the guest: `Fresh` never, `Reuse` yes.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub enum Isolation {
    #[default]
    Fresh,
    Reuse,
}

/// What one instance and one request may use. Every limit is finite but for that on what only
/// passes through.
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

/// How many requests at once.
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize)]
pub struct Concurrency {
    /// Requests in flight in the whole host, of which each worker has an equal part. `None` is as
    /// many as admission leaves to one handler: three quarters of all.
    pub in_flight_max: Option<usize>,
    pub queue: QueueLimits,
}

/// Bounds of one queue of requests, of which each worker has three for each handler.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct QueueLimits {
    /// Requests that may wait.
    pub length_max: usize,
    /// How long one may.
    pub wait_max: Duration,
}

/// What compiling a file may use.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub struct CompileLimits {
    /// CPU time of all its threads.
    pub cpu_max: Duration,
    pub memory_bytes_max: usize,
}

/// What a guest is told of the world around it: names and values, each name once. Values may be
/// secrets, so no debug text shows one.
#[derive(Clone, Default, Serialize, Deserialize)]
pub struct Variables {
    /// Environment variables.
    pub env: Arc<[(String, String)]>,
    /// Variables of `wasi:config`.
    pub config: Arc<[(String, String)]>,
}

/// What requests a guest may make.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct OutboundGrants {
    pub allowed: Arc<[Allowance]>,
    /// Requests to one destination, all workers together. Each worker has an equal part, and as
    /// many more may wait there.
    pub in_flight_max: usize,
    /// The longest that a guest may have itself wait: for a connection, for the first byte of a
    /// response, and between two.
    pub timeout_max: Duration,
}

/// One destination that a guest may send requests to, or many of a kind.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Allowance {
    /// Whether it is for https, or else for http.
    pub is_secure: bool,
    pub hosts: HostPattern,
    /// `None` for every port.
    pub port: Option<u16>,
    /// Networks that the host may be in although they are not public.
    pub networks: Vec<Network>,
}

/// The hosts that an allowance is for. Names are in lower case, without a dot at the end.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum HostPattern {
    Address(IpAddr),
    Name(Box<str>),
    /// All below this name, but not itself.
    Below(Box<str>),
    Every,
}

/// A range of addresses: those which begin with the same bits as this one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Network {
    address: IpAddr,
    bits: u32,
}

impl Limits {
    /// How much of a request's body the host keeps for a guest: all that it takes, or where that is
    /// any size, as much as the guest could keep itself.
    pub fn buffered_bytes_max(&self) -> u64 {
        self.body_bytes_max.unwrap_or(self.memory_bytes_max as u64)
    }
}

impl Network {
    pub const fn new(address: IpAddr, bits: u32) -> Self {
        Network { address, bits }
    }

    /// Just this address.
    pub fn of(address: IpAddr) -> Self {
        Network { address, bits: if address.is_ipv4() { 32 } else { 128 } }
    }

    pub fn contains(&self, address: IpAddr) -> bool {
        let differ = match (self.address, address) {
            (IpAddr::V4(a), IpAddr::V4(b)) => u128::from(a.to_bits() ^ b.to_bits()) << 96,
            (IpAddr::V6(a), IpAddr::V6(b)) => a.to_bits() ^ b.to_bits(),
            _ => return false,
        };
        differ.leading_zeros() >= self.bits
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

impl fmt::Debug for Variables {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names = |all: &[(String, String)]| -> Vec<String> {
            all.iter().map(|(name, _)| name.clone()).collect()
        };
        let (env, config) = (names(&self.env), names(&self.config));
        f.debug_struct("Variables").field("env", &env).field("config", &config).finish()
    }
}

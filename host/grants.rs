//! What one handler may use, in one value: limits, isolation, concurrency, variables, and where it
//! may send requests.
//!
//! This module is a leaf of plain values. `config` makes them; everyone else reads them from the
//! guest at hand. Settings of the whole host are in [`crate::config::Config`] and have types of
//! their own, so that nobody takes a host's limit for a handler's.

use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use serde::{Deserialize, Serialize};

/// Everything that one handler may use. `config` resolves it once, from the handler's name; it
/// stays the same for the life of the handler.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Grants {
    /// The owner, whose share this handler uses together with the owner's other handlers.
    #[serde(skip)]
    pub owner: Arc<Owner>,
    /// Whether a request may get an instance that served an earlier one.
    pub isolation: Isolation,
    /// Bounds of memory, time and size for one instance and one request.
    pub limits: Limits,
    /// How many requests may be in flight, and how many may wait.
    pub concurrency: Concurrency,
    /// Bounds of the process that compiles the guest.
    pub compile: CompileLimits,
    /// Environment and `wasi:config` variables that the guest sees.
    pub variables: Variables,
    /// Which requests the guest may send itself.
    pub outbound: OutboundGrants,
}

/// Who a handler belongs to: its top folder, or for a file at the top, a folder of the same name.
///
/// The host divides shared resources between owners first, then each owner's share between its
/// handlers. So a hundred files in one folder do not get a hundred shares.
#[derive(Debug, Default)]
pub struct Owner {
    /// The name of the folder or file at the top.
    pub name: Box<str>,
    /// Unique in this process.
    pub id: u64,
    /// How many handlers belong to this owner.
    handlers: AtomicUsize,
}

/// Counts as one handler of its owner until it is dropped.
#[derive(Debug)]
pub struct OwnerMembership(Arc<Owner>);

impl Owner {
    /// An owner without handlers. `id` must be unique in the process.
    pub fn new(name: &str, id: u64) -> Self {
        Owner { name: name.into(), id, handlers: AtomicUsize::new(0) }
    }

    /// Counts one more handler, until the returned membership is dropped.
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

/// An owner, as seen by code that divides a resource between owners.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Share {
    /// The owner's id.
    pub id: u64,
    /// Whether the owner has no more than one handler.
    pub is_sole: bool,
}

impl Grants {
    /// A copy for the compiler process, without owner and outbound grants, which it does not need.
    pub fn for_compiler(&self) -> Grants {
        let Grants { isolation, concurrency, compile, .. } = *self;
        let (limits, variables) = (self.limits.clone(), self.variables.clone());
        let (owner, outbound) = Default::default();
        Grants { owner, isolation, limits, concurrency, compile, variables, outbound }
    }

    /// The share of the owner, with the number of its handlers as it is now.
    pub fn share(&self) -> Share {
        let handlers = self.owner.handlers.load(Ordering::Relaxed);
        Share { id: self.owner.id, is_sole: handlers <= 1 }
    }
}

impl Share {
    /// A share for something that is no handler. `number` must be unique among those. The id is its
    /// complement, so it differs from the ids of owners, which count up from 0.
    pub fn of_other(number: usize) -> Self {
        Share { id: !(number as u64), is_sole: true }
    }
}

/// Whether a request can see what an earlier one left in the guest's memory.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub enum Isolation {
    /// Never: every request gets an instance in its initial state.
    #[default]
    Fresh,
    /// Yes: an instance serves one request after another without a reset.
    Reuse,
}

/// What one instance and one request may use. Every limit is finite, except that a request body
/// may have any size: the host does not keep it.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Limits {
    /// Bytes of all memories of one instance together.
    pub memory_bytes_max: usize,
    /// Wall time from the request head to the response head.
    pub deadline: Duration,
    /// CPU time of one request.
    pub cpu_max: Duration,
    /// Bytes of a request body; `None` allows any size.
    pub body_bytes_max: Option<u64>,
    /// Bytes of a response body.
    pub response_bytes_max: usize,
    /// Bytes of a request head, and of a response head.
    pub header_bytes_max: usize,
}

/// How many requests of one handler may be in flight, and how many may wait.
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize)]
pub struct Concurrency {
    /// Requests in flight in the whole host; each worker gets an equal part. With `None`, the
    /// worker's gate alone bounds a handler, to three quarters of all.
    pub in_flight_max: Option<usize>,
    /// Bounds of the handler's queues.
    pub queue: QueueLimits,
}

/// Bounds of one queue of requests. Each worker has three queues per handler.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct QueueLimits {
    /// How many requests may wait.
    pub length_max: usize,
    /// How long a request may wait.
    pub wait_max: Duration,
}

/// What compiling a file may use.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub struct CompileLimits {
    /// CPU time of all threads of the compiler process.
    pub cpu_max: Duration,
    /// Bytes of memory of the compiler process.
    pub memory_bytes_max: usize,
}

/// Variables that a guest can read, each name once. Values may be secrets, so `Debug` shows the
/// names only.
#[derive(Clone, Default, Serialize, Deserialize)]
pub struct Variables {
    /// Environment variables.
    pub env: Arc<[(String, String)]>,
    /// Variables of `wasi:config`.
    pub config: Arc<[(String, String)]>,
}

/// Which requests a guest may send.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct OutboundGrants {
    /// Destinations that the guest may send to. Requests to any other are denied.
    pub allowed: Arc<[Allowance]>,
    /// Requests in flight to one destination, all workers together. Each worker gets an equal
    /// part, and as many again may wait there.
    pub in_flight_max: usize,
    /// The longest timeout that a guest may choose, for the connection, for the first byte of the
    /// response, and between two bytes.
    pub timeout_max: Duration,
}

/// A destination, or a pattern of destinations, that a guest may send requests to.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Allowance {
    /// Whether it allows https; otherwise it allows http.
    pub is_secure: bool,
    /// The hosts that it allows.
    pub hosts: HostPattern,
    /// The port that it allows; `None` allows every port.
    pub port: Option<u16>,
    /// Networks that are not public, but that the host's address may be in.
    pub networks: Vec<Network>,
}

/// The hosts of an [`Allowance`]. Names are in lower case, without a dot at the end.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum HostPattern {
    /// The host is written as this address.
    Address(IpAddr),
    /// The host has exactly this name.
    Name(Box<str>),
    /// All subdomains of this name, but not the name itself.
    Below(Box<str>),
    /// Any host.
    Every,
}

/// A range of addresses (CIDR): all that share the first `bits` bits of `address`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Network {
    address: IpAddr,
    bits: u32,
}

impl Limits {
    /// Bytes of a request body that the host buffers for a guest: `body_bytes_max`, or if that is
    /// unlimited, as many as the guest's memory may have.
    pub fn buffered_bytes_max(&self) -> u64 {
        self.body_bytes_max.unwrap_or(self.memory_bytes_max as u64)
    }
}

impl Network {
    /// The addresses that share the first `bits` bits of `address`.
    pub const fn new(address: IpAddr, bits: u32) -> Self {
        Network { address, bits }
    }

    /// The network of this one address.
    pub fn of(address: IpAddr) -> Self {
        Network { address, bits: if address.is_ipv4() { 32 } else { 128 } }
    }

    /// Whether `address` is in this network. An IPv4 network contains no IPv6 address.
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

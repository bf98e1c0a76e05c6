//! Counts the open connections, in all and per client.
//!
//! Owns both limits. All workers share the counts: a connection takes a lock when it begins and
//! when it ends, a request never does.

use std::collections::HashMap;
use std::hash::{BuildHasher, Hash, RandomState};
use std::net::{IpAddr, SocketAddr};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::config::Config;
use crate::guest::engine::resources::{descriptors_max, descriptors_reserved};

/// How many connections may exceed the limit while others are being closed for them.
const OVER_LIMIT_MAX: usize = 64;
const SHARDS: usize = 16;
/// The most upstream connections that one worker may have.
const UPSTREAM_MAX: usize = 256;

/// All connections of the host, counted.
pub struct Clients {
    open: AtomicUsize,
    open_max: usize,
    per_client_max: usize,
    shards: [Mutex<HashMap<ClientKey, usize>>; SHARDS],
    hasher: RandomState,
}

/// Identifies a client: an IPv4 address, or the first 64 bits of an IPv6 address, because one
/// client commonly has a whole /64 network (RFC 6177).
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum ClientKey {
    /// An IPv4 address, also if it was mapped to IPv6.
    V4([u8; 4]),
    /// The first 64 bits of an IPv6 address.
    V6([u8; 8]),
}

/// Counts one connection of a client until this is dropped.
pub struct ClientPermit {
    clients: Arc<Clients>,
    client: ClientKey,
}

/// Why a connection is refused.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ConnectionRefusal {
    /// The host has as many connections as it may have.
    InAll,
    /// This client has as many connections as one client may have.
    OfThisClient,
}

impl Clients {
    /// Counts that start at zero. Call it after the limit on open files has been raised, because
    /// the default limit on connections depends on it.
    pub fn new(config: &Config) -> Arc<Self> {
        let limits = &config.connections;
        let open_max = limits.count_max.unwrap_or_else(|| {
            let files = descriptors_max();
            let upstream = upstream_max(files, config.workers) * config.workers;
            let upstream = if config.upstream.is_some() { upstream } else { 0 };
            connection_descriptors(files).saturating_sub(upstream).max(1)
        });
        Arc::new(Clients {
            open: AtomicUsize::new(0),
            open_max,
            per_client_max: limits.per_client_max.unwrap_or(open_max - open_max / 4),
            shards: std::array::from_fn(|_| Mutex::default()),
            hasher: RandomState::new(),
        })
    }

    /// Counts a new connection of `peer`.
    ///
    /// # Errors
    /// There are too many already.
    pub fn acquire(self: &Arc<Self>, peer: SocketAddr) -> Result<ClientPermit, ConnectionRefusal> {
        self.enter_among(peer, self.open_max)
    }

    /// Counts a new connection for which another is being closed, so it may exceed the limit.
    ///
    /// # Errors
    /// As [`Clients::acquire`], with [`OVER_LIMIT_MAX`] connections more.
    pub fn acquire_over_limit(
        self: &Arc<Self>,
        peer: SocketAddr,
    ) -> Result<ClientPermit, ConnectionRefusal> {
        self.enter_among(peer, self.open_max + OVER_LIMIT_MAX)
    }

    fn enter_among(
        self: &Arc<Self>,
        peer: SocketAddr,
        open_max: usize,
    ) -> Result<ClientPermit, ConnectionRefusal> {
        let client = ClientKey::of(peer.ip());
        let mut shard = self.shard(&client);
        let count = shard.entry(client).or_default();
        if *count >= self.per_client_max {
            return Err(ConnectionRefusal::OfThisClient);
        }
        if self.open.fetch_add(1, Ordering::Relaxed) >= open_max {
            self.open.fetch_sub(1, Ordering::Relaxed);
            if *count == 0 {
                shard.remove(&client);
            }
            return Err(ConnectionRefusal::InAll);
        }
        *count += 1;
        Ok(ClientPermit { clients: self.clone(), client })
    }

    /// Whether seven eighths of the limit are in use, so that idle connections may have to close.
    pub fn is_nearly_full(&self) -> bool {
        self.open.load(Ordering::Relaxed) >= self.open_max - self.open_max / 8
    }

    fn shard(&self, client: &ClientKey) -> MutexGuard<'_, HashMap<ClientKey, usize>> {
        let at = self.hasher.hash_one(client) as usize % SHARDS;
        self.shards[at].lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// How many of `files` descriptors are left for connections to clients and to the upstream.
fn connection_descriptors(files: u64) -> usize {
    usize::try_from(files - descriptors_reserved(files)).unwrap_or(usize::MAX)
}

/// How many upstream connections each worker may have. All workers together get half of the
/// descriptors that are left for connections.
pub fn upstream_max(files: u64, workers: usize) -> usize {
    (connection_descriptors(files) / 2 / workers).clamp(1, UPSTREAM_MAX)
}

impl ClientKey {
    /// The key of the client with this address.
    pub fn of(address: IpAddr) -> Self {
        match address.to_canonical() {
            IpAddr::V4(address) => ClientKey::V4(address.octets()),
            IpAddr::V6(address) => {
                let [first @ .., _, _, _, _, _, _, _, _] = address.octets();
                ClientKey::V6(first)
            }
        }
    }
}

impl Drop for ClientPermit {
    fn drop(&mut self) {
        let mut shard = self.clients.shard(&self.client);
        if let Some(count) = shard.get_mut(&self.client) {
            *count -= 1;
            if *count == 0 {
                shard.remove(&self.client);
            }
        }
        self.clients.open.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests;

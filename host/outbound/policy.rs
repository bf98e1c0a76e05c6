//! Decides which destinations and addresses a handler may send requests to.

use std::collections::HashSet;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::Mutex;

use http::Uri;
use http::uri::{Authority, Scheme};

use super::address::is_public;
use super::failure::OutboundFailure;
use crate::grants::{Allowance, HostPattern, Network};

/// How many different denials are logged. Later ones are not.
const NOTED_MAX: usize = 1_000;

/// Handlers and destinations whose denial was logged, so that each is logged once.
#[derive(Default)]
pub struct DenialLog(Mutex<HashSet<(Box<str>, Destination)>>);

/// The server that a request goes to.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct Destination {
    /// Whether the scheme is https.
    pub is_secure: bool,
    /// The host.
    pub host: DestinationHost,
    /// The port, also if it is the default one.
    pub port: u16,
}

/// The host of a [`Destination`].
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub enum DestinationHost {
    /// A literal address, IPv4 if it was mapped to IPv6.
    Address(IpAddr),
    /// A name in lower case, without a dot at the end.
    Name(Box<str>),
}

/// The networks that an allowed destination may be in besides the public ones.
#[derive(Debug)]
pub struct AllowedNetworks(Vec<Network>);

impl AllowedNetworks {
    /// Whether the destination may have this address.
    pub fn allows(&self, address: IpAddr) -> bool {
        let address = address.to_canonical();
        is_public(address) || self.0.iter().any(|network| network.contains(address))
    }
}

/// Whether a handler with these allowances may send requests to `destination`. If so, returns the
/// networks that it may be in.
pub fn allowed_networks(
    allowed: &[Allowance],
    destination: &Destination,
) -> Option<AllowedNetworks> {
    let mut found = None;
    for allowance in allowed.iter().filter(|it| it.covers(destination)) {
        let networks: &mut Vec<Network> = found.get_or_insert_default();
        networks.extend_from_slice(&allowance.networks);
        match (&allowance.hosts, &destination.host) {
            (HostPattern::Address(address), _) => networks.push(Network::of(*address)),
            (HostPattern::Name(_) | HostPattern::Below(_), DestinationHost::Name(name))
                if is_local(name) =>
            {
                networks.push(Network::new(IpAddr::V4(Ipv4Addr::new(127, 0, 0, 0)), 8));
                networks.push(Network::of(IpAddr::V6(Ipv6Addr::LOCALHOST)));
            }
            _ => {}
        }
    }
    found.map(AllowedNetworks)
}

impl DenialLog {
    /// Whether this denial has not been logged yet, and may be. Never blocks: if another thread has
    /// the lock, returns `false`, and a later denial is logged.
    pub fn is_first(&self, guest: &str, destination: &Destination) -> bool {
        let Ok(mut noted) = self.0.try_lock() else { return false };
        noted.len() < NOTED_MAX && noted.insert((guest.into(), destination.clone()))
    }
}

/// Whether a name always means this machine (RFC 6761, 6.3).
fn is_local(name: &str) -> bool {
    name == "localhost" || name.ends_with(".localhost")
}

impl Allowance {
    fn covers(&self, destination: &Destination) -> bool {
        let is_host = match (&self.hosts, &destination.host) {
            (HostPattern::Every, _) => true,
            (HostPattern::Address(address), DestinationHost::Address(other)) => address == other,
            (HostPattern::Name(name), DestinationHost::Name(other)) => name == other,
            (HostPattern::Below(name), DestinationHost::Name(other)) => {
                other.strip_suffix(&**name).is_some_and(|sub| sub.len() > 1 && sub.ends_with('.'))
            }
            _ => false,
        };
        is_host
            && self.is_secure == destination.is_secure
            && self.port.is_none_or(|port| port == destination.port)
    }
}

impl Destination {
    /// The destination of an absolute http or https URI.
    ///
    /// # Errors
    /// [`OutboundFailure::BadUri`].
    pub fn of(uri: &Uri) -> Result<Destination, OutboundFailure> {
        let is_secure = match uri.scheme() {
            Some(scheme) if *scheme == Scheme::HTTPS => true,
            Some(scheme) if *scheme == Scheme::HTTP => false,
            _ => return Err(OutboundFailure::BadUri),
        };
        let authority = uri.authority().ok_or(OutboundFailure::BadUri)?;
        let host = authority.host();
        let has_port = authority.as_str().len() > host.len();
        let port = match authority.port_u16() {
            Some(0) => return Err(OutboundFailure::BadUri),
            Some(port) => port,
            // Userinfo, or a port that is not a number.
            None if has_port => return Err(OutboundFailure::BadUri),
            None => default_port(is_secure),
        };
        if authority.as_str().contains('@') {
            return Err(OutboundFailure::BadUri);
        }
        Ok(Destination { is_secure, host: DestinationHost::of(host)?, port })
    }

    /// The destination that the operator has configured. If the host is not a valid name, the
    /// lookup will fail.
    pub fn named(is_secure: bool, authority: &Authority) -> Destination {
        let port = authority.port_u16().unwrap_or(default_port(is_secure));
        let host = DestinationHost::of(authority.host());
        let host = host.unwrap_or_else(|_| DestinationHost::Name(authority.host().into()));
        Destination { is_secure, host, port }
    }

    /// `host[:port]`, as in a `Host` header.
    pub fn authority(&self) -> String {
        if self.port == default_port(self.is_secure) {
            return self.host.to_string();
        }
        format!("{}:{}", self.host, self.port)
    }
}

fn default_port(is_secure: bool) -> u16 {
    if is_secure { 443 } else { 80 }
}

impl DestinationHost {
    fn of(text: &str) -> Result<DestinationHost, OutboundFailure> {
        let bare = text.strip_prefix('[').and_then(|text| text.strip_suffix(']'));
        if let Ok(address) = bare.unwrap_or(text).parse::<IpAddr>() {
            return Ok(DestinationHost::Address(address.to_canonical()));
        }
        let name = text.strip_suffix('.').unwrap_or(text).to_ascii_lowercase();
        let is_part = |c: char| c.is_ascii_alphanumeric() || "-._".contains(c);
        if name.is_empty() || name.len() > 253 || !name.chars().all(is_part) {
            return Err(OutboundFailure::BadUri);
        }
        Ok(DestinationHost::Name(name.into()))
    }
}

impl std::fmt::Display for DestinationHost {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            DestinationHost::Address(IpAddr::V6(address)) => write!(f, "[{address}]"),
            DestinationHost::Address(address) => write!(f, "{address}"),
            DestinationHost::Name(name) => f.write_str(name),
        }
    }
}

/// As a URL.
impl std::fmt::Display for Destination {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let scheme = if self.is_secure { "https" } else { "http" };
        write!(f, "{scheme}://{}", self.authority())
    }
}

//! Where guests may send requests of their own to, and how many at a time.

use std::collections::BTreeSet;
use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use super::Mistakes;
use super::amount::{self, Count, OUTBOUND};

/// What requests guests may make.
#[derive(Clone, Debug)]
pub struct Outbound {
    pub allowed: Vec<Allowance>,
    /// Requests of one guest to one destination, all workers together. Each worker has an equal
    /// part, and as many more may wait there.
    pub in_flight_max: usize,
    /// The longest that a guest may have itself wait: for a connection, for the first byte of a
    /// response, and between two.
    pub timeout_max: Duration,
}

/// One destination that a guest may send requests to, or many of a kind.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Allowance {
    /// Whom it is for; `None` for all guests.
    pub guest: Option<Box<str>>,
    /// Whether it is for https, or else for http.
    pub is_secure: bool,
    pub hosts: Hosts,
    /// `None` for every port.
    pub port: Option<u16>,
    /// Networks that the host may be in although they are not public.
    pub networks: Vec<Network>,
}

/// The hosts that an allowance is for. Names are in lower case, without a dot at the end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Hosts {
    Address(IpAddr),
    Name(Box<str>),
    /// All below this name, but not itself.
    Below(Box<str>),
    Every,
}

/// A range of addresses: those which begin with the same bits as this one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Network {
    address: IpAddr,
    bits: u32,
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

    fn parse(text: &str) -> Result<Self, String> {
        const FORM: &str = "write it as 10.0.0.0/8, fd00::/8 or 10.1.2.3";
        let (address, bits) = match text.split_once('/') {
            Some((address, bits)) => (address, Some(bits)),
            None => (text, None),
        };
        let address: IpAddr =
            address.parse().map_err(|_| format!("{text:?} is not a network; {FORM}"))?;
        let whole = Network::of(address);
        let Some(bits) = bits else { return Ok(whole) };
        match bits.parse() {
            Ok(bits) if bits <= whole.bits => Ok(Network { address, bits }),
            _ => Err(format!("{text:?} has no prefix of 0 to {} bits; {FORM}", whole.bits)),
        }
    }
}

impl fmt::Display for Hosts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Hosts::Address(IpAddr::V6(address)) => write!(f, "[{address}]"),
            Hosts::Address(address) => write!(f, "{address}"),
            Hosts::Name(name) => f.write_str(name),
            Hosts::Below(name) => write!(f, "*.{name}"),
            Hosts::Every => f.write_str("*"),
        }
    }
}

/// The heading in `--help`.
const HEADING: &str = "Requests that guests make";
const IN_FLIGHT: Count = amount::count("--outbound-max", (1, 10_000));
const IN_FLIGHT_MAX: usize = 64;

const ALLOW: &str = "--allow-outbound";
const ALLOW_HELP: &str = "Let a guest send requests to http[s]://HOST[:PORT]; may be repeated. \
    GUEST is its path below the folder without ending, or * for all; HOST a name, *.NAME, * or an \
    address; PORT may be *. Networks that are not public go behind it: api=http://db:80,10.0.0.0/8";
const IN_FLIGHT_HELP: &str =
    "Requests of one guest to one destination at a time; as many more may wait";
const TIMEOUT_HELP: &str =
    "Longest wait that a guest may choose for a connection, a first byte, or the next one";

/// The flags as they were typed.
#[derive(clap::Args, Clone, Debug)]
pub struct OutboundFlags {
    #[arg(long, value_name = "GUEST=URL", help_heading = HEADING, help = ALLOW_HELP)]
    allow_outbound: Vec<String>,

    #[arg(
        long,
        value_name = "N",
        help_heading = HEADING,
        help = IN_FLIGHT_HELP,
        default_value_t = IN_FLIGHT_MAX.to_string()
    )]
    outbound_max: String,

    #[arg(
        long,
        value_name = "TIME",
        help_heading = HEADING,
        help = TIMEOUT_HELP,
        default_value_t = OUTBOUND.default()
    )]
    outbound_timeout: String,
}

impl OutboundFlags {
    pub(super) fn validate(&self, mistakes: &mut Mistakes) -> Outbound {
        let mut allowed = Vec::new();
        for text in &self.allow_outbound {
            match Allowance::parse(text) {
                Ok(allowance) => allowed.push(allowance),
                Err(mistake) => mistakes.0.push(format!("{ALLOW}: {mistake}")),
            }
        }
        Outbound {
            allowed,
            in_flight_max: IN_FLIGHT.check(&self.outbound_max, mistakes).unwrap_or(IN_FLIGHT_MAX),
            timeout_max: mistakes.time(&OUTBOUND, &self.outbound_timeout),
        }
    }
}

impl Default for Outbound {
    fn default() -> Self {
        let timeout_max = Duration::from_millis(OUTBOUND.default);
        Outbound { allowed: Vec::new(), in_flight_max: IN_FLIGHT_MAX, timeout_max }
    }
}

impl Outbound {
    /// Guests that are named and of which `is_known` does not know, each with the flag.
    pub fn unknown(&self, is_known: impl Fn(&str) -> bool) -> BTreeSet<(&'static str, &str)> {
        let named = self.allowed.iter().filter_map(|it| it.guest.as_deref());
        named.filter(|guest| !is_known(guest)).map(|guest| (ALLOW, guest)).collect()
    }

    /// Lets a guest send requests to the addresses that the host itself listens on.
    pub fn allow_own(&mut self, guest: &str, addresses: &[SocketAddr]) {
        for address in addresses {
            let ip = match address.ip() {
                IpAddr::V4(ip) if ip.is_unspecified() => IpAddr::V4(Ipv4Addr::LOCALHOST),
                IpAddr::V6(ip) if ip.is_unspecified() => IpAddr::V6(Ipv6Addr::LOCALHOST),
                ip => ip,
            };
            let mut hosts = vec![Hosts::Address(ip)];
            if ip.is_loopback() {
                hosts.push(Hosts::Name("localhost".into()));
            }
            self.allowed.extend(hosts.into_iter().map(|hosts| Allowance {
                guest: Some(guest.into()),
                is_secure: false,
                hosts,
                port: Some(address.port()),
                networks: Vec::new(),
            }));
        }
    }
}

impl Allowance {
    /// Parses `guest=http[s]://host[:port][,network...]`.
    fn parse(text: &str) -> Result<Self, String> {
        const FORM: &str = "write GUEST=URL, such as api=https://api.example.com";
        let mut parts = text.split(',').map(str::trim);
        let first = parts.next().unwrap_or_default();
        // A file's name may have the sign in it; a host has not.
        let Some((guest, url)) = first.rsplit_once('=') else {
            return Err(format!("{text:?} does not say which guest; {FORM}"));
        };
        let guest = guest.trim();
        if guest.is_empty() {
            return Err(format!("{text:?} names no guest; {FORM}, or * for all guests"));
        }
        let (is_secure, rest) = scheme(url.trim())
            .ok_or_else(|| format!("{url:?} does not begin with http:// or https://; {FORM}"))?;
        let (host, port) = authority(rest.strip_suffix('/').unwrap_or(rest), is_secure)?;
        let networks = parts.map(Network::parse).collect::<Result<_, _>>()?;
        let guest = (guest != "*").then(|| guest.into());
        Ok(Allowance { guest, is_secure, hosts: Hosts::parse(host)?, port, networks })
    }
}

fn scheme(url: &str) -> Option<(bool, &str)> {
    let (scheme, rest) = url.split_once("://")?;
    match scheme.to_ascii_lowercase().as_str() {
        "http" => Some((false, rest)),
        "https" => Some((true, rest)),
        _ => None,
    }
}

/// Host and port of `host[:port]`; the port of the scheme if there is none.
fn authority(text: &str, is_secure: bool) -> Result<(&str, Option<u16>), String> {
    if text.contains('@') {
        return Err(format!("{text:?} has a user name; leave it out"));
    }
    if text.contains(['/', '?', '#']) {
        return Err(format!("{text:?} has a path; leave it out: a host is allowed as a whole"));
    }
    let (host, port) = match text.rsplit_once(':') {
        // A colon within the brackets of an address is no port's.
        Some((host, port)) if !port.ends_with(']') => (host, Some(port)),
        _ => (text, None),
    };
    let port = match port {
        None => Some(if is_secure { 443 } else { 80 }),
        Some("*") => None,
        Some(port) => match port.parse() {
            Ok(port) if port > 0 => Some(port),
            _ => return Err(format!("{port:?} is not a port; choose one from 1 to 65535, or *")),
        },
    };
    Ok((host, port))
}

impl Hosts {
    fn parse(text: &str) -> Result<Self, String> {
        const FORM: &str =
            "write a name, *.NAME for all below it, * for all, or an address ([::1] for IPv6)";
        if text == "*" {
            return Ok(Hosts::Every);
        }
        let bare = text.strip_prefix('[').and_then(|text| text.strip_suffix(']'));
        if let Ok(address) = bare.unwrap_or(text).parse::<IpAddr>()
            && address.is_ipv6() == bare.is_some()
        {
            return Ok(Hosts::Address(address.to_canonical()));
        }
        let name = text.strip_suffix('.').unwrap_or(text).to_ascii_lowercase();
        let (is_below, name) = match name.strip_prefix("*.") {
            Some(name) => (true, name),
            None => (false, name.as_str()),
        };
        let is_label = |label: &str| {
            let is_part = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '_';
            (1..=63).contains(&label.len()) && label.chars().all(is_part)
        };
        if name.len() > 253 || !name.split('.').all(is_label) {
            return Err(format!("{text:?} is not a host; {FORM}"));
        }
        if name.rsplit('.').next().is_some_and(|last| last.chars().all(|c| c.is_ascii_digit())) {
            return Err(format!("{text:?} is not an address; write all four numbers of it"));
        }
        Ok(if is_below { Hosts::Below(name.into()) } else { Hosts::Name(name.into()) })
    }
}

//! Parses `--allow-outbound`: to which servers handlers may send requests.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use crate::grants::{Allowance, HostPattern, Network};

pub(super) const ALLOW: &str = "--allow-outbound";

/// Allowances for an address that the host itself listens on. An unspecified address stands for the
/// loopback one, and loopback can also be reached as `localhost`.
pub(super) fn own_allowances(address: SocketAddr) -> impl Iterator<Item = Allowance> {
    let ip = match address.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => IpAddr::V4(Ipv4Addr::LOCALHOST),
        IpAddr::V6(ip) if ip.is_unspecified() => IpAddr::V6(Ipv6Addr::LOCALHOST),
        ip => ip,
    };
    let name = ip.is_loopback().then(|| HostPattern::Name("localhost".into()));
    [HostPattern::Address(ip)].into_iter().chain(name).map(move |hosts| Allowance {
        is_secure: false,
        hosts,
        port: Some(address.port()),
        networks: Vec::new(),
    })
}

/// Parses `HANDLER=http[s]://host[:port][,network...]`.
pub(super) fn allowance(text: &str) -> Result<(&str, Allowance), String> {
    const FORM: &str = "write HANDLER=URL, such as api=https://api.example.com";
    let mut parts = text.split(',').map(str::trim);
    let first = parts.next().unwrap_or_default();
    // The name ends at the last `=`: a file's name may contain one, and a host cannot.
    let Some((name, url)) = first.rsplit_once('=') else {
        return Err(format!("{text:?} does not say which handler; {FORM}"));
    };
    let name = name.trim();
    if name.is_empty() {
        return Err(format!("{text:?} names no handler; {FORM}, or * for all handlers"));
    }
    let (is_secure, rest) = scheme(url.trim())
        .ok_or_else(|| format!("{url:?} does not begin with http:// or https://; {FORM}"))?;
    let (host, port) = authority(rest.strip_suffix('/').unwrap_or(rest), is_secure)?;
    let networks = parts.map(network).collect::<Result<_, _>>()?;
    Ok((name, Allowance { is_secure, hosts: hosts(host)?, port, networks }))
}

fn network(text: &str) -> Result<Network, String> {
    const FORM: &str = "write it as 10.0.0.0/8, fd00::/8 or 10.1.2.3";
    let (address, bits) = match text.split_once('/') {
        Some((address, bits)) => (address, Some(bits)),
        None => (text, None),
    };
    let address: IpAddr =
        address.parse().map_err(|_| format!("{text:?} is not a network; {FORM}"))?;
    let Some(bits) = bits else { return Ok(Network::of(address)) };
    let most = if address.is_ipv4() { 32 } else { 128 };
    match bits.parse() {
        Ok(bits) if bits <= most => Ok(Network::new(address, bits)),
        _ => Err(format!("{text:?} has no prefix of 0 to {most} bits; {FORM}")),
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

/// Host and port of `host[:port]`. Without a port it is that of the scheme; `None` is every port.
fn authority(text: &str, is_secure: bool) -> Result<(&str, Option<u16>), String> {
    if text.contains('@') {
        return Err(format!("{text:?} has a user name; leave it out"));
    }
    if text.contains(['/', '?', '#']) {
        return Err(format!("{text:?} has a path; leave it out: a host is allowed as a whole"));
    }
    let (host, port) = match text.rsplit_once(':') {
        // A colon within the brackets of an IPv6 address does not begin a port.
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

fn hosts(text: &str) -> Result<HostPattern, String> {
    const FORM: &str =
        "write a name, *.NAME for all below it, * for all, or an address ([::1] for IPv6)";
    if text == "*" {
        return Ok(HostPattern::Every);
    }
    let bare = text.strip_prefix('[').and_then(|text| text.strip_suffix(']'));
    if let Ok(address) = bare.unwrap_or(text).parse::<IpAddr>()
        && address.is_ipv6() == bare.is_some()
    {
        return Ok(HostPattern::Address(address.to_canonical()));
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
    Ok(if is_below { HostPattern::Below(name.into()) } else { HostPattern::Name(name.into()) })
}

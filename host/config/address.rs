//! Addresses to listen on and the URL of the upstream.

use std::net::{SocketAddr, ToSocketAddrs};

use http::uri::{Authority, PathAndQuery};

use super::mistakes::Mistakes;

/// The server that gets the requests which no handler answers.
#[derive(Clone, Debug)]
pub struct UpstreamUrl {
    /// Whether the host connects to it by TLS.
    pub is_secure: bool,
    /// Host, and port if the URL has one. The default is 443 by TLS, else 80.
    pub authority: Authority,
    /// What the host puts in front of a request's path. It has no slash at its end, and is empty
    /// if the URL has no path.
    pub base_path: String,
}

/// The addresses of `--listen`, each once. A mistake for each that is none, or that is given twice.
pub(super) fn listen(texts: &[String], mistakes: &mut Mistakes) -> Vec<SocketAddr> {
    let mut found: Vec<SocketAddr> = Vec::new();
    for text in texts {
        match address(text) {
            Ok(addr) if addr.port() != 0 && found.contains(&addr) => {
                mistakes.0.push(format!("--listen: {addr} is given twice; leave one out"));
            }
            Ok(addr) => found.push(addr),
            Err(mistake) => mistakes.0.push(format!("--listen: {mistake}")),
        }
    }
    found
}

fn address(text: &str) -> Result<SocketAddr, String> {
    const FORM: &str = "write IP:PORT, such as 127.0.0.1:8080 for this machine alone or \
                        0.0.0.0:8080 for every network it is in";
    if let Ok(addr) = text.parse() {
        return Ok(addr);
    }
    if text.contains('/') {
        return Err(format!("{text:?} is a URL or a path; {FORM}"));
    }
    let Some((host, port)) = text.rsplit_once(':') else {
        return Err(format!("{text:?} has no port; {FORM}"));
    };
    if host.is_empty() {
        return Err(format!("{text:?} does not say on which address; {FORM}"));
    }
    let port: u16 =
        port.parse().map_err(|_| format!("{port:?} is not a port; choose one from 0 to 65535"))?;
    let all: Vec<SocketAddr> = (host, port)
        .to_socket_addrs()
        .map_err(|error| format!("{host:?} cannot be resolved ({error}); {FORM}"))?
        .collect();
    // A name may have several addresses. IPv4 comes first, as not every machine has IPv6.
    let first = all.iter().find(|addr| addr.is_ipv4()).or(all.first());
    first.copied().ok_or_else(|| format!("{host:?} has no address; {FORM}"))
}

/// Parses `http://host[:port][/base]`, or the same with `https`.
pub(super) fn upstream(url: &str) -> Result<UpstreamUrl, String> {
    const FORM: &str = "write http://HOST[:PORT][/BASE], such as http://127.0.0.1:3000, or the \
                        same with https://";
    let Some((scheme, rest)) = url.split_once("://") else {
        return Err(format!("{url:?} does not begin with http:// or https://; {FORM}"));
    };
    let is_secure = scheme.eq_ignore_ascii_case("https");
    if !is_secure && !scheme.eq_ignore_ascii_case("http") {
        return Err(format!("{scheme:?} is not a supported scheme; {FORM}"));
    }
    if rest.contains(['?', '#']) {
        return Err(format!("{url:?} has a query or a fragment; leave it out"));
    }
    let (host, path) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
    if host.contains('@') {
        return Err("a user name or password in the URL is not sent to the upstream; leave \
                    it out, and let a local proxy add the Authorization header"
            .into());
    }
    let authority: Option<Authority> = host.parse().ok();
    let Some(authority) = authority.filter(|authority| !authority.host().is_empty()) else {
        return Err(format!("{url:?} names no host; {FORM}"));
    };
    let port_given = authority.host().len() < host.len();
    if port_given && authority.port_u16().is_none_or(|port| port == 0) {
        return Err(format!("{host:?} has no usable port; choose one from 1 to 65535"));
    }
    let base_path = path.trim_end_matches('/');
    if !base_path.is_ascii() || !path.is_empty() && path.parse::<PathAndQuery>().is_err() {
        return Err(format!("{path:?} is not a URL path; percent-encode it"));
    }
    Ok(UpstreamUrl { is_secure, authority, base_path: base_path.to_owned() })
}

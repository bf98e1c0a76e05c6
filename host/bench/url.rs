//! Parses the URLs of servers as users type them.
//!
//! Owns which URLs are accepted: those that curl accepts, if they are http. Resolves nothing.

use std::net::Ipv6Addr;

/// A URL and its parts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Url {
    /// The text that the user has typed.
    pub text: String,
    /// `host:port`. An IPv6 address stands in brackets.
    pub authority: String,
    /// The path with the query, percent-encoded. It begins with a slash.
    pub path: String,
}

/// Schemes that one slash may follow, as in curl. Any other word before `:/` is a host.
const SCHEMES: [&str; 5] = ["http", "https", "ws", "wss", "ftp"];

const EXAMPLE: &str = "write http://127.0.0.1:8080/hello";

impl Url {
    /// Parses a URL. If it has no scheme, it is http. Its fragment is dropped.
    ///
    /// # Errors
    /// The URL cannot be used. The text says why.
    pub fn parse(text: &str) -> Result<Url, String> {
        let (authority, path) = parts(text).map_err(|why| format!("{text:?} {why}"))?;
        Ok(Url { text: text.to_owned(), authority, path })
    }
}

fn parts(text: &str) -> Result<(String, String), String> {
    let is_not = |why: &str| format!("is not a URL: {why}; {EXAMPLE}");
    if let Some(found) = text.chars().find(|it| it.is_control() || it.is_whitespace()) {
        return Err(is_not(match found {
            ' ' => "there is a space in it, which is written %20",
            _ => "there is a control character in it",
        }));
    }
    let is_scheme = |it: &str| it.bytes().all(|it| it.is_ascii_alphanumeric());
    let scheme = text.split_once("://").filter(|(scheme, _)| is_scheme(scheme));
    let (scheme, rest) = match (scheme, text.split_once(":/")) {
        (_, Some((scheme, rest))) if SCHEMES.iter().any(|it| it.eq_ignore_ascii_case(scheme)) => {
            (scheme, rest.strip_prefix('/').unwrap_or(rest))
        }
        (Some(scheme), _) => scheme,
        (None, _) => ("http", text),
    };
    if !scheme.eq_ignore_ascii_case("http") {
        return Err(
            "has another scheme: only http is measured; TLS would be what is compared".into()
        );
    }
    let rest = rest.split_once('#').map_or(rest, |(rest, _)| rest);
    let (authority, path) = rest.split_at(rest.find(['/', '?']).unwrap_or(rest.len()));
    if authority.contains('@') {
        return Err("names a user: give user and password as a header: \
                    -H 'Authorization: Basic ...'"
            .into());
    }
    let (host, port) = host(authority).map_err(|why| is_not(&why))?;
    let slash = if path.starts_with('/') { "" } else { "/" };
    let (path, query) = path.split_at(path.find('?').unwrap_or(path.len()));
    let path = without_dots(&encoded(&format!("{slash}{path}")));
    Ok((format!("{host}:{port}"), path + &encoded(query)))
}

/// A path without its segments `.` and `..`. A segment `..` also removes the segment before it (RFC
/// 3986, 5.2.4).
fn without_dots(path: &str) -> String {
    let mut segments: Vec<&str> = Vec::new();
    let mut ends_in_dots = false;
    for segment in path.split('/').skip(1) {
        let dots = segment.replace("%2e", ".").replace("%2E", ".");
        ends_in_dots = matches!(&dots[..], "." | "..");
        match &dots[..] {
            "." => {}
            ".." => drop(segments.pop()),
            _ => segments.push(segment),
        }
    }
    let end = if ends_in_dots && !segments.is_empty() { "/" } else { "" };
    format!("/{}{end}", segments.join("/"))
}

/// Host and port.
fn host(authority: &str) -> Result<(&str, u16), String> {
    let (host, port) = if authority.starts_with('[') {
        let end = authority.find(']').ok_or("a bracket is not closed")?;
        let (host, port) = authority.split_at(end + 1);
        let address = &host[1..end];
        if address.parse::<Ipv6Addr>().is_err() {
            return Err(format!("[{address}] is no IPv6 address"));
        }
        (host, port)
    } else {
        authority.split_at(authority.find(':').unwrap_or(authority.len()))
    };
    if port.matches(':').count() > 1 {
        return Err("an IPv6 address stands in brackets, as in http://[::1]:8080/".into());
    }
    if host.is_empty() {
        return Err("it names no host".into());
    }
    let is_of_name = |it: char| it.is_ascii_alphanumeric() || "-._~!$&'()*+,;=%".contains(it);
    if !host.starts_with('[')
        && let Some(odd) = host.chars().find(|it| !is_of_name(*it))
    {
        return Err(format!("no name of a host has {odd:?} in it"));
    }
    match port.strip_prefix(':') {
        None if port.is_empty() => Ok((host, 80)),
        None => Err(format!("{port:?} stands behind the host")),
        Some("") => Ok((host, 80)),
        Some(port) => {
            let digits = port.bytes().all(|it| it.is_ascii_digit()).then(|| port.parse::<u16>());
            let number = digits.and_then(Result::ok).filter(|port| *port > 0);
            Ok((host, number.ok_or("a port is a number from 1 to 65535")?))
        }
    }
}

/// A path or query, in which `%XX` stands for each byte that may not be in one.
fn encoded(path: &str) -> String {
    let mut encoded = String::new();
    for byte in path.bytes() {
        match byte {
            b'"' | b'<' | b'>' | b'\\' | b'^' | b'`' | b'{' | b'|' | b'}' | 0x80.. => {
                encoded += &format!("%{byte:02X}");
            }
            byte => encoded.push(char::from(byte)),
        }
    }
    encoded
}

#[cfg(test)]
mod tests;

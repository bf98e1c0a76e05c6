//! Rules for header fields that every HTTP hop has to follow.

#[cfg(test)]
mod tests;

use http::header::{
    CONNECTION, CONTENT_LENGTH, CONTENT_TYPE, HOST, TE, TRANSFER_ENCODING, UPGRADE,
};
use http::{HeaderMap, HeaderName, HeaderValue};

/// How many fields a guest may set in one map. `HeaderMap` panics beyond 24,576 fields; two maps of
/// a guest are joined, and the host adds its own fields.
pub const FIELDS_MAX: usize = 10_000;
/// A map with more fields than this counts as large. hyper reads 100 fields at most, from clients
/// and from servers, so only guests make larger ones.
pub const FIELDS_FEW: usize = 128;
/// How many bytes a method may have that a guest sets.
pub const METHOD_BYTES_MAX: usize = 64;

/// Hop-by-hop fields (RFC 9110, 7.6.1). `Trailer` is none: it announces trailers, which are
/// forwarded.
const HOP_BY_HOP: [HeaderName; 6] = [
    CONNECTION,
    HeaderName::from_static("keep-alive"),
    HeaderName::from_static("proxy-connection"),
    TE,
    TRANSFER_ENCODING,
    UPGRADE,
];

/// How many bytes the names and values of all fields have.
pub fn head_bytes(headers: &HeaderMap) -> usize {
    headers.iter().map(|(name, value)| name.as_str().len() + value.len()).sum()
}

/// Moves the fields into a new map of their size. A map that once had many fields would keep its
/// large allocation.
pub fn compact(headers: &mut HeaderMap) {
    let all = std::mem::take(headers);
    headers.extend(all);
}

/// Removes hop-by-hop fields, and the fields that `Connection` names.
pub fn strip_hop_by_hop(headers: &mut HeaderMap) {
    // Comparing the few names in the map is cheaper than looking up each hop-by-hop name.
    if !headers.keys().any(|name| HOP_BY_HOP.contains(name)) {
        return;
    }
    let named: Vec<HeaderName> = elements(headers, CONNECTION)
        .filter_map(|name| HeaderName::from_bytes(name).ok())
        // A message needs these fields, even if `Connection` names them.
        .filter(|name| *name != HOST && *name != CONTENT_LENGTH && *name != CONTENT_TYPE)
        .collect();
    for name in named {
        headers.remove(name);
    }
    for name in &HOP_BY_HOP {
        headers.remove(name);
    }
}

/// The transfer coding of a body (RFC 9112, 6.1).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Coding {
    /// No transfer coding.
    Plain,
    /// Chunked, and nothing else.
    Chunked,
    /// There is a coding that the host does not know.
    Unknown,
    /// The list of codings is empty, or has more after `chunked`.
    Faulty,
}

/// The transfer coding that these fields state.
pub fn coding(headers: &HeaderMap) -> Coding {
    if !headers.contains_key(TRANSFER_ENCODING) {
        return Coding::Plain;
    }
    let mut coding = Coding::Plain;
    for name in elements(headers, TRANSFER_ENCODING).filter(|name| !name.is_empty()) {
        coding = match coding {
            Coding::Plain if name.eq_ignore_ascii_case(b"chunked") => Coding::Chunked,
            Coding::Plain | Coding::Unknown => Coding::Unknown,
            // `chunked` must be last and must not be repeated.
            Coding::Chunked | Coding::Faulty => Coding::Faulty,
        };
    }
    // The field is there, but its list is empty.
    if coding == Coding::Plain { Coding::Faulty } else { coding }
}

/// The elements of all comma-separated lists of this name, trimmed.
fn elements(headers: &HeaderMap, name: HeaderName) -> impl Iterator<Item = &[u8]> {
    let values = headers.get_all(name).into_iter();
    values.flat_map(|value| value.as_bytes().split(|byte| *byte == b',')).map(<[u8]>::trim_ascii)
}

/// Merges repeated `Content-Length` values into one if they are equal (RFC 9110, 8.6). Returns
/// `false` if they differ or are not numbers.
pub fn unify_length(headers: &mut HeaderMap) -> bool {
    if !headers.contains_key(CONTENT_LENGTH) {
        return true;
    }
    let Some(one) = one_length(headers) else { return false };
    headers.insert(CONTENT_LENGTH, one);
    true
}

fn one_length(headers: &HeaderMap) -> Option<HeaderValue> {
    let mut lengths = elements(headers, CONTENT_LENGTH);
    let first = lengths.next()?;
    let text = std::str::from_utf8(first).ok()?;
    let is_number = text.bytes().all(|byte| byte.is_ascii_digit()) && text.parse::<u64>().is_ok();
    let is_one = is_number && lengths.all(|other| other == first);
    HeaderValue::from_bytes(first).ok().filter(|_| is_one)
}

/// Checks that the framing of a response is not ambiguous, and merges repeated `Content-Length`
/// values.
///
/// # Errors
/// Says what is wrong with the framing.
pub fn check_framing(headers: &mut HeaderMap) -> Result<(), &'static str> {
    match coding(headers) {
        Coding::Plain if unify_length(headers) => Ok(()),
        Coding::Plain => Err("its content-length is not one number"),
        Coding::Chunked if headers.contains_key(CONTENT_LENGTH) => {
            Err("it has both transfer-encoding and content-length")
        }
        // hyper checks only the element after the last comma of the last field.
        Coding::Chunked if elements(headers, TRANSFER_ENCODING).any(<[u8]>::is_empty) => {
            Err("its transfer-encoding has an empty element")
        }
        Coding::Chunked => Ok(()),
        Coding::Unknown | Coding::Faulty => Err("its transfer-encoding is not chunked alone"),
    }
}

/// Whether there is no `Host`, or exactly one that is a host and port.
pub fn has_good_host(headers: &HeaderMap) -> bool {
    let mut hosts = headers.get_all(HOST).iter();
    match (hosts.next(), hosts.next()) {
        (None, _) => true,
        (Some(host), None) => is_host(host.as_bytes()),
        (Some(_), Some(_)) => false,
    }
}

/// Whether bytes are `host[:port]` (RFC 3986, 3.2.2). Empty is allowed.
pub fn is_host(host: &[u8]) -> bool {
    let (name, port) = match host {
        [b'[', rest @ ..] => match rest.iter().position(|byte| *byte == b']') {
            Some(end) => (&rest[..end], &rest[end + 1..]),
            None => return false,
        },
        _ => host.split_at(host.iter().position(|byte| *byte == b':').unwrap_or(host.len())),
    };
    let in_brackets = host.first() == Some(&b'[');
    let is_name = |byte: &u8| match byte {
        b':' => in_brackets,
        byte => byte.is_ascii_alphanumeric() || b".-_~%!$&'()*+,;=".contains(byte),
    };
    let port_is_number = match port {
        [] => true,
        [b':', digits @ ..] => digits.iter().all(u8::is_ascii_digit),
        _ => false,
    };
    name.iter().all(is_name) && port_is_number
}

//! Header fields, as far as every hop has to know them.

#[cfg(test)]
mod tests;

use http::header::{
    CONNECTION, CONTENT_LENGTH, CONTENT_TYPE, HOST, TE, TRANSFER_ENCODING, UPGRADE,
};
use http::{HeaderMap, HeaderName, HeaderValue};

/// Fields of one kind that a guest may set. `HeaderMap` panics beyond 24,576; two of these are
/// joined, and the host adds its own.
pub const FIELDS_MAX: usize = 10_000;
/// More fields than this are many: a client has 100 at the most, and so has a server.
pub const FIELDS_FEW: usize = 128;
/// Bytes of a method that a guest may set.
pub const METHOD_BYTES_MAX: usize = 64;

/// Header fields that belong to one connection (RFC 9110, 7.6.1). `Trailer` does not: it says what
/// comes behind a body, which is passed on.
const HOP_BY_HOP: [HeaderName; 6] = [
    CONNECTION,
    HeaderName::from_static("keep-alive"),
    HeaderName::from_static("proxy-connection"),
    TE,
    TRANSFER_ENCODING,
    UPGRADE,
];

/// Bytes of all fields of a head.
pub fn head_bytes(headers: &HeaderMap) -> usize {
    headers.iter().map(|(name, value)| name.as_str().len() + value.len()).sum()
}

/// Puts fields into a map that has room for them alone: a map keeps the room for the most that it
/// has ever had.
pub fn compact(headers: &mut HeaderMap) {
    let all = std::mem::take(headers);
    headers.extend(all);
}

/// Removes the fields that belong to one connection, and those that `Connection` names.
pub fn strip_hop_by_hop(headers: &mut HeaderMap) {
    // Comparing the few names that there are is cheaper than looking each of ours up.
    if !headers.keys().any(|name| HOP_BY_HOP.contains(name)) {
        return;
    }
    let named: Vec<HeaderName> = elements(headers, CONNECTION)
        .filter_map(|name| HeaderName::from_bytes(name).ok())
        // A message cannot do without these, whoever asks for it.
        .filter(|name| *name != HOST && *name != CONTENT_LENGTH && *name != CONTENT_TYPE)
        .collect();
    for name in named {
        headers.remove(name);
    }
    for name in &HOP_BY_HOP {
        headers.remove(name);
    }
}

/// How a body is coded for the transfer (RFC 9112, 6.1).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Coding {
    /// Not at all.
    Plain,
    Chunked,
    /// In a way that the host does not know, whatever else.
    Unknown,
    /// In no order that HTTP allows.
    Faulty,
}

/// What `Transfer-Encoding` says.
pub fn coding(headers: &HeaderMap) -> Coding {
    if !headers.contains_key(TRANSFER_ENCODING) {
        return Coding::Plain;
    }
    let mut coding = Coding::Plain;
    for name in elements(headers, TRANSFER_ENCODING).filter(|name| !name.is_empty()) {
        coding = match coding {
            Coding::Plain if name.eq_ignore_ascii_case(b"chunked") => Coding::Chunked,
            Coding::Plain | Coding::Unknown => Coding::Unknown,
            // Nothing comes behind it, not even the same once more.
            Coding::Chunked | Coding::Faulty => Coding::Faulty,
        };
    }
    // A list of nothing.
    if coding == Coding::Plain { Coding::Faulty } else { coding }
}

/// The elements of all lists of this name, without space around them.
fn elements(headers: &HeaderMap, name: HeaderName) -> impl Iterator<Item = &[u8]> {
    let values = headers.get_all(name).into_iter();
    values.flat_map(|value| value.as_bytes().split(|byte| *byte == b',')).map(<[u8]>::trim_ascii)
}

/// Makes one `Content-Length` of all that there are and say the same (RFC 9110, 8.6); `false` where
/// they do not, or say no number.
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

/// Whether the framing of a response can be trusted to be what its server meant.
///
/// # Errors
/// What is wrong with it.
pub fn check_framing(headers: &mut HeaderMap) -> Result<(), &'static str> {
    match coding(headers) {
        Coding::Plain if unify_length(headers) => Ok(()),
        Coding::Plain => Err("its content-length is not one number"),
        Coding::Chunked if headers.contains_key(CONTENT_LENGTH) => {
            Err("it has both transfer-encoding and content-length")
        }
        // hyper looks at what is behind the last comma of the last of them alone.
        Coding::Chunked if elements(headers, TRANSFER_ENCODING).any(<[u8]>::is_empty) => {
            Err("its transfer-encoding has an empty element")
        }
        Coding::Chunked => Ok(()),
        Coding::Unknown | Coding::Faulty => Err("its transfer-encoding is not chunked alone"),
    }
}

/// Whether there is no `Host`, or one that is a host and port.
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

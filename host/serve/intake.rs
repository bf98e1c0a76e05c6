//! The first step of every request: what hyper parsed becomes a [`Request`], or is refused.
//!
//! Owns the checks of RFC 9112 that hyper leaves to its user: the Host header, and the form of the
//! target.

use std::net::SocketAddr;

use http::header::HOST;
use http::uri::{PathAndQuery, Uri};
use http::{HeaderMap, HeaderValue, Method, Version};
use http_body::Body;
use http_body_util::combinators::UnsyncBoxBody;
use hyper::body::Incoming;

use super::arrival::Arriving;
use super::wire::Wire;
use crate::message::{Place, Reject, Request, RequestBody, RequestId};

/// Makes a request of what hyper parsed; `wire` is what it came by. How large its body may be
/// depends on who gets it.
///
/// # Errors
/// [`Reject::BadHost`], [`Reject::BadPath`].
pub fn request(
    http: http::Request<Incoming>,
    id: RequestId,
    peer: SocketAddr,
    wire: &Wire,
) -> Result<Box<Request>, Reject> {
    let (mut parts, body) = http.into_parts();
    let uri = target(&parts.method, &parts.uri)?;
    check_host(&mut parts.headers, &parts.uri, parts.version)?;
    let body = request_body(body, wire);
    let mut request = Box::new(Request {
        id,
        method: parts.method,
        uri,
        version: parts.version,
        headers: parts.headers,
        body,
        peer,
        place: Place::default(),
    });
    request.strip_reserved();
    Ok(request)
}

/// RFC 9112, 3.2: HTTP/1.1 has exactly one valid Host; the authority of an absolute target is put
/// in its place.
fn check_host(headers: &mut HeaderMap, uri: &Uri, version: Version) -> Result<(), Reject> {
    let mut hosts = headers.get_all(HOST).iter();
    match (hosts.next(), hosts.next()) {
        (Some(_), Some(_)) => return Err(Reject::BadHost("more than one Host header")),
        (Some(host), None) if !is_host(host.as_bytes()) => {
            return Err(Reject::BadHost("the Host header is not a host and port"));
        }
        (None, _) if version == Version::HTTP_11 => {
            return Err(Reject::BadHost("the Host header is missing"));
        }
        _ => {}
    }
    if let Some(authority) = uri.authority() {
        let host = authority.as_str().rsplit('@').next().unwrap_or_default();
        let host = HeaderValue::from_str(host)
            .map_err(|_| Reject::BadHost("the target's authority is not a host and port"))?;
        headers.insert(HOST, host);
    }
    Ok(())
}

/// Whether bytes are `host[:port]` (RFC 3986, 3.2.2). Empty is allowed.
fn is_host(host: &[u8]) -> bool {
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

/// The path and query of a target that can be routed.
fn target(method: &Method, uri: &Uri) -> Result<PathAndQuery, Reject> {
    if method == Method::CONNECT {
        return Err(Reject::BadPath("CONNECT is not served"));
    }
    if uri.scheme().is_none() && uri.authority().is_some() {
        return Err(Reject::BadPath("the request target is not a path"));
    }
    let target = uri.path_and_query().cloned().unwrap_or(PathAndQuery::from_static("/"));
    if target.path().starts_with('/') {
        Ok(target)
    } else {
        Err(Reject::BadPath("the request target is not a path"))
    }
}

fn request_body(body: Incoming, wire: &Wire) -> RequestBody {
    if body.is_end_stream() {
        return RequestBody::default();
    }
    let (body, progress) = Arriving::new(body);
    wire.expect_body(progress);
    RequestBody::stream(UnsyncBoxBody::new(body))
}

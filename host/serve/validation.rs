//! The first step of every request: turns what hyper parsed into a [`Request`], or refuses it.
//!
//! Owns the checks of RFC 9112 that hyper leaves to its user: the Host header, the form of the
//! target, and the codings of the body.

use http::header::HOST;
use http::uri::{self, PathAndQuery, Uri};
use http::{HeaderMap, HeaderValue, Method, Version};
use http_body::Body;
use http_body_util::combinators::UnsyncBoxBody;
use hyper::body::Incoming;

use super::exchange::Exchange;
use super::hyper_incoming::HyperIncoming;
use crate::message::fields::{self, Coding, is_host};
use crate::message::{Reject, Request, RequestBody, RequestId, RouteMatch, Scheme};

/// Makes a [`Request`] from what hyper parsed, and notes its body in `exchange`. The limit on the
/// body is set later, because it depends on the handler.
///
/// # Errors
/// [`Reject::BadHost`], [`Reject::BadPath`], [`Reject::UnknownCoding`], [`Reject::BodyBroken`].
pub fn validate(
    http: http::Request<Incoming>,
    id: RequestId,
    exchange: &Exchange,
) -> Result<Box<Request>, Reject> {
    let (mut parts, body) = http.into_parts();
    if let Some(held) = exchange.connection().take_field_charge() {
        fields::compact(&mut parts.headers);
        drop(held);
    }
    let origin = exchange.connection().origin;
    let uri = target(&parts.method, &parts.uri, origin.scheme)?;
    check_host(&mut parts.headers, &parts.uri, parts.version)?;
    check_coding(&parts.headers, &body)?;
    let body = request_body(body, exchange);
    let mut request = Box::new(Request {
        id,
        method: parts.method,
        uri,
        version: parts.version,
        headers: parts.headers,
        is_host_set: false,
        body,
        origin,
        route_match: RouteMatch::default(),
    });
    request.strip_reserved();
    Ok(request)
}

/// Checks the Host header: an HTTP/1.1 request must have exactly one valid Host. The authority of
/// an absolute target replaces it (RFC 9112, 3.2).
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
        const BAD: Reject = Reject::BadHost("the target's authority is not a host and port");
        // Userinfo in the authority is an error (RFC 9110, 4.2.4), and so is an empty host (4.2.1).
        let authority = authority.as_str();
        if authority.starts_with(':') || authority.is_empty() || !is_host(authority.as_bytes()) {
            return Err(BAD);
        }
        headers.insert(HOST, HeaderValue::from_str(authority).map_err(|_| BAD)?);
    }
    Ok(())
}

/// The path and query of a request target. `scheme` is the connection's scheme.
fn target(method: &Method, uri: &Uri, scheme: Scheme) -> Result<PathAndQuery, Reject> {
    if method == Method::CONNECT {
        return Err(Reject::BadPath("CONNECT is not served"));
    }
    if uri.scheme().is_none() && uri.authority().is_some() {
        return Err(Reject::BadPath("the request target is not a path"));
    }
    // An https target must come over TLS (RFC 9110, 7.4), and an http target must not.
    if uri.scheme().is_some_and(|it| *it != uri::Scheme::from(scheme)) {
        return Err(Reject::BadPath("the scheme of the request target is not the connection's"));
    }
    let target = uri.path_and_query().cloned().unwrap_or(PathAndQuery::from_static("/"));
    match target.as_str().as_bytes() {
        [b'/', ..] => Ok(target),
        // An absolute target may have a query without a path. Its path is `/`.
        [b'?', ..] => PathAndQuery::try_from(format!("/{}", target.as_str()))
            .map_err(|_| Reject::BadPath("the request target is too long")),
        _ => Err(Reject::BadPath("the request target is not a path")),
    }
}

/// Refuses a body with any transfer coding but `chunked`. hyper checks only the last of several.
fn check_coding(headers: &HeaderMap, body: &Incoming) -> Result<(), Reject> {
    if body.size_hint().exact().is_some() {
        return Ok(());
    }
    match fields::coding(headers) {
        Coding::Plain | Coding::Chunked => Ok(()),
        Coding::Unknown => Err(Reject::UnknownCoding),
        Coding::Faulty => Err(Reject::BodyBroken),
    }
}

fn request_body(body: Incoming, exchange: &Exchange) -> RequestBody {
    if body.is_end_stream() {
        return RequestBody::default();
    }
    let (body, progress) = HyperIncoming::new(body);
    exchange.state().expect_body(progress.clone());
    RequestBody::stream(UnsyncBoxBody::new(body), progress)
}

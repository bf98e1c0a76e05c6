//! The HTTP client for the upstream. The operator has chosen this server, so none of its addresses
//! is prohibited.

use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use http::header::{HOST, TRANSFER_ENCODING};
use http::uri::{Authority, PathAndQuery, Scheme};
use http::{HeaderValue, Request, Response, Uri, Version};
use http_body::Body as _;
use hyper::body::Incoming;
use tokio::time::Instant;

use super::OutboundShared;
use super::body::{AwaitedParty, is_truncated};
use super::connection_pool::{ConnectionPool, PooledConnection, Sharing};
use super::failure::{ExchangeError, OutboundFailure};
use super::forwarded_body::{ForwardProgress, ForwardedBody};
use super::outbound_connection::{self, OutboundConnection, Tls};
use super::policy::Destination;
use super::resolver::Resolver;
use crate::message::{Reject, RequestBody};

const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// How many requests share an HTTP/2 connection.
const CONNECTION_STREAMS_MAX: u32 = 16;
/// The window of one request. All windows together fit into that of the connection, so a client
/// that reads slowly does not hold up the others.
const STREAM_WINDOW: u32 = outbound_connection::CONNECTION_WINDOW / CONNECTION_STREAMS_MAX;
/// Lookups count for a handler of this name, which none can have.
const LOOKUP_OWNER: &str = "@upstream";
/// How often to check an HTTP/2 upload that goes on after the response is complete.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// The client for the upstream, with its connections.
pub struct UpstreamClient {
    destination: Destination,
    connections: ConnectionPool<ForwardedBody>,
    /// How many bytes the head of a response may have.
    header_bytes_max: usize,
    /// How long the server may acknowledge nothing of what it is sent.
    user_timeout: Duration,
    tls: Tls,
    resolver: Arc<Resolver>,
}

/// A request that was sent: its connection, and the progress of its body. Dropping it cancels the
/// request.
pub struct SentRequest {
    connection: PooledConnection<ForwardedBody>,
    progress: Option<Rc<ForwardProgress>>,
}

/// Why there is no response.
pub enum UpstreamError {
    /// The request's body has failed with this reject.
    Rejected(Reject),
    /// The request's `Host` is not a valid authority.
    BadHost,
    /// There was no connection, or the exchange on it has failed.
    Ended(ExchangeError),
}

/// The parts of a request that depend on the HTTP version of its connection.
struct RequestTarget {
    path: Uri,
    /// The URI with scheme and authority, if the server may speak HTTP/2.
    whole: Option<Uri>,
    host: HeaderValue,
    /// Whether the request has a body of unknown length.
    is_open: bool,
}

impl SentRequest {
    /// Whether the request's body is still being sent.
    pub fn is_uploading(&self) -> bool {
        self.progress.as_ref().is_some_and(|upload| upload.awaited().0 != AwaitedParty::Nobody)
    }

    /// Notes that the client gets something of the response.
    pub fn note_consumed(&self) {
        self.connection.inner.unconsumed().reset();
    }

    /// Whether a response's body that seems to have ended was cut off.
    pub fn is_truncated(&self, body: &Incoming) -> bool {
        is_truncated(body, self.connection.inner.is_h2())
    }
}

impl UpstreamClient {
    /// A client without connections for the server at `authority`. It keeps at most
    /// `idle_count_max` idle connections. `untaken_max` is how long the server may acknowledge
    /// nothing of what it is sent.
    pub fn new(
        shared: &OutboundShared,
        (is_secure, authority): (bool, &Authority),
        idle_count_max: usize,
        header_bytes_max: usize,
        untaken_max: Duration,
    ) -> Self {
        UpstreamClient {
            destination: Destination::named(is_secure, authority),
            connections: ConnectionPool::new(
                idle_count_max,
                is_secure,
                Sharing::Few(CONNECTION_STREAMS_MAX as usize),
            ),
            header_bytes_max,
            user_timeout: untaken_max,
            tls: shared.tls.clone(),
            resolver: shared.resolver.clone(),
        }
    }

    /// Sends a request and waits for the response's head. The request's URI is a path, and its
    /// hop-by-hop fields are removed. Its `Host` is the client's, if it has one.
    pub async fn send(
        &self,
        request: Request<RequestBody>,
    ) -> Result<(Response<Incoming>, SentRequest), UpstreamError> {
        let request = request.map(ForwardedBody::new);
        let progress = request.body().progress().cloned();
        let target = self.target(&request).ok_or(UpstreamError::BadHost)?;
        let open = async || self.open().await;
        let send = async |link: &mut OutboundConnection<ForwardedBody>,
                          mut request: Request<ForwardedBody>| {
            target.frame_for(&mut request, link.is_h2());
            link.send(request).await
        };
        match self.connections.exchange(request, open, send).await {
            Ok((response, connection)) => Ok((response, SentRequest { connection, progress })),
            // If a body fails in HTTP/2, the connection reports only that there is no response.
            Err(ended) => Err(match progress.and_then(|it| it.reject()) {
                Some(reject) => UpstreamError::Rejected(reject),
                None => UpstreamError::Ended(ended),
            }),
        }
    }

    /// The target of a request; `None` if its `Host` is not a valid authority.
    fn target(&self, request: &Request<ForwardedBody>) -> Option<RequestTarget> {
        let path = request.uri().path_and_query().cloned();
        let path = path.unwrap_or_else(|| PathAndQuery::from_static("/"));
        let given = request.headers().get(HOST);
        let own = || HeaderValue::try_from(self.destination.authority()).ok();
        let host = given.cloned().or_else(own)?;
        let whole = if self.destination.is_secure {
            // An empty `Host` is no authority.
            let named = if host.is_empty() { own()? } else { host.clone() };
            let whole = Uri::builder().scheme(Scheme::HTTPS).authority(named.as_bytes());
            Some(whole.path_and_query(path.clone()).build().ok()?)
        } else {
            None
        };
        let body = request.body();
        let is_open = !body.is_end_stream() && body.size_hint().exact().is_none();
        Some(RequestTarget { path: path.into(), whole, host, is_open })
    }

    /// Gives a connection back whose response is complete, once the request is complete, too. An
    /// HTTP/2 upload keeps its connection until the server takes nothing of it for too long.
    pub async fn release(&self, sent: SentRequest) {
        let SentRequest { connection, progress } = sent;
        if connection.inner.is_h2()
            && let Some(upload) = progress
        {
            while upload.awaited().0 != AwaitedParty::Nobody {
                let (turn, since) = upload.awaited();
                if turn == AwaitedParty::Server && since.elapsed() >= self.user_timeout {
                    return;
                }
                tokio::time::sleep(LOOK_EVERY).await;
            }
            if !upload.is_whole() {
                return;
            }
        }
        self.connections.release(connection, None).await;
    }

    /// Closes connections that have been idle for too long or that the server has closed.
    pub fn sweep(&self) {
        self.connections.sweep();
    }

    async fn open(&self) -> Result<OutboundConnection<ForwardedBody>, OutboundFailure> {
        let deadline = Instant::now() + CONNECT_TIMEOUT;
        let Destination { host, port, .. } = &self.destination;
        let found = self.resolver.addresses(LOOKUP_OWNER, host, deadline).await?;
        let addresses = outbound_connection::allowed_addresses(&found, *port, |_| true)?;
        let config = outbound_connection::ConnectOptions {
            tls: &self.tls,
            header_bytes_max: self.header_bytes_max,
            user_timeout: Some(self.user_timeout),
            stream_window: STREAM_WINDOW,
        };
        outbound_connection::connect(&self.destination, &addresses, &config, (), deadline).await
    }
}

impl RequestTarget {
    /// Sets target, version and framing fields of a request for its connection.
    fn frame_for(&self, request: &mut Request<ForwardedBody>, is_h2: bool) {
        if is_h2 && let Some(whole) = &self.whole {
            *request.version_mut() = Version::HTTP_2;
            *request.uri_mut() = whole.clone();
            request.headers_mut().remove(HOST);
            request.headers_mut().remove(TRANSFER_ENCODING);
            return;
        }
        *request.version_mut() = Version::HTTP_11;
        *request.uri_mut() = self.path.clone();
        let headers = request.headers_mut();
        headers.insert(HOST, self.host.clone());
        if self.is_open {
            // Without this field, hyper would send no body with a GET.
            headers.insert(TRANSFER_ENCODING, HeaderValue::from_static("chunked"));
        }
    }
}

//! A server that the host itself sends requests to: one place, which whoever runs the host has
//! named, so that no address of it is prohibited.

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
/// Requests that share a connection of HTTP/2. No client is to keep another waiting, so what none
/// of their responses is read of has room in the window of all.
const CONNECTION_STREAMS_MAX: u32 = 16;
const STREAM_WINDOW: u32 = outbound_connection::CONNECTION_WINDOW / CONNECTION_STREAMS_MAX;
/// Its part of the lookups is that of a guest of this name, which no file can have.
const LOOKUP_OWNER: &str = "@upstream";
/// How often an upload is looked at that goes on behind a complete response by HTTP/2.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// See the file.
pub struct UpstreamClient {
    destination: Destination,
    connections: ConnectionPool<ForwardedBody>,
    /// Bytes that the head of a response may have.
    header_bytes_max: usize,
    /// How long it may take nothing of what it is sent.
    user_timeout: Duration,
    tls: Tls,
    resolver: Arc<Resolver>,
}

/// A request that was sent: its connection, and how far its own body is. Dropping it gives the
/// request up.
pub struct SentRequest {
    connection: PooledConnection<ForwardedBody>,
    progress: Option<Rc<ForwardProgress>>,
}

/// Why there is no response.
pub enum UpstreamError {
    /// The request's body was not good.
    Rejected(Reject),
    /// What the request calls the server cannot be said in a URL.
    BadHost,
    Ended(ExchangeError),
}

/// What of a request depends on what its connection speaks.
struct RequestTarget {
    path: Uri,
    /// With scheme and authority, where it may be HTTP/2 that is spoken.
    whole: Option<Uri>,
    host: HeaderValue,
    /// Whether it has a body of which nobody knows the length.
    is_open: bool,
}

impl SentRequest {
    /// Whether its own body is still on its way.
    pub fn is_uploading(&self) -> bool {
        self.progress.as_ref().is_some_and(|upload| upload.awaited().0 != AwaitedParty::Nobody)
    }

    /// Says that somebody gets something of the response.
    pub fn note_consumed(&self) {
        self.connection.inner.unconsumed().reset();
    }

    /// Whether a response's body that has ended was broken off.
    pub fn is_truncated(&self, body: &Incoming) -> bool {
        is_truncated(body, self.connection.inner.is_h2())
    }
}

impl UpstreamClient {
    /// The server at this place, to which so many connections are kept without a request.
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

    /// Sends a request for a path, up to the response's head. Its fields are without those that
    /// belong to one connection; `Host` is that of its client, where it has one.
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
            // By HTTP/2 a connection says only that there is no answer.
            Err(ended) => Err(match progress.and_then(|it| it.reject()) {
                Some(reject) => UpstreamError::Rejected(reject),
                None => UpstreamError::Ended(ended),
            }),
        }
    }

    /// Where a request goes; `None` where what its client calls the server is no authority.
    fn target(&self, request: &Request<ForwardedBody>) -> Option<RequestTarget> {
        let path = request.uri().path_and_query().cloned();
        let path = path.unwrap_or_else(|| PathAndQuery::from_static("/"));
        let given = request.headers().get(HOST);
        let own = || HeaderValue::try_from(self.destination.authority()).ok();
        let host = given.cloned().or_else(own)?;
        let whole = if self.destination.is_secure {
            // An empty one names nobody.
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

    /// Takes a connection back whose response is complete, once its request is. What goes on being
    /// sent by HTTP/2 has its connection until its server takes nothing of it for too long.
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

    /// Closes what has been idle for long or is closed by the server.
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
    /// Writes a request as its connection has it.
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
            // Without it hyper would send no body with a GET.
            headers.insert(TRANSFER_ENCODING, HeaderValue::from_static("chunked"));
        }
    }
}

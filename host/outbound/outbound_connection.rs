//! One connection to a server: opens it and sends HTTP requests on it.
//!
//! Owns TCP and TLS. It connects to exactly those addresses that were checked, without a second
//! name lookup.

use std::cell::{Cell, OnceCell};
use std::error::Error;
use std::net::{IpAddr, SocketAddr};
use std::pin::pin;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response};
use http_body::Body;
use hyper::body::Incoming;
use hyper::client::conn::{http1, http2};
use hyper::rt::{Executor, Read, Write};
use hyper_util::rt::TokioIo;
use rustix::net::sockopt::set_tcp_user_timeout;
use tokio::net::TcpStream;
use tokio::task::AbortHandle;
use tokio::time::{Instant, timeout_at};
use tokio_rustls::TlsConnector;
use tokio_rustls::rustls::pki_types::ServerName;
use tokio_rustls::rustls::{ClientConfig, RootCertStore};

use super::certificates::Verifier;
use super::failure::{ExchangeError, OutboundFailure};
use super::paced_stream::{
    POLL_BYTES_MAX, PacedStream, TLS_POLL_BYTES_MAX, UnconsumedBytes, too_many_interim,
};
use super::policy::{Destination, DestinationHost};
use crate::log::escape;

/// How many bytes of a TLS error go into the log.
const LINE_BYTES_MAX: usize = 1024;
/// How many addresses of one name are tried.
const ADDRESSES_MAX: usize = 8;
/// How many unread bytes of one response a server may send in HTTP/2.
pub const STREAM_WINDOW: u32 = 256 << 10;
/// How many unread bytes a server may send on one HTTP/2 connection.
pub const CONNECTION_WINDOW: u32 = 1 << 20;
/// How many bytes hyper may read ahead, or buffer for writing, on one HTTP/1.1 connection.
const BUFFER_BYTES_MAX: usize = POLL_BYTES_MAX;
/// How many unsent bytes of one request hyper may buffer in HTTP/2.
const STREAM_SEND_BYTES_MAX: usize = 64 << 10;

/// How often to yield until hyper has noticed that a connection has ended. The news passes through
/// three tasks.
const YIELDS_TO_END: usize = 8;

const H2: &[u8] = b"h2";
const H1: &[u8] = b"http/1.1";

/// A request body that can be sent.
pub trait UploadBody:
    Body<Data = Bytes, Error: Into<Box<dyn Error + Send + Sync>>> + Unpin + 'static
{
    /// The body of a request without a body.
    fn empty() -> Self;

    /// Sets the counter of the connection that sends this body.
    fn bind_counter(&mut self, unconsumed: &UnconsumedBytes);
}

/// An open connection for requests.
pub enum OutboundConnection<B> {
    /// HTTP/1.1: one request at a time.
    H1 {
        /// Sends requests to hyper's driver.
        sender: http1::SendRequest<B>,
        /// Closes the connection when dropped.
        closing: DriverGuard,
    },
    /// HTTP/2: many requests at a time. Closed when the last guard is dropped.
    H2(http2::SendRequest<B>, Rc<DriverGuard>),
}

/// Aborts the tasks that drive a connection when dropped. Without this, a connection whose server
/// stops reading a body would stay open forever.
pub struct DriverGuard {
    tasks: Vec<AbortHandle>,
    /// Whether the connection must not get more requests.
    is_retired: Cell<bool>,
    unconsumed: UnconsumedBytes,
    /// How many requests the server takes at once.
    streams_max: Rc<Cell<usize>>,
}

impl DriverGuard {
    /// How many requests the server takes at once; 1 in HTTP/1.1.
    pub fn streams_max(&self) -> usize {
        self.streams_max.get()
    }

    /// Sends no more requests on this connection.
    pub fn retire(&self) {
        self.is_retired.set(true);
    }

    /// Whether [`DriverGuard::retire`] was called.
    pub fn is_retired(&self) -> bool {
        self.is_retired.get()
    }
}

impl Drop for DriverGuard {
    fn drop(&mut self) {
        self.tasks.iter().for_each(AbortHandle::abort);
    }
}

/// Why a request got no response.
pub enum SendError<B> {
    /// Nothing of the request was sent. It comes back.
    Unsent(Box<Request<B>>),
    /// The request, or part of it, was sent.
    Ended(ExchangeError),
}

impl<B: UploadBody> OutboundConnection<B> {
    /// Whether this is an HTTP/2 connection.
    pub fn is_h2(&self) -> bool {
        matches!(self, OutboundConnection::H2(..))
    }

    /// The counter of bytes that the server has sent to no use.
    pub fn unconsumed(&self) -> &UnconsumedBytes {
        match self {
            OutboundConnection::H1 { closing, .. } => &closing.unconsumed,
            OutboundConnection::H2(_, closing) => &closing.unconsumed,
        }
    }

    /// Whether the connection has ended, as far as hyper has noticed.
    pub fn is_closed(&self) -> bool {
        match self {
            OutboundConnection::H1 { sender, .. } => sender.is_closed(),
            OutboundConnection::H2(sender, _) => sender.is_closed(),
        }
    }

    /// Whether the connection has ended, after a request on it has failed. In HTTP/2, one request
    /// may fail alone.
    pub async fn has_ended(&self) -> bool {
        for _ in 0..YIELDS_TO_END {
            if !self.is_h2() || self.is_closed() {
                return true;
            }
            tokio::task::yield_now().await;
        }
        false
    }

    /// Waits until another request can be sent. Returns `false` if the connection has ended.
    pub async fn is_ready(&mut self) -> bool {
        match self {
            OutboundConnection::H1 { sender, .. } => sender.ready().await.is_ok(),
            OutboundConnection::H2(sender, _) => sender.ready().await.is_ok(),
        }
    }

    /// Sends a request and waits for the response's head.
    pub async fn send(
        &mut self,
        mut request: Request<B>,
    ) -> Result<Response<Incoming>, SendError<B>> {
        let too_many = too_many_interim(&mut request);
        request.body_mut().bind_counter(self.unconsumed());
        let send = async {
            match self {
                OutboundConnection::H1 { sender, .. } => sender.try_send_request(request).await,
                OutboundConnection::H2(sender, _) => sender.try_send_request(request).await,
            }
        };
        let sent = tokio::select! {
            biased;
            // Check this first, because the response may have arrived together with them.
            () = too_many => return Err(SendError::Ended(ExchangeError::TooManyInterim)),
            sent = send => sent,
        };
        self.unconsumed().reset();
        sent.map_err(|mut error| match error.take_message() {
            Some(request) => SendError::Unsent(Box::new(request)),
            None => SendError::Ended(ExchangeError::Http(error.into_error())),
        })
    }
}

/// The TLS settings.
pub type Tls = Arc<ClientConfig>;

/// TLS settings that trust these roots. Without roots, no certificate is valid.
pub fn tls(roots: RootCertStore) -> Tls {
    let verifier = Arc::new(Verifier::new(roots));
    let config = ClientConfig::builder().dangerous();
    let mut config = config.with_custom_certificate_verifier(verifier).with_no_client_auth();
    config.alpn_protocols = vec![H2.to_vec(), H1.to_vec()];
    Arc::new(config)
}

/// The addresses among `found` that the guest may connect to, at most [`ADDRESSES_MAX`].
///
/// # Errors
/// [`OutboundFailure::NoName`] without any address, [`OutboundFailure::Prohibited`] without an
/// allowed one.
pub fn allowed_addresses(
    found: &[IpAddr],
    port: u16,
    admits: impl Fn(IpAddr) -> bool,
) -> Result<Vec<SocketAddr>, OutboundFailure> {
    if found.is_empty() {
        return Err(OutboundFailure::NoName);
    }
    let admitted = found.iter().filter(|address| admits(**address));
    let admitted = admitted.map(|address| SocketAddr::new(*address, port));
    let admitted: Vec<SocketAddr> = admitted.take(ADDRESSES_MAX).collect();
    if admitted.is_empty() { Err(OutboundFailure::Prohibited) } else { Ok(admitted) }
}

/// Opens a connection to one of these addresses, until `deadline`. Drops `held` when the connection
/// closes.
pub async fn connect<B: UploadBody>(
    destination: &Destination,
    addresses: &[SocketAddr],
    config: &ConnectOptions<'_>,
    held: impl Sized + 'static,
    deadline: Instant,
) -> Result<OutboundConnection<B>, OutboundFailure> {
    let stream = tcp(addresses, config.user_timeout, deadline).await?;
    let unconsumed = UnconsumedBytes::default();
    let poll_bytes_max = if destination.is_secure { TLS_POLL_BYTES_MAX } else { POLL_BYTES_MAX };
    let stream = PacedStream::new(stream, poll_bytes_max, unconsumed.clone());
    if !destination.is_secure {
        return h1(TokioIo::new(stream), config, (held, unconsumed)).await;
    }
    let name = match &destination.host {
        DestinationHost::Address(address) => ServerName::IpAddress((*address).into()),
        DestinationHost::Name(name) => {
            ServerName::try_from(name.to_string()).map_err(|_| OutboundFailure::BadUri)?
        }
    };
    let connector = TlsConnector::from(config.tls.clone());
    let secured = timeout_at(deadline, connector.connect(name, stream)).await;
    let stream = secured.map_err(|_| OutboundFailure::ConnectTimeout)?;
    let stream = stream.map_err(|error| {
        // Escape it, because it contains names from the server's certificate.
        let why = escape(error.to_string().as_bytes(), LINE_BYTES_MAX);
        tracing::debug!("no TLS with {destination}: {why}");
        OutboundFailure::of_tls(&error)
    })?;
    let is_h2 = stream.get_ref().1.alpn_protocol() == Some(H2);
    let io = TokioIo::new(stream);
    if !is_h2 {
        return h1(io, config, (held, unconsumed)).await;
    }
    unconsumed.set_h2();
    let handshake = timeout_at(deadline, h2(io, config, (held, unconsumed))).await;
    handshake.map_err(|_| OutboundFailure::ConnectTimeout)?
}

/// Settings of new connections.
pub struct ConnectOptions<'a> {
    /// The TLS settings.
    pub tls: &'a Tls,
    /// How many bytes a response's head may have.
    pub header_bytes_max: usize,
    /// How long sent data may stay unacknowledged before the connection is closed
    /// (`TCP_USER_TIMEOUT`). `None` leaves the kernel's default.
    pub user_timeout: Option<Duration>,
    /// How many unread bytes of one response a server may send in HTTP/2.
    pub stream_window: u32,
}

/// Tries one address after the other. Each gets an equal part of the time that is left.
async fn tcp(
    addresses: &[SocketAddr],
    untaken_max: Option<Duration>,
    deadline: Instant,
) -> Result<TcpStream, OutboundFailure> {
    let mut failure = OutboundFailure::NoName;
    for (at, address) in addresses.iter().enumerate() {
        let left = deadline.saturating_duration_since(Instant::now());
        let others = u32::try_from(addresses.len() - at).unwrap_or(u32::MAX);
        let until = Instant::now() + left / others;
        match timeout_at(until, TcpStream::connect(address)).await {
            Ok(Ok(stream)) => {
                // If this fails, requests are sent a little later, which is no reason to fail.
                let _ = stream.set_nodelay(true);
                if let Some(max) = untaken_max {
                    let ms = u32::try_from(max.as_millis()).unwrap_or(u32::MAX);
                    set_tcp_user_timeout(&stream, ms).map_err(|_| OutboundFailure::Unavailable)?;
                }
                return Ok(stream);
            }
            Ok(Err(error)) => failure = OutboundFailure::of_connect(&error),
            Err(_) => failure = OutboundFailure::ConnectTimeout,
        }
    }
    Err(failure)
}

async fn h1<T, B: UploadBody>(
    io: T,
    config: &ConnectOptions<'_>,
    (held, unconsumed): (impl Sized + 'static, UnconsumedBytes),
) -> Result<OutboundConnection<B>, OutboundFailure>
where
    T: Read + Write + Unpin + 'static,
{
    let mut builder = http1::Builder::new();
    builder.max_buf_size(BUFFER_BYTES_MAX.max(config.header_bytes_max));
    builder.max_header_size(config.header_bytes_max);
    let handshake = builder.handshake(io).await;
    let (sender, connection) = handshake.map_err(|error| OutboundFailure::of_exchange(&error))?;
    let driven = tokio::task::spawn_local(async move {
        // The exchanges on the connection get the error, so ignore it here.
        let _ = connection.await;
        drop(held);
    });
    let streams_max = Rc::new(Cell::new(1));
    let tasks = vec![driven.abort_handle()];
    let closing = DriverGuard { tasks, is_retired: Cell::new(false), unconsumed, streams_max };
    Ok(OutboundConnection::H1 { sender, closing })
}

async fn h2<T, B: UploadBody>(
    io: T,
    config: &ConnectOptions<'_>,
    (held, unconsumed): (impl Sized + 'static, UnconsumedBytes),
) -> Result<OutboundConnection<B>, OutboundFailure>
where
    T: Read + Write + Unpin + 'static,
{
    let local = LocalExecutor::default();
    let mut builder = http2::Builder::new(local.clone());
    builder
        .initial_stream_window_size(config.stream_window)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .max_send_buf_size(STREAM_SEND_BYTES_MAX)
        .max_header_list_size(u32::try_from(config.header_bytes_max).unwrap_or(u32::MAX));
    let handshake = builder.handshake(io).await;
    let (sender, connection) = handshake.map_err(|error| OutboundFailure::of_exchange(&error))?;
    let streams_max = Rc::new(Cell::new(connection.current_max_send_streams()));
    let current_max = streams_max.clone();
    let driven = tokio::task::spawn_local(async move {
        let mut connection = pin!(connection);
        let ended = std::future::poll_fn(|cx| {
            let polled = connection.as_mut().poll(cx);
            // The server announces the number after the handshake and may change it later.
            current_max.set(connection.current_max_send_streams());
            polled
        });
        let _ = ended.await;
        drop(held);
    });
    let tasks = local.first.get().cloned().into_iter().chain([driven.abort_handle()]).collect();
    let closing = DriverGuard { tasks, is_retired: Cell::new(false), unconsumed, streams_max };
    Ok(OutboundConnection::H2(sender, Rc::new(closing)))
}

/// Runs hyper's tasks for an HTTP/2 connection on its worker's thread.
#[derive(Clone, Default)]
struct LocalExecutor {
    /// The first task, which owns the socket. All others belong to requests and end with it.
    first: Rc<OnceCell<AbortHandle>>,
}

impl<F: Future + 'static> Executor<F> for LocalExecutor {
    fn execute(&self, future: F) {
        let task = tokio::task::spawn_local(async move {
            future.await;
        });
        // Setting it fails for all tasks but the first.
        let _ = self.first.set(task.abort_handle());
    }
}

/// An empty store, for a host that never uses https.
pub fn no_roots() -> RootCertStore {
    RootCertStore::empty()
}

/// The root certificates that this machine trusts. Warns if there are none.
pub fn roots() -> RootCertStore {
    let found = rustls_native_certs::load_native_certs();
    let mut roots = RootCertStore::empty();
    let (added, _) = roots.add_parsable_certificates(found.certs);
    if added == 0 {
        let why = found.errors.first().map_or_else(String::new, |error| format!(": {error}"));
        tracing::warn!(
            "there are no root certificates, so no https request can succeed{why}; \
             install them (ca-certificates), or name a file in SSL_CERT_FILE"
        );
    }
    roots
}

//! A connection to a server: made, and spoken HTTP over.
//!
//! Owns TCP and TLS. What is connected to is the very address that was looked at.

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

/// Bytes of why there is no TLS, in a line of the log.
const LINE_BYTES_MAX: usize = 1024;
/// Addresses of one name that are tried.
const ADDRESSES_MAX: usize = 8;
/// What a server may send of one response, and of all of one connection, before anybody reads.
pub const STREAM_WINDOW: u32 = 256 << 10;
pub const CONNECTION_WINDOW: u32 = 1 << 20;
/// What hyper may read ahead, or hold of what is to be written, of one HTTP/1 connection.
const BUFFER_BYTES_MAX: usize = POLL_BYTES_MAX;
const STREAM_SEND_BYTES_MAX: usize = 64 << 10;

/// Turns of other tasks until hyper has taken note that a connection has ended: three tasks tell
/// each other.
const YIELDS_TO_END: usize = 8;

const H2: &[u8] = b"h2";
const H1: &[u8] = b"http/1.1";

/// A request's body that can be sent.
pub trait UploadBody:
    Body<Data = Bytes, Error: Into<Box<dyn Error + Send + Sync>>> + Unpin + 'static
{
    /// The body of a request that has none.
    fn empty() -> Self;

    /// Told by which connection it is sent.
    fn bind_counter(&mut self, unconsumed: &UnconsumedBytes);
}

/// A connection that requests can be sent by.
pub enum OutboundConnection<B> {
    /// One request after the other.
    H1 { sender: http1::SendRequest<B>, closing: DriverGuard },
    /// Many at a time.
    H2(http2::SendRequest<B>, Rc<DriverGuard>),
}

/// Closes a connection when the last who may use it lets go of it: one whose server takes no more
/// of a body would stay open for ever.
pub struct DriverGuard {
    tasks: Vec<AbortHandle>,
    /// Whether no more requests are to be sent by it.
    is_retired: Cell<bool>,
    unconsumed: UnconsumedBytes,
    /// Requests that the server takes at a time.
    streams_max: Rc<Cell<usize>>,
}

impl DriverGuard {
    pub fn streams_max(&self) -> usize {
        self.streams_max.get()
    }

    /// Says that no more requests are to be sent by it.
    pub fn retire(&self) {
        self.is_retired.set(true);
    }

    pub fn is_retired(&self) -> bool {
        self.is_retired.get()
    }
}

impl Drop for DriverGuard {
    fn drop(&mut self) {
        self.tasks.iter().for_each(AbortHandle::abort);
    }
}

/// Why a request was not answered.
pub enum SendError<B> {
    /// Nothing of it was sent.
    Unsent(Box<Request<B>>),
    Ended(ExchangeError),
}

impl<B: UploadBody> OutboundConnection<B> {
    pub fn is_h2(&self) -> bool {
        matches!(self, OutboundConnection::H2(..))
    }

    /// Counts what its server sends.
    pub fn unconsumed(&self) -> &UnconsumedBytes {
        match self {
            OutboundConnection::H1 { closing, .. } => &closing.unconsumed,
            OutboundConnection::H2(_, closing) => &closing.unconsumed,
        }
    }

    pub fn is_closed(&self) -> bool {
        match self {
            OutboundConnection::H1 { sender, .. } => sender.is_closed(),
            OutboundConnection::H2(sender, _) => sender.is_closed(),
        }
    }

    /// Whether it has ended, of one on which a request has failed: by HTTP/2 that may be that
    /// request's end alone.
    pub async fn has_ended(&self) -> bool {
        for _ in 0..YIELDS_TO_END {
            if !self.is_h2() || self.is_closed() {
                return true;
            }
            tokio::task::yield_now().await;
        }
        false
    }

    /// Waits until another request can be sent; whether one can.
    pub async fn is_ready(&mut self) -> bool {
        match self {
            OutboundConnection::H1 { sender, .. } => sender.ready().await.is_ok(),
            OutboundConnection::H2(sender, _) => sender.ready().await.is_ok(),
        }
    }

    /// Sends a request, up to the response's head.
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
            // First: the answer may have come with them.
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

/// The settings of TLS.
pub type Tls = Arc<ClientConfig>;

/// What TLS connections are made with. Without roots, no certificate is good.
pub fn tls(roots: RootCertStore) -> Tls {
    let verifier = Arc::new(Verifier::new(roots));
    let config = ClientConfig::builder().dangerous();
    let mut config = config.with_custom_certificate_verifier(verifier).with_no_client_auth();
    config.alpn_protocols = vec![H2.to_vec(), H1.to_vec()];
    Arc::new(config)
}

/// Those of a destination's addresses that may be connected to.
///
/// # Errors
/// There is none, or none that may.
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

/// Opens a connection to one of these addresses. `held` is dropped when that is
/// closed.
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
        // Names of the server's certificate are in it.
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
    let shaken = timeout_at(deadline, h2(io, config, (held, unconsumed))).await;
    shaken.map_err(|_| OutboundFailure::ConnectTimeout)?
}

/// How connections are made.
pub struct ConnectOptions<'a> {
    pub tls: &'a Tls,
    pub header_bytes_max: usize,
    /// How long what is sent may stay untaken until a connection is closed; without it as long as
    /// the kernel has it.
    pub user_timeout: Option<Duration>,
    /// Bytes that a server may send of one response by HTTP/2 before anybody reads.
    pub stream_window: u32,
}

/// Tries one address after the other, each for its part of the time that is left.
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
                // Without it requests are sent later than they could be, which is no failure.
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
    let shaken = builder.handshake(io).await;
    let (sender, connection) = shaken.map_err(|error| OutboundFailure::of_exchange(&error))?;
    let driven = tokio::task::spawn_local(async move {
        // How it ends is told to the exchange that it is about.
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
    let shaken = builder.handshake(io).await;
    let (sender, connection) = shaken.map_err(|error| OutboundFailure::of_exchange(&error))?;
    let streams_max = Rc::new(Cell::new(connection.current_max_send_streams()));
    let told = streams_max.clone();
    let driven = tokio::task::spawn_local(async move {
        let mut connection = pin!(connection);
        let ended = std::future::poll_fn(|cx| {
            let polled = connection.as_mut().poll(cx);
            // The server says it behind the beginning, and may say another number later.
            told.set(connection.current_max_send_streams());
            polled
        });
        let _ = ended.await;
        drop(held);
    });
    let tasks = local.first.get().cloned().into_iter().chain([driven.abort_handle()]).collect();
    let closing = DriverGuard { tasks, is_retired: Cell::new(false), unconsumed, streams_max };
    Ok(OutboundConnection::H2(sender, Rc::new(closing)))
}

/// Runs what belongs to an HTTP/2 connection on its worker's thread.
#[derive(Clone, Default)]
struct LocalExecutor {
    /// The first, which has the socket. With it all others end: they are of requests.
    first: Rc<OnceCell<AbortHandle>>,
}

impl<F: Future + 'static> Executor<F> for LocalExecutor {
    fn execute(&self, future: F) {
        let task = tokio::task::spawn_local(async move {
            future.await;
        });
        // It fails where this is not the first.
        let _ = self.first.set(task.abort_handle());
    }
}

pub fn no_roots() -> RootCertStore {
    RootCertStore::empty()
}

/// The certificates that this machine trusts.
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

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
use super::failure::{Ended, Failure};
use super::paced::{Heard, Paced, SECURE_TURN_BYTES, TURN_BYTES, too_many_interim};
use super::policy::{Destination, Host};
use crate::log::escape;

/// Bytes of why there is no TLS, in a line of the log.
const LINE_BYTES_MAX: usize = 1024;
/// Addresses of one name that are tried.
const ADDRESSES_MAX: usize = 8;
/// What a server may send of one response, and of all of one connection, before anybody reads.
pub const STREAM_WINDOW: u32 = 256 << 10;
pub const CONNECTION_WINDOW: u32 = 1 << 20;
/// What hyper may read ahead, or hold of what is to be written, of one HTTP/1 connection.
const BUFFER_BYTES_MAX: usize = TURN_BYTES;
const STREAM_SEND_BYTES_MAX: usize = 64 << 10;

/// Turns of other tasks until hyper has taken note that a connection has ended: three tasks tell
/// each other.
const TURNS_TO_END: usize = 8;

const H2: &[u8] = b"h2";
const H1: &[u8] = b"http/1.1";

/// A request's body that can be sent.
pub trait Sent:
    Body<Data = Bytes, Error: Into<Box<dyn Error + Send + Sync>>> + Unpin + 'static
{
    /// The body of a request that has none.
    fn none() -> Self;

    /// Told by which connection it is sent.
    fn go_by(&mut self, heard: &Heard);
}

/// A connection that requests can be sent by.
pub enum Link<B> {
    /// One request after the other.
    H1 { sender: http1::SendRequest<B>, closing: Closing },
    /// Many at a time.
    H2(http2::SendRequest<B>, Rc<Closing>),
}

/// Closes a connection when the last who may use it lets go of it: one whose server takes no more
/// of a body would stay open for ever.
pub struct Closing {
    tasks: Vec<AbortHandle>,
    /// Whether no more requests are to be sent by it.
    is_retired: Cell<bool>,
    heard: Heard,
    /// Requests that the server takes at a time.
    streams_max: Rc<Cell<usize>>,
}

impl Closing {
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

impl Drop for Closing {
    fn drop(&mut self) {
        self.tasks.iter().for_each(AbortHandle::abort);
    }
}

/// Why a request was not answered.
pub enum Unanswered<B> {
    /// Nothing of it was sent.
    Unsent(Box<Request<B>>),
    Ended(Ended),
}

impl<B: Sent> Link<B> {
    pub fn is_h2(&self) -> bool {
        matches!(self, Link::H2(..))
    }

    /// Counts what its server sends.
    pub fn heard(&self) -> &Heard {
        match self {
            Link::H1 { closing, .. } => &closing.heard,
            Link::H2(_, closing) => &closing.heard,
        }
    }

    pub fn is_closed(&self) -> bool {
        match self {
            Link::H1 { sender, .. } => sender.is_closed(),
            Link::H2(sender, _) => sender.is_closed(),
        }
    }

    /// Whether it has ended, of one on which a request has failed: by HTTP/2 that may be that
    /// request's end alone.
    pub async fn has_ended(&self) -> bool {
        for _ in 0..TURNS_TO_END {
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
            Link::H1 { sender, .. } => sender.ready().await.is_ok(),
            Link::H2(sender, _) => sender.ready().await.is_ok(),
        }
    }

    /// Sends a request, up to the response's head.
    pub async fn send(
        &mut self,
        mut request: Request<B>,
    ) -> Result<Response<Incoming>, Unanswered<B>> {
        let too_many = too_many_interim(&mut request);
        request.body_mut().go_by(self.heard());
        let send = async {
            match self {
                Link::H1 { sender, .. } => sender.try_send_request(request).await,
                Link::H2(sender, _) => sender.try_send_request(request).await,
            }
        };
        let sent = tokio::select! {
            biased;
            // First: the answer may have come with them.
            () = too_many => return Err(Unanswered::Ended(Ended::TooManyInterim)),
            sent = send => sent,
        };
        self.heard().note();
        sent.map_err(|mut error| match error.take_message() {
            Some(request) => Unanswered::Unsent(Box::new(request)),
            None => Unanswered::Ended(Ended::Http(error.into_error())),
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
pub fn admitted(
    found: &[IpAddr],
    port: u16,
    admits: impl Fn(IpAddr) -> bool,
) -> Result<Vec<SocketAddr>, Failure> {
    if found.is_empty() {
        return Err(Failure::NoName);
    }
    let admitted = found.iter().filter(|address| admits(**address));
    let admitted = admitted.map(|address| SocketAddr::new(*address, port));
    let admitted: Vec<SocketAddr> = admitted.take(ADDRESSES_MAX).collect();
    if admitted.is_empty() { Err(Failure::Prohibited) } else { Ok(admitted) }
}

/// Opens a connection to one of these addresses. `held` is dropped when that is
/// closed.
pub async fn connect<B: Sent>(
    destination: &Destination,
    addresses: &[SocketAddr],
    config: &Config<'_>,
    held: impl Sized + 'static,
    deadline: Instant,
) -> Result<Link<B>, Failure> {
    let stream = tcp(addresses, config.untaken_max, deadline).await?;
    let heard = Heard::default();
    let turn_bytes = if destination.is_secure { SECURE_TURN_BYTES } else { TURN_BYTES };
    let stream = Paced::new(stream, turn_bytes, heard.clone());
    if !destination.is_secure {
        return h1(TokioIo::new(stream), config, (held, heard)).await;
    }
    let name = match &destination.host {
        Host::Address(address) => ServerName::IpAddress((*address).into()),
        Host::Name(name) => ServerName::try_from(name.to_string()).map_err(|_| Failure::BadUri)?,
    };
    let connector = TlsConnector::from(config.tls.clone());
    let secured = timeout_at(deadline, connector.connect(name, stream)).await;
    let stream = secured.map_err(|_| Failure::ConnectTimeout)?;
    let stream = stream.map_err(|error| {
        // Names of the server's certificate are in it.
        let why = escape(error.to_string().as_bytes(), LINE_BYTES_MAX);
        tracing::debug!("no TLS with {destination}: {why}");
        Failure::of_tls(&error)
    })?;
    let is_h2 = stream.get_ref().1.alpn_protocol() == Some(H2);
    let io = TokioIo::new(stream);
    if !is_h2 {
        return h1(io, config, (held, heard)).await;
    }
    heard.set_h2();
    let shaken = timeout_at(deadline, h2(io, config, (held, heard))).await;
    shaken.map_err(|_| Failure::ConnectTimeout)?
}

/// How connections are made.
pub struct Config<'a> {
    pub tls: &'a Tls,
    pub header_bytes_max: usize,
    /// How long what is sent may stay untaken until a connection is closed; without it as long as
    /// the kernel has it.
    pub untaken_max: Option<Duration>,
    /// Bytes that a server may send of one response by HTTP/2 before anybody reads.
    pub stream_window: u32,
}

/// Tries one address after the other, each for its part of the time that is left.
async fn tcp(
    addresses: &[SocketAddr],
    untaken_max: Option<Duration>,
    deadline: Instant,
) -> Result<TcpStream, Failure> {
    let mut failure = Failure::NoName;
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
                    set_tcp_user_timeout(&stream, ms).map_err(|_| Failure::Unavailable)?;
                }
                return Ok(stream);
            }
            Ok(Err(error)) => failure = Failure::of_connect(&error),
            Err(_) => failure = Failure::ConnectTimeout,
        }
    }
    Err(failure)
}

async fn h1<T, B: Sent>(
    io: T,
    config: &Config<'_>,
    (held, heard): (impl Sized + 'static, Heard),
) -> Result<Link<B>, Failure>
where
    T: Read + Write + Unpin + 'static,
{
    let mut builder = http1::Builder::new();
    builder.max_buf_size(BUFFER_BYTES_MAX.max(config.header_bytes_max));
    builder.max_header_size(config.header_bytes_max);
    let shaken = builder.handshake(io).await;
    let (sender, connection) = shaken.map_err(|error| Failure::of_exchange(&error))?;
    let driven = tokio::task::spawn_local(async move {
        // How it ends is told to the exchange that it is about.
        let _ = connection.await;
        drop(held);
    });
    let streams_max = Rc::new(Cell::new(1));
    let tasks = vec![driven.abort_handle()];
    let closing = Closing { tasks, is_retired: Cell::new(false), heard, streams_max };
    Ok(Link::H1 { sender, closing })
}

async fn h2<T, B: Sent>(
    io: T,
    config: &Config<'_>,
    (held, heard): (impl Sized + 'static, Heard),
) -> Result<Link<B>, Failure>
where
    T: Read + Write + Unpin + 'static,
{
    let local = Local::default();
    let mut builder = http2::Builder::new(local.clone());
    builder
        .initial_stream_window_size(config.stream_window)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .max_send_buf_size(STREAM_SEND_BYTES_MAX)
        .max_header_list_size(u32::try_from(config.header_bytes_max).unwrap_or(u32::MAX));
    let shaken = builder.handshake(io).await;
    let (sender, connection) = shaken.map_err(|error| Failure::of_exchange(&error))?;
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
    let closing = Closing { tasks, is_retired: Cell::new(false), heard, streams_max };
    Ok(Link::H2(sender, Rc::new(closing)))
}

/// Runs what belongs to an HTTP/2 connection on its worker's thread.
#[derive(Clone, Default)]
struct Local {
    /// The first, which has the socket. With it all others end: they are of requests.
    first: Rc<OnceCell<AbortHandle>>,
}

impl<F: Future + 'static> Executor<F> for Local {
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

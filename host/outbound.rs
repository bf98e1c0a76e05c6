//! The HTTP client, for requests that guests make themselves and for requests that the host
//! forwards.
//!
//! Each worker has an [`Outbound`] with its own connections. Guests send their requests to it by an
//! [`OutboundHandle`], from any thread. Owns all limits on outbound requests. Knows neither
//! wasmtime nor routes.

mod address;
mod body;
mod cdn_loop;
mod certificates;
mod connection_pool;
mod destination_pool;
mod exchange;
mod failure;
mod forwarded_body;
mod outbound_connection;
mod paced_stream;
mod policy;
mod resolver;
mod upstream_client;

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use http::{Method, Request, Response};
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tokio::sync::oneshot;

pub use body::{OutboundRequestBody, OutboundResponseBody};
pub use cdn_loop::{CdnLoop, HopLimit};
pub use failure::OutboundFailure;
pub use paced_stream::POLL_BYTES_MAX;
pub use upstream_client::{SentRequest, UpstreamClient, UpstreamError};

use crate::config::LimitMaxima;
use crate::grants::Grants;
use crate::log::escape;
use crate::message::RequestId;
use crate::message::fields::METHOD_BYTES_MAX;
use destination_pool::DestinationPool;
use policy::{AllowedNetworks, DenialLog, Destination};
use resolver::Resolver;

/// How many connections all workers together may have open.
const OPEN_MAX: usize = 256;
/// How many connections each worker may have open at least, with however many workers.
const OPEN_MIN: usize = 16;
/// How many bytes a log line may have.
const LINE_BYTES_MAX: usize = 2 * 1024;
/// How often idle connections are swept.
const SWEEP_EVERY: Duration = Duration::from_secs(1);

const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
const FIRST_BYTE_TIMEOUT: Duration = Duration::from_secs(30);
const BETWEEN_BYTES_TIMEOUT: Duration = Duration::from_secs(30);

/// The part of the client that all workers share.
#[derive(Clone)]
pub struct OutboundShared {
    denials: Arc<DenialLog>,
    tls: outbound_connection::Tls,
    resolver: Arc<Resolver>,
    workers: usize,
    open_max: usize,
}

impl OutboundShared {
    /// Reads the certificates that this machine trusts, if any handler or the upstream uses https.
    /// `largest` are the largest limits of any handler.
    pub fn new(largest: &LimitMaxima, upstream_is_secure: bool, workers: usize) -> OutboundShared {
        let is_secure = largest.outbound_is_secure || upstream_is_secure;
        let roots =
            if is_secure { outbound_connection::roots() } else { outbound_connection::no_roots() };
        let in_flight_max = largest.outbound_max.div_ceil(workers);
        OutboundShared {
            denials: Arc::default(),
            tls: outbound_connection::tls(roots),
            resolver: Resolver::new(),
            workers,
            open_max: (OPEN_MAX / workers).max(OPEN_MIN).max(3 * in_flight_max),
        }
    }
}

/// Counts a connection as open until this is dropped.
struct OpenConnection(Rc<Cell<usize>>);

impl Drop for OpenConnection {
    fn drop(&mut self) {
        self.0.set(self.0.get() - 1);
    }
}

/// One worker's HTTP client for its guests.
pub struct Outbound {
    shared: OutboundShared,
    pools: RefCell<HashMap<PoolKey, Rc<DestinationPool>>>,
    /// How many requests are in flight, by handler.
    guests: RefCell<HashMap<Box<str>, usize>>,
    /// How many connections are open or being opened.
    open_count: Rc<Cell<usize>>,
}

/// A handler and a destination. Connections are never shared between handlers.
#[derive(Clone, PartialEq, Eq, Hash)]
struct PoolKey {
    guest: Box<str>,
    destination: Destination,
}

/// Sends requests to a worker's [`Outbound`], from any thread.
#[derive(Clone)]
pub struct OutboundHandle(Arc<(OutboundShared, UnboundedSender<OutboundRequest>)>);

/// The receiving end of an [`OutboundHandle`], for [`Outbound::run`].
pub struct OutboundReceiver(UnboundedReceiver<OutboundRequest>);

/// A request on its way to the worker.
struct OutboundRequest {
    key: PoolKey,
    /// How many requests the handler may have in flight to one destination, all workers together.
    in_flight_max: usize,
    /// How many bytes the response's head may have.
    header_bytes_max: usize,
    allowed_networks: AllowedNetworks,
    parent_id: Option<RequestId>,
    request: Request<OutboundRequestBody>,
    timeouts: Timeouts,
    reply: oneshot::Sender<Result<OutboundResponse, OutboundFailure>>,
}

/// A response whose body is still arriving.
pub struct OutboundResponse {
    /// The head, and the body as a stream.
    pub response: Response<OutboundResponseBody>,
    /// Receives how sending the request's body has ended.
    pub sent: oneshot::Receiver<Result<(), OutboundFailure>>,
}

/// The guest that sends a request, and the request that it serves meanwhile.
pub struct Requester<'a> {
    /// The name of the guest's handler.
    pub guest: &'a str,
    /// What the handler may use.
    pub grants: &'a Grants,
    /// The request that the guest serves, if it serves one, for the log.
    pub request: Option<RequestId>,
    /// The `CDN-Loop` field of that request.
    pub cdn_loop: &'a CdnLoop,
}

/// The timeouts that a guest has chosen. `None` stands for the default.
#[derive(Clone, Copy, Debug, Default)]
pub struct RequestTimeouts {
    /// For an open connection, name lookup and TLS included.
    pub connect: Option<Duration>,
    /// For the response's head, once the server has the whole request.
    pub first_byte: Option<Duration>,
    /// For each pause in the response's body.
    pub between_bytes: Option<Duration>,
}

/// The timeouts that apply to a request.
#[derive(Clone, Copy, Debug)]
struct Timeouts {
    connect: Duration,
    first_byte: Duration,
    between_bytes: Duration,
}

impl RequestTimeouts {
    fn clamp(self, max: Duration) -> Timeouts {
        Timeouts {
            connect: self.connect.unwrap_or(CONNECT_TIMEOUT).min(max),
            first_byte: self.first_byte.unwrap_or(FIRST_BYTE_TIMEOUT).min(max),
            between_bytes: self.between_bytes.unwrap_or(BETWEEN_BYTES_TIMEOUT).min(max),
        }
    }
}

impl OutboundHandle {
    /// Sends a request to the worker. The returned receiver gets the response or the failure;
    /// dropping it cancels the request.
    ///
    /// # Errors
    /// The request is not allowed or not valid, so it is never sent.
    pub fn send(
        &self,
        maker: &Requester<'_>,
        mut request: Request<OutboundRequestBody>,
        requested: RequestTimeouts,
    ) -> Result<oneshot::Receiver<Result<OutboundResponse, OutboundFailure>>, OutboundFailure> {
        let (shared, orders) = &*self.0;
        let destination = Destination::of(request.uri())?;
        let method = request.method();
        if *method == Method::CONNECT || method.as_str().len() > METHOD_BYTES_MAX {
            return Err(OutboundFailure::BadMethod);
        }
        let allowed = &maker.grants.outbound;
        let Some(allowed_networks) = policy::allowed_networks(&allowed.allowed, &destination)
        else {
            if shared.denials.is_first(maker.guest, &destination) {
                log_handler(
                    maker.guest,
                    maker.request,
                    &format!(
                        "its request to {destination} is denied; it is allowed by \
                     --allow-outbound '{}={destination}'",
                        maker.guest
                    ),
                );
            }
            return Err(OutboundFailure::Denied);
        };
        maker.cdn_loop.append(request.headers_mut());
        let timeouts = requested.clamp(allowed.timeout_max);
        let key = PoolKey { guest: maker.guest.into(), destination };
        let (reply, answer) = oneshot::channel();
        let (in_flight_max, parent_id) = (allowed.in_flight_max, maker.request);
        let header_bytes_max = maker.grants.limits.header_bytes_max;
        let order = OutboundRequest {
            key,
            in_flight_max,
            header_bytes_max,
            allowed_networks,
            parent_id,
            request,
            timeouts,
            reply,
        };
        // Sending fails if the worker is gone. Then this call is about to end, too.
        orders.send(order).map_err(|_| OutboundFailure::Unavailable)?;
        Ok(answer)
    }
}

/// A line of the log about a handler.
fn log_handler(handler: &str, request: Option<RequestId>, what: &str) {
    // The names in it are of files and hosts.
    let what = escape(what.as_bytes(), LINE_BYTES_MAX);
    let request = request.map(tracing::field::display);
    tracing::warn!(target: "handler", handler, request, "{what}");
}

impl Outbound {
    /// A client without connections, with its handle. The caller must run [`Outbound::run`].
    pub fn new(shared: &OutboundShared) -> (Rc<Outbound>, OutboundHandle, OutboundReceiver) {
        let (sender, orders) = unbounded_channel();
        let outbound = Outbound {
            shared: shared.clone(),
            pools: RefCell::default(),
            guests: RefCell::default(),
            open_count: Rc::default(),
        };
        (
            Rc::new(outbound),
            OutboundHandle(Arc::new((shared.clone(), sender))),
            OutboundReceiver(orders),
        )
    }

    /// Executes requests as they arrive, and closes connections that have been idle for too long.
    /// Ends when all handles are dropped.
    pub async fn run(self: Rc<Self>, mut orders: OutboundReceiver) {
        let mut next = Instant::now();
        loop {
            let is_resting = self.pools.borrow().is_empty();
            tokio::select! {
                order = orders.0.recv() => {
                    let Some(order) = order else { return };
                    if is_resting {
                        next = Instant::now() + SWEEP_EVERY;
                    }
                    tokio::task::spawn_local(self.clone().execute(order));
                }
                () = tokio::time::sleep_until(next.into()), if !is_resting => {
                    next = Instant::now() + SWEEP_EVERY;
                    // Every request that uses a pool holds a reference to it.
                    let is_in_use = |pool: &Rc<DestinationPool>| Rc::strong_count(pool) > 1;
                    let mut pools = self.pools.borrow_mut();
                    pools.retain(|_, pool| pool.connections.sweep() || is_in_use(pool));
                }
            }
        }
    }

    /// The pool of a handler for one destination. A new one allows `in_flight_max` requests,
    /// divided by the number of workers.
    fn pool(&self, key: &PoolKey, in_flight_max: usize) -> Rc<DestinationPool> {
        let mut pools = self.pools.borrow_mut();
        if let Some(pool) = pools.get(key) {
            return pool.clone();
        }
        let in_flight_max = in_flight_max.div_ceil(self.shared.workers);
        let pool = Rc::new(DestinationPool::new(in_flight_max, key.destination.is_secure));
        pools.insert(key.clone(), pool.clone());
        pool
    }

    /// Counts a connection that is about to be opened. If there are too many, closes the one that
    /// has been idle longest.
    ///
    /// # Errors
    /// [`OutboundFailure::Full`] if none is idle.
    fn reserve(&self) -> Result<OpenConnection, OutboundFailure> {
        if self.open_count.get() >= self.shared.open_max {
            let pools = self.pools.borrow();
            let oldest =
                pools.values().filter_map(|pool| Some((pool.connections.idle_since()?, pool)));
            let (_, pool) = oldest.min_by_key(|(since, _)| *since).ok_or(OutboundFailure::Full)?;
            pool.connections.close_oldest();
        }
        self.open_count.set(self.open_count.get() + 1);
        Ok(OpenConnection(self.open_count.clone()))
    }
}

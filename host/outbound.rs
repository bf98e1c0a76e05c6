//! The HTTP client: requests that guests make themselves, who may send them where, and how they and
//! those that the host passes on get there.
//!
//! Each worker has an [`Outbound`] of its own with its connections; guests hand their requests in
//! by a [`Door`], from whatever thread they run on. Owns all limits on them. Knows neither wasmtime
//! nor who serves whom.

mod address;
mod body;
mod certificates;
mod connections;
mod exchange;
mod failure;
mod link;
mod paced;
mod passing;
mod policy;
mod resolve;
mod service;
mod trail;
mod way;

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use http::{Method, Request, Response};
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tokio::sync::oneshot;

pub use body::{Outgoing, Returning};
pub use failure::Failure;
pub use paced::TURN_BYTES;
pub use service::{Passage, Service, Unserved};
pub use trail::{Circle, Trail};

use crate::config::Largest;
use crate::grants::Grants;
use crate::log::escape;
use crate::message::RequestId;
use crate::message::fields::METHOD_BYTES_MAX;
use policy::{Denials, Destination, Leave};
use resolve::Resolver;
use way::Way;

/// Connections that all workers together may have open, and those that each may have anyway.
const OPEN_MAX: usize = 256;
const OPEN_MIN: usize = 16;
/// Bytes of a line of the log.
const LINE_BYTES_MAX: usize = 2 * 1024;
/// How often idle connections are looked at.
const SWEEP_EVERY: Duration = Duration::from_secs(1);

const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
const FIRST_BYTE_TIMEOUT: Duration = Duration::from_secs(30);
const BETWEEN_BYTES_TIMEOUT: Duration = Duration::from_secs(30);

/// What all workers have in common.
#[derive(Clone)]
pub struct Shared {
    denials: Arc<Denials>,
    tls: link::Tls,
    resolver: Arc<Resolver>,
    workers: usize,
    open_max: usize,
}

impl Shared {
    /// Reads the certificates that this machine trusts, where anybody may send to https.
    pub fn new(largest: &Largest, upstream_is_secure: bool, workers: usize) -> Shared {
        let is_secure = largest.outbound_is_secure || upstream_is_secure;
        let roots = if is_secure { link::roots() } else { link::no_roots() };
        let in_flight_max = largest.outbound_max.div_ceil(workers);
        Shared {
            denials: Arc::default(),
            tls: link::tls(roots),
            resolver: Resolver::new(),
            workers,
            open_max: (OPEN_MAX / workers).max(OPEN_MIN).max(3 * in_flight_max),
        }
    }
}

/// Counts a connection as long as it is open.
struct Open(Rc<Cell<usize>>);

impl Drop for Open {
    fn drop(&mut self) {
        self.0.set(self.0.get() - 1);
    }
}

/// One worker's way out.
pub struct Outbound {
    shared: Shared,
    ways: RefCell<HashMap<Key, Rc<Way>>>,
    /// Requests under way, by guest.
    guests: RefCell<HashMap<Box<str>, usize>>,
    /// Connections that are open, or about to be.
    open: Rc<Cell<usize>>,
}

/// Whose connections, and to where.
#[derive(Clone, PartialEq, Eq, Hash)]
struct Key {
    guest: Box<str>,
    destination: Destination,
}

/// Where guests hand requests in.
#[derive(Clone)]
pub struct Door(Arc<(Shared, UnboundedSender<Order>)>);

/// Requests that were handed in.
pub struct Orders(UnboundedReceiver<Order>);

/// A request on its way to the worker.
struct Order {
    key: Key,
    /// Requests to one destination that its guest may have under way, all workers together.
    in_flight_max: usize,
    /// Bytes that the response's head may have.
    header_bytes_max: usize,
    leave: Leave,
    whose: Option<RequestId>,
    request: Request<Outgoing>,
    times: Times,
    reply: oneshot::Sender<Result<Answer, Failure>>,
}

/// A response whose body is still to come.
pub struct Answer {
    pub response: Response<Returning>,
    /// Told how the request's own body ended.
    pub sent: oneshot::Receiver<Result<(), Failure>>,
}

/// Who makes a request, and because of which one.
pub struct Maker<'a> {
    pub guest: &'a str,
    /// What it may use.
    pub grants: &'a Grants,
    pub request: Option<RequestId>,
    pub trail: &'a Trail,
}

/// How long a guest wants to wait at most, as far as it says so.
#[derive(Clone, Copy, Debug, Default)]
pub struct Wanted {
    pub connect: Option<Duration>,
    pub first_byte: Option<Duration>,
    pub between_bytes: Option<Duration>,
}

/// How long it waits.
#[derive(Clone, Copy, Debug)]
struct Times {
    connect: Duration,
    first_byte: Duration,
    between_bytes: Duration,
}

impl Wanted {
    fn within(self, max: Duration) -> Times {
        Times {
            connect: self.connect.unwrap_or(CONNECT_TIMEOUT).min(max),
            first_byte: self.first_byte.unwrap_or(FIRST_BYTE_TIMEOUT).min(max),
            between_bytes: self.between_bytes.unwrap_or(BETWEEN_BYTES_TIMEOUT).min(max),
        }
    }
}

impl Door {
    /// Hands a request in; what comes of it is told to the receiver. Dropping that ends the
    /// exchange.
    ///
    /// # Errors
    /// The request is one that is never sent.
    pub fn send(
        &self,
        maker: &Maker<'_>,
        mut request: Request<Outgoing>,
        wanted: Wanted,
    ) -> Result<oneshot::Receiver<Result<Answer, Failure>>, Failure> {
        let (shared, orders) = &*self.0;
        let destination = Destination::of(request.uri())?;
        let method = request.method();
        if *method == Method::CONNECT || method.as_str().len() > METHOD_BYTES_MAX {
            return Err(Failure::BadMethod);
        }
        let allowed = &maker.grants.outbound;
        let Some(leave) = policy::leave(&allowed.allowed, &destination) else {
            if shared.denials.is_news(maker.guest, &destination) {
                tell(
                    maker.guest,
                    maker.request,
                    &format!(
                        "its request to {destination} is denied; it is allowed by \
                     --allow-outbound '{}={destination}'",
                        maker.guest
                    ),
                );
            }
            return Err(Failure::Denied);
        };
        maker.trail.mark(request.headers_mut());
        let times = wanted.within(allowed.timeout_max);
        let key = Key { guest: maker.guest.into(), destination };
        let (reply, answer) = oneshot::channel();
        let (in_flight_max, whose) = (allowed.in_flight_max, maker.request);
        let header_bytes_max = maker.grants.limits.header_bytes_max;
        let order =
            Order { key, in_flight_max, header_bytes_max, leave, whose, request, times, reply };
        // The worker is gone, and this call is about to be.
        orders.send(order).map_err(|_| Failure::Unavailable)?;
        Ok(answer)
    }
}

/// A line of the log about a guest.
fn tell(guest: &str, request: Option<RequestId>, what: &str) {
    // The names in it are of files and hosts.
    let what = escape(what.as_bytes(), LINE_BYTES_MAX);
    let request = request.map(tracing::field::display);
    tracing::warn!(target: "handler", guest, request, "{what}");
}

impl Outbound {
    /// One worker's, with the door to it. [`Outbound::run`] is to follow.
    pub fn new(shared: &Shared) -> (Rc<Outbound>, Door, Orders) {
        let (sender, orders) = unbounded_channel();
        let outbound = Outbound {
            shared: shared.clone(),
            ways: RefCell::default(),
            guests: RefCell::default(),
            open: Rc::default(),
        };
        (Rc::new(outbound), Door(Arc::new((shared.clone(), sender))), Orders(orders))
    }

    /// Carries out what is handed in, and closes what has been idle for long.
    pub async fn run(self: Rc<Self>, mut orders: Orders) {
        let mut next = Instant::now();
        loop {
            let is_resting = self.ways.borrow().is_empty();
            tokio::select! {
                order = orders.0.recv() => {
                    let Some(order) = order else { return };
                    if is_resting {
                        next = Instant::now() + SWEEP_EVERY;
                    }
                    tokio::task::spawn_local(self.clone().carry_out(order));
                }
                () = tokio::time::sleep_until(next.into()), if !is_resting => {
                    next = Instant::now() + SWEEP_EVERY;
                    // A way that somebody is on is his, too.
                    let is_used = |way: &Rc<Way>| Rc::strong_count(way) > 1;
                    let is_kept = |way: &Rc<Way>| way.connections.sweep() || is_used(way);
                    self.ways.borrow_mut().retain(|_, way| is_kept(way));
                }
            }
        }
    }

    /// The connections of a guest to one place. So many of its requests may be under way there.
    fn way(&self, key: &Key, in_flight_max: usize) -> Rc<Way> {
        let mut ways = self.ways.borrow_mut();
        if let Some(way) = ways.get(key) {
            return way.clone();
        }
        let in_flight_max = in_flight_max.div_ceil(self.shared.workers);
        let way = Rc::new(Way::new(in_flight_max, key.destination.is_secure));
        ways.insert(key.clone(), way.clone());
        way
    }

    /// Counts a connection in that is about to be opened. Where there are too many, the one that
    /// has been idle longest is closed.
    fn open(&self) -> Result<Open, Failure> {
        if self.open.get() >= self.shared.open_max {
            let ways = self.ways.borrow();
            let oldest = ways.values().filter_map(|way| Some((way.connections.idle_since()?, way)));
            let (_, way) = oldest.min_by_key(|(since, _)| *since).ok_or(Failure::Full)?;
            way.connections.close_oldest();
        }
        self.open.set(self.open.get() + 1);
        Ok(Open(self.open.clone()))
    }
}

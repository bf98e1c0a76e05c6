//! The connections of one worker to one destination, for one handler or for the upstream.
//!
//! A pool is never shared between handlers, so a pooled connection needs no permission check. Owns
//! when a request may be sent a second time.

use std::cell::{Cell, RefCell};
use std::rc::{Rc, Weak};
use std::time::{Duration, Instant};

use http::{Method, Request, Response};
use http_body::Body;
use hyper::body::Incoming;
use hyper::client::conn::http2;
use tokio::sync::Notify;

use super::failure::{ExchangeError, OutboundFailure};
use super::outbound_connection::{DriverGuard, OutboundConnection, SendError, UploadBody};

/// How often a request is sent again because its connection was closed. The last retry uses a new
/// connection.
const RETRIES_MAX: usize = 3;
/// How long an idle connection is kept.
const IDLE_TIMEOUT: Duration = Duration::from_secs(30);

/// A pool of connections to one destination.
pub struct ConnectionPool<B> {
    /// Idle HTTP/1.1 connections, the one used last at the end.
    idle: RefCell<Vec<(OutboundConnection<B>, Instant)>>,
    /// How many idle HTTP/1.1 connections are kept.
    idle_count_max: usize,
    /// HTTP/2 connections, idle or in use.
    shared: RefCell<Vec<SharedConnection<B>>>,
    sharing: Sharing,
    /// How many requests wait for an HTTP/2 connection or open one.
    waiting: Cell<usize>,
    /// How many of these open one.
    opening: Cell<usize>,
    /// Wakes waiting requests when a connection may be available.
    changed: Notify,
    /// When the server last failed to open a connection, and why.
    last_failure: Cell<Option<(Instant, OutboundFailure)>>,
    /// Whether the newest connection speaks HTTP/1.1.
    is_h1: Cell<bool>,
}

struct SharedConnection<B> {
    sender: http2::SendRequest<B>,
    /// Each exchange holds one more reference, which counts the exchanges.
    driver: Rc<DriverGuard>,
    /// Whether one exchange has the connection for itself.
    is_taken: Cell<bool>,
    /// When the connection was last used.
    since: Instant,
}

/// Which requests may share an HTTP/2 connection.
#[derive(Clone, Copy)]
pub enum Sharing {
    /// All requests. They belong to one handler, so they may hold each other up.
    All,
    /// At most this many requests, and only those without a body.
    ///
    /// A request with a body has a connection for itself: a server that stops reading its body may
    /// stop reading all others on the connection (RFC 9113, 5.2). If a request is cancelled or
    /// fails, its connection is retired: it may be broken, or full of data that the server does not
    /// read.
    Few(usize),
}

/// Adds one to a count until it is dropped.
struct Count<'a>(&'a Cell<usize>);

impl<'a> Count<'a> {
    fn one(count: &'a Cell<usize>) -> Self {
        count.set(count.get() + 1);
        Count(count)
    }
}

impl Drop for Count<'_> {
    fn drop(&mut self) {
        self.0.set(self.0.get() - 1);
    }
}

/// Wakes the requests that wait for a connection, whether opening one succeeds or not.
struct NotifyOnDrop<'a>(&'a Notify);

impl Drop for NotifyOnDrop<'_> {
    fn drop(&mut self) {
        self.0.notify_waiters();
    }
}

impl<B> SharedConnection<B> {
    fn count(&self) -> usize {
        Rc::strong_count(&self.driver) - 1
    }
}

impl Sharing {
    /// How many requests one connection may serve at once.
    fn most(self) -> usize {
        match self {
            Sharing::All => usize::MAX,
            Sharing::Few(most) => most,
        }
    }
}

/// A connection that was checked out for one exchange.
pub struct PooledConnection<B> {
    /// The connection itself.
    pub inner: OutboundConnection<B>,
    /// Whether an earlier exchange used it. Then the server may have closed it meanwhile.
    pub is_used: bool,
    /// Set until [`ConnectionPool::release`].
    on_drop: RetireOnDrop,
}

/// Retires a connection when dropped, unless the connection was released before.
#[derive(Default)]
struct RetireOnDrop(Option<Weak<DriverGuard>>);

impl Drop for RetireOnDrop {
    fn drop(&mut self) {
        if let Some(connection) = self.0.as_ref().and_then(Weak::upgrade) {
            connection.retire();
        }
    }
}

impl<B: UploadBody> ConnectionPool<B> {
    /// An empty pool that keeps at most `idle_count_max` idle HTTP/1.1 connections. `is_secure`
    /// says that the server may speak HTTP/2.
    pub fn new(idle_count_max: usize, is_secure: bool, sharing: Sharing) -> Self {
        ConnectionPool {
            idle: RefCell::default(),
            idle_count_max,
            shared: RefCell::default(),
            sharing,
            waiting: Cell::new(0),
            opening: Cell::new(0),
            changed: Notify::new(),
            last_failure: Cell::new(None),
            is_h1: Cell::new(!is_secure),
        }
    }

    /// Sends a request on a pooled connection or on one that `open` makes, and returns the
    /// response's head.
    ///
    /// A server may close a used connection at any time, so the request may have to be sent again.
    /// The host cannot know whether the server has read it the first time. So only safe requests
    /// are repeated (RFC 9112, 9.3.1), and those that the server says it has not processed.
    pub async fn exchange(
        &self,
        mut request: Request<B>,
        open: impl AsyncFn() -> Result<OutboundConnection<B>, OutboundFailure>,
        send: impl AsyncFn(
            &mut OutboundConnection<B>,
            Request<B>,
        ) -> Result<Response<Incoming>, SendError<B>>,
    ) -> Result<(Response<Incoming>, PooledConnection<B>), ExchangeError> {
        let again = retry_copy(&request);
        let is_alone = matches!(self.sharing, Sharing::Few(_)) && !request.body().is_end_stream();
        for turn in 0..=RETRIES_MAX {
            let is_last = turn == RETRIES_MAX;
            let pooled = match is_last {
                false => self.checkout(is_alone, &open).await,
                true => opened(&open).await.map(|link| self.first_use(link, is_alone)),
            };
            let mut pooled = pooled.map_err(ExchangeError::Failed)?;
            let ended = match send(&mut pooled.inner, request).await {
                Ok(response) => return Ok((response, pooled)),
                Err(SendError::Unsent(unsent)) if pooled.is_used => {
                    request = *unsent;
                    continue;
                }
                Err(SendError::Unsent(_)) => break,
                Err(SendError::Ended(ended)) => ended,
            };
            match &again {
                Some(again) if !is_last && may_repeat(again.method(), &ended, &pooled).await => {
                    request = again.clone().map(|()| B::empty());
                }
                _ => return Err(ended),
            }
        }
        Err(ExchangeError::Failed(OutboundFailure::Terminated))
    }

    /// Takes a connection from the pool, or opens one. `is_alone` asks for one without other
    /// requests.
    async fn checkout(
        &self,
        is_alone: bool,
        open: &impl AsyncFn() -> Result<OutboundConnection<B>, OutboundFailure>,
    ) -> Result<PooledConnection<B>, OutboundFailure> {
        if let Some(pooled) = self.try_checkout(is_alone) {
            return Ok(pooled);
        }
        if self.is_h1.get() || is_alone {
            return opened(open).await.map(|link| self.first_use(link, is_alone));
        }
        let since = Instant::now();
        let _waiting = Count::one(&self.waiting);
        // A connection that another request opens may serve this one, too.
        while self.opening.get().saturating_mul(self.sharing.most()) >= self.waiting.get() {
            self.changed.notified().await;
            if let Some(pooled) = self.try_checkout(is_alone) {
                return Ok(pooled);
            }
            if self.is_h1.get() {
                return opened(open).await.map(|link| self.first_use(link, is_alone));
            }
            if let Some((at, failure)) = self.last_failure.get()
                && at > since
                && matches!(self.sharing, Sharing::Few(_))
                && self.shared.borrow().is_empty()
            {
                return Err(failure);
            }
        }
        let _ended = NotifyOnDrop(&self.changed);
        let _opening = Count::one(&self.opening);
        let opened = opened(open).await;
        if let Err(failure) = &opened
            && !failure.is_of_connection()
        {
            self.last_failure.set(Some((Instant::now(), *failure)));
        }
        opened.map(|link| self.first_use(link, is_alone))
    }

    fn first_use(&self, link: OutboundConnection<B>, is_alone: bool) -> PooledConnection<B> {
        self.is_h1.set(!link.is_h2());
        if let OutboundConnection::H2(sender, driver) = &link {
            let (sender, driver, is_taken) = (sender.clone(), driver.clone(), Cell::new(is_alone));
            let shared = SharedConnection { sender, driver, is_taken, since: Instant::now() };
            self.shared.borrow_mut().push(shared);
        }
        self.pooled(link, false)
    }

    fn pooled(&self, link: OutboundConnection<B>, is_used: bool) -> PooledConnection<B> {
        let connection = match (&link, self.sharing) {
            (OutboundConnection::H2(_, connection), Sharing::Few(_)) => {
                Some(Rc::downgrade(connection))
            }
            _ => None,
        };
        PooledConnection { inner: link, is_used, on_drop: RetireOnDrop(connection) }
    }

    fn try_checkout(&self, is_alone: bool) -> Option<PooledConnection<B>> {
        let mut shared = self.shared.borrow_mut();
        shared.retain(|it| !it.sender.is_closed() && !it.driver.is_retired());
        let has_room = |it: &&SharedConnection<B>| match (it.count(), self.sharing) {
            (_, Sharing::All) => true,
            _ if it.is_taken.get() => false,
            (0, _) => true,
            (count, Sharing::Few(most)) => !is_alone && count < most.min(it.driver.streams_max()),
        };
        if let Some(shared) = shared.iter().find(has_room) {
            shared.is_taken.set(is_alone);
            let link = OutboundConnection::H2(shared.sender.clone(), shared.driver.clone());
            return Some(self.pooled(link, true));
        }
        let mut idle = self.idle.borrow_mut();
        while let Some((link, _)) = idle.pop() {
            if !link.is_closed() {
                return Some(self.pooled(link, true));
            }
        }
        None
    }

    /// Gives a connection back whose request and response are complete. Waits until it is ready for
    /// the next request, at most for `settle_max`; after that the connection is closed.
    pub async fn release(&self, mut pooled: PooledConnection<B>, settle_max: Option<Duration>) {
        pooled.on_drop.0 = None;
        if let OutboundConnection::H2(_, driver) = &pooled.inner {
            let mut shared = self.shared.borrow_mut();
            if let Some(shared) = shared.iter_mut().find(|it| Rc::ptr_eq(&it.driver, driver)) {
                shared.since = Instant::now();
                shared.is_taken.set(false);
            }
            if self.waiting.get() > 0 {
                self.changed.notify_one();
            }
            return;
        }
        let ready = pooled.inner.is_ready();
        let is_ready = match settle_max {
            Some(max) => tokio::time::timeout(max, ready).await.unwrap_or(false),
            None => ready.await,
        };
        let mut idle = self.idle.borrow_mut();
        if is_ready && idle.len() < self.idle_count_max {
            idle.push((pooled.inner, Instant::now()));
        }
    }

    /// Sends no more requests on the HTTP/2 connections. Each is closed after its last request in
    /// flight.
    pub fn retire_shared(&self) {
        self.shared.borrow_mut().clear();
    }

    /// Closes connections that have been idle for too long, and drops those that the server has
    /// closed. Returns whether any connection is left.
    pub fn sweep(&self) -> bool {
        let is_new = |since: Instant| since.elapsed() < IDLE_TIMEOUT;
        self.idle.borrow_mut().retain(|(link, since)| !link.is_closed() && is_new(*since));
        let mut shared = self.shared.borrow_mut();
        shared.retain(|it| {
            let is_over = it.sender.is_closed() || it.driver.is_retired();
            !is_over && (it.count() > 0 || is_new(it.since))
        });
        !shared.is_empty() || !self.idle.borrow().is_empty()
    }

    /// Since when the oldest idle connection has been idle.
    pub fn idle_since(&self) -> Option<Instant> {
        let shared = self.shared.borrow();
        let shared = shared.iter().filter(|it| it.count() == 0);
        let oldest = self.idle.borrow().first().map(|(_, since)| *since);
        oldest.into_iter().chain(shared.map(|it| it.since)).min()
    }

    /// Closes the oldest idle connection.
    pub fn close_oldest(&self) {
        let mut idle = self.idle.borrow_mut();
        if idle.is_empty() {
            let mut shared = self.shared.borrow_mut();
            let idle = shared.iter().enumerate().filter(|(_, it)| it.count() == 0);
            if let Some((at, _)) = idle.min_by_key(|(_, it)| it.since) {
                shared.remove(at);
            }
        } else {
            idle.remove(0);
        }
    }
}

/// Opens a connection. Tries once more if the first breaks off, because nothing was sent on it.
async fn opened<B>(
    open: &impl AsyncFn() -> Result<OutboundConnection<B>, OutboundFailure>,
) -> Result<OutboundConnection<B>, OutboundFailure> {
    match open().await {
        Err(failure) if failure.is_of_connection() => open().await,
        opened => opened,
    }
}

/// Whether a request that failed in this way on this connection may be sent again.
async fn may_repeat<B: UploadBody>(
    method: &Method,
    ended: &ExchangeError,
    pooled: &PooledConnection<B>,
) -> bool {
    if ended.is_unprocessed() {
        return true;
    }
    // Safe methods change nothing on the server (RFC 9110, 9.2.1).
    let is_safe = [Method::GET, Method::HEAD, Method::OPTIONS].contains(method);
    let is_ended = ended.failure() == OutboundFailure::Terminated;
    is_safe && is_ended && pooled.is_used && pooled.inner.has_ended().await
}

/// A copy of a request for a retry. `None` for a request with a body, which cannot be sent twice.
fn retry_copy<B: Body>(request: &Request<B>) -> Option<Request<()>> {
    if !request.body().is_end_stream() {
        return None;
    }
    let mut spare = Request::new(());
    *spare.method_mut() = request.method().clone();
    *spare.uri_mut() = request.uri().clone();
    *spare.version_mut() = request.version();
    *spare.headers_mut() = request.headers().clone();
    *spare.extensions_mut() = request.extensions().clone();
    Some(spare)
}

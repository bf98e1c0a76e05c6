//! The connections to one destination, of one worker, that requests of one party are sent by.
//!
//! None is shared with others, so what one party may reach another cannot. Owns when a request may
//! be sent a second time.

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

/// How often a request is sent again, as its connection turns out to be closed. The last time it is
/// one that is new.
const RETRIES_MAX: usize = 3;
/// How long a connection is kept without a request.
const IDLE_TIMEOUT: Duration = Duration::from_secs(30);

/// See the file.
pub struct ConnectionPool<B> {
    /// Connections of HTTP/1.1 without a request, the one used last at the end.
    idle: RefCell<Vec<(OutboundConnection<B>, Instant)>>,
    /// So many of them are kept.
    idle_count_max: usize,
    /// The connections of HTTP/2.
    shared: RefCell<Vec<SharedConnection<B>>>,
    sharing: Sharing,
    /// Requests that wait for a connection of HTTP/2 or open one, and how many open one.
    waiting: Cell<usize>,
    opening: Cell<usize>,
    /// Told when those who wait are to look again.
    changed: Notify,
    /// When opening one failed last because of the server, and why.
    last_failure: Cell<Option<(Instant, OutboundFailure)>>,
    /// Whether the server has last spoken HTTP/1.1.
    is_h1: Cell<bool>,
}

struct SharedConnection<B> {
    sender: http2::SendRequest<B>,
    /// One more for each exchange.
    driver: Rc<DriverGuard>,
    /// Whether an exchange has it for itself.
    is_taken: Cell<bool>,
    since: Instant,
}

/// How a connection of HTTP/2 is shared.
#[derive(Clone, Copy)]
pub enum Sharing {
    /// By all requests: those of one party can be in each other's way.
    All,
    /// By so many that are complete with their heads. One with a body has a connection for itself:
    /// a server that takes no more of that may take no more of the others' (RFC 9113, 5.2). Where a
    /// request is given up, or fails, no more are sent by its connection: that may be at fault, or
    /// may hold what the server does not read.
    Few(usize),
}

/// Counts one, until it is dropped.
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

/// Has those look again who wait for a connection, however opening one ends.
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
    /// Requests that one connection may have.
    fn most(self) -> usize {
        match self {
            Sharing::All => usize::MAX,
            Sharing::Few(most) => most,
        }
    }
}

/// A connection for one exchange.
pub struct PooledConnection<B> {
    pub inner: OutboundConnection<B>,
    /// Whether another exchange has had it before, so that it may be out of date.
    pub is_used: bool,
    /// There until it is given back.
    on_drop: RetireOnDrop,
}

/// Has no more requests sent by a connection, if it is dropped with one.
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
    /// None yet. So many are kept without a request; `is_secure` if the server may speak HTTP/2.
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

    /// Sends a request, up to its response's head, by a connection that there is or that `open`
    /// makes; and again where it met the connection's end. A server may close one that has served a
    /// request at any time, and whether it has read this one, nobody knows: what may have been done
    /// once is not done twice (RFC 9112, 9.3.1), unless the server says that it was not.
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
            let lent = match is_last {
                false => self.checkout(is_alone, &open).await,
                true => opened(&open).await.map(|link| self.first_use(link, is_alone)),
            };
            let mut lent = lent.map_err(ExchangeError::Failed)?;
            let ended = match send(&mut lent.inner, request).await {
                Ok(response) => return Ok((response, lent)),
                Err(SendError::Unsent(unsent)) if lent.is_used => {
                    request = *unsent;
                    continue;
                }
                Err(SendError::Unsent(_)) => break,
                Err(SendError::Ended(ended)) => ended,
            };
            match &again {
                Some(again) if !is_last && may_repeat(again.method(), &ended, &lent).await => {
                    request = again.clone().map(|()| B::empty());
                }
                _ => return Err(ended),
            }
        }
        Err(ExchangeError::Failed(OutboundFailure::Terminated))
    }

    /// A connection that there is, or one that `open` makes.
    async fn checkout(
        &self,
        is_alone: bool,
        open: &impl AsyncFn() -> Result<OutboundConnection<B>, OutboundFailure>,
    ) -> Result<PooledConnection<B>, OutboundFailure> {
        if let Some(lent) = self.try_checkout(is_alone) {
            return Ok(lent);
        }
        if self.is_h1.get() || is_alone {
            return opened(open).await.map(|link| self.first_use(link, is_alone));
        }
        let since = Instant::now();
        let _waiting = Count::one(&self.waiting);
        // What others are opening may serve this request, too.
        while self.opening.get().saturating_mul(self.sharing.most()) >= self.waiting.get() {
            self.changed.notified().await;
            if let Some(lent) = self.try_checkout(is_alone) {
                return Ok(lent);
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

    /// Takes a connection back whose request and response are complete, once it is ready for the
    /// next request; until then it is waited for, but no longer than `settle_max`.
    pub async fn release(&self, mut lent: PooledConnection<B>, settle_max: Option<Duration>) {
        lent.on_drop.0 = None;
        if let OutboundConnection::H2(_, driver) = &lent.inner {
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
        let ready = lent.inner.is_ready();
        let is_ready = match settle_max {
            Some(max) => tokio::time::timeout(max, ready).await.unwrap_or(false),
            None => ready.await,
        };
        let mut idle = self.idle.borrow_mut();
        if is_ready && idle.len() < self.idle_count_max {
            idle.push((lent.inner, Instant::now()));
        }
    }

    /// Sends no more requests by the connections of HTTP/2; each is closed with the last that is
    /// under way.
    pub fn retire_shared(&self) {
        self.shared.borrow_mut().clear();
    }

    /// Closes what has been idle for long or is closed by the server; whether anything is left.
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

    /// Since when its oldest idle connection has been idle.
    pub fn idle_since(&self) -> Option<Instant> {
        let shared = self.shared.borrow();
        let shared = shared.iter().filter(|it| it.count() == 0);
        let oldest = self.idle.borrow().first().map(|(_, since)| *since);
        oldest.into_iter().chain(shared.map(|it| it.since)).min()
    }

    /// Closes that one.
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

/// Opens a connection, and another where that breaks off: nothing was sent by it.
async fn opened<B>(
    open: &impl AsyncFn() -> Result<OutboundConnection<B>, OutboundFailure>,
) -> Result<OutboundConnection<B>, OutboundFailure> {
    match open().await {
        Err(failure) if failure.is_of_connection() => open().await,
        opened => opened,
    }
}

/// Whether a request may be sent again that has ended so on this connection.
async fn may_repeat<B: UploadBody>(
    method: &Method,
    ended: &ExchangeError,
    lent: &PooledConnection<B>,
) -> bool {
    if ended.is_unprocessed() {
        return true;
    }
    // It changes nothing (RFC 9110, 9.2.1).
    let is_safe = [Method::GET, Method::HEAD, Method::OPTIONS].contains(method);
    let is_ended = ended.failure() == OutboundFailure::Terminated;
    is_safe && is_ended && lent.is_used && lent.inner.has_ended().await
}

/// A second copy of a request that can be sent twice, as it has no body.
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

//! One guest's way to one destination, on one worker: its places and its connections.
//!
//! No connection is shared between guests, so what one of them may reach another cannot.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::time::{Duration, Instant};

use hyper::client::conn::http2;
use tokio::sync::{Semaphore, SemaphorePermit};

use super::body::{Progress, Turn, Upload};
use super::failure::Failure;
use super::link::{Closing, Link};

/// How long a connection is kept without a request.
const IDLE_MAX: Duration = Duration::from_secs(30);
/// Idle connections of one way.
const IDLE_COUNT_MAX: usize = 32;
/// How long a connection may take to be ready for the next request once a response is complete.
const SETTLE_MAX: Duration = Duration::from_millis(100);

/// See the file.
pub struct Way {
    places: Semaphore,
    queued: Cell<usize>,
    queue_max: usize,
    /// Connections of HTTP/1.1 without a request, the one used last at the end.
    idle: RefCell<Vec<(Link, Instant)>>,
    /// The connection of HTTP/2, for all requests.
    shared: RefCell<Option<Shared>>,
    /// To be had by who opens a connection, as long as it may be one for all.
    opening: Semaphore,
    /// Whether the server has last spoken HTTP/1.1.
    is_h1: Cell<bool>,
}

struct Shared {
    sender: http2::SendRequest<Upload>,
    /// One more for each exchange.
    users: Rc<Closing>,
    since: Instant,
}

/// A connection for one exchange.
pub struct Lent {
    pub link: Link,
    /// Whether another exchange has had it before, so that it may be out of date.
    pub is_used: bool,
}

/// A request that waits for a place.
struct Queued<'a>(&'a Cell<usize>);

impl Drop for Queued<'_> {
    fn drop(&mut self) {
        self.0.set(self.0.get() - 1);
    }
}

impl Way {
    /// A way with so many places, and a queue as long.
    pub fn new(in_flight_max: usize, is_secure: bool) -> Self {
        Way {
            places: Semaphore::new(in_flight_max),
            queued: Cell::new(0),
            queue_max: in_flight_max,
            idle: RefCell::default(),
            shared: RefCell::default(),
            opening: Semaphore::new(1),
            is_h1: Cell::new(!is_secure),
        }
    }

    /// Takes a place, or waits for one in the queue.
    pub async fn place(&self) -> Result<SemaphorePermit<'_>, Failure> {
        if let Ok(place) = self.places.try_acquire() {
            return Ok(place);
        }
        if self.queued.get() >= self.queue_max {
            return Err(Failure::Full);
        }
        self.queued.set(self.queued.get() + 1);
        let _queued = Queued(&self.queued);
        self.places.acquire().await.map_err(|_| Failure::Full)
    }

    /// A connection that there is, or one that `open` makes.
    pub async fn lend(
        &self,
        open: impl Future<Output = Result<Link, Failure>>,
    ) -> Result<Lent, Failure> {
        if let Some(lent) = self.take() {
            return Ok(lent);
        }
        let _turn = match self.is_h1.get() {
            true => None,
            // What another is opening may serve this exchange, too.
            false => Some(self.opening.acquire().await.map_err(|_| Failure::Full)?),
        };
        if let Some(lent) = self.take() {
            return Ok(lent);
        }
        let link = open.await?;
        self.is_h1.set(!link.is_h2());
        if let Link::H2(sender, users) = &link {
            let (sender, users) = (sender.clone(), users.clone());
            *self.shared.borrow_mut() = Some(Shared { sender, users, since: Instant::now() });
        }
        Ok(Lent { link, is_used: false })
    }

    fn take(&self) -> Option<Lent> {
        if let Some(shared) = &*self.shared.borrow()
            && !shared.sender.is_closed()
        {
            let link = Link::H2(shared.sender.clone(), shared.users.clone());
            return Some(Lent { link, is_used: true });
        }
        let mut idle = self.idle.borrow_mut();
        while let Some((link, _)) = idle.pop() {
            if !link.is_closed() {
                return Some(Lent { link, is_used: true });
            }
        }
        None
    }

    /// Takes a connection back whose exchange is over; one that has more to send or to receive is
    /// closed instead. A guest may be told that a response is complete before it has said that its
    /// request is: until then the connection is not ready.
    pub async fn give_back(&self, mut lent: Lent, is_whole: bool, progress: &Progress) {
        if lent.link.is_h2() {
            self.give_up(progress);
            if let Some(shared) = &mut *self.shared.borrow_mut() {
                shared.since = Instant::now();
            }
            return;
        }
        if !is_whole || progress.get().0 == Turn::Server {
            return;
        }
        let is_ready = tokio::time::timeout(SETTLE_MAX, lent.link.is_ready()).await;
        let mut idle = self.idle.borrow_mut();
        if is_ready == Ok(true) && idle.len() < IDLE_COUNT_MAX {
            idle.push((lent.link, Instant::now()));
        }
    }

    /// Sends no more requests by a connection of HTTP/2 on which one is stuck whose guest is gone;
    /// it is closed with the last that is under way.
    pub fn give_up(&self, progress: &Progress) {
        if progress.get().0 == Turn::Server {
            *self.shared.borrow_mut() = None;
        }
    }

    /// Closes what has been idle for long or is closed by the server; whether anything is left.
    pub fn sweep(&self) -> bool {
        let is_new = |since: Instant| since.elapsed() < IDLE_MAX;
        self.idle.borrow_mut().retain(|(link, since)| !link.is_closed() && is_new(*since));
        let mut shared = self.shared.borrow_mut();
        let is_kept = |it: &Shared| {
            let is_in_use = Rc::strong_count(&it.users) > 1;
            !it.sender.is_closed() && (is_in_use || is_new(it.since))
        };
        if !shared.as_ref().is_some_and(is_kept) {
            *shared = None;
        }
        shared.is_some() || !self.idle.borrow().is_empty()
    }

    /// Since when its oldest idle connection has been idle.
    pub fn idle_since(&self) -> Option<Instant> {
        let shared = self.shared.borrow();
        let shared = shared.as_ref().filter(|it| Rc::strong_count(&it.users) == 1);
        let oldest = self.idle.borrow().first().map(|(_, since)| *since);
        oldest.into_iter().chain(shared.map(|it| it.since)).min()
    }

    /// Closes that one.
    pub fn close_oldest(&self) {
        let mut idle = self.idle.borrow_mut();
        if idle.is_empty() {
            *self.shared.borrow_mut() = None;
        } else {
            idle.remove(0);
        }
    }
}

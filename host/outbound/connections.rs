//! The connections to one destination, of one worker, that requests of one party are sent by.
//!
//! None is shared with others, so what one party may reach another cannot. Owns when a request may
//! be sent a second time.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::time::{Duration, Instant};

use http::{Method, Request, Response};
use http_body::Body;
use hyper::body::Incoming;
use hyper::client::conn::http2;
use tokio::sync::Semaphore;

use super::failure::{Ended, Failure};
use super::link::{Closing, Link, Sent, Unanswered};

/// How often a request is sent by connections that turn out to be closed.
const STALE_MAX: usize = 3;
/// How long a connection is kept without a request.
const IDLE_MAX: Duration = Duration::from_secs(30);

/// See the file.
pub struct Connections<B> {
    /// Connections of HTTP/1.1 without a request, the one used last at the end.
    idle: RefCell<Vec<(Link<B>, Instant)>>,
    /// So many of them are kept.
    idle_count_max: usize,
    /// The connection of HTTP/2, for all requests.
    shared: RefCell<Option<Shared<B>>>,
    /// To be had by who opens a connection, as long as it may be one for all.
    opening: Semaphore,
    /// Whether the server has last spoken HTTP/1.1.
    is_h1: Cell<bool>,
}

struct Shared<B> {
    sender: http2::SendRequest<B>,
    /// One more for each exchange.
    users: Rc<Closing>,
    since: Instant,
}

/// A connection for one exchange.
pub struct Lent<B> {
    pub link: Link<B>,
    /// Whether another exchange has had it before, so that it may be out of date.
    pub is_used: bool,
}

impl<B: Sent> Connections<B> {
    /// None yet. So many are kept without a request; `is_secure` if the server may speak HTTP/2.
    pub fn new(idle_count_max: usize, is_secure: bool) -> Self {
        Connections {
            idle: RefCell::default(),
            idle_count_max,
            shared: RefCell::default(),
            opening: Semaphore::new(1),
            is_h1: Cell::new(!is_secure),
        }
    }

    /// Sends a request, up to its response's head, by a connection that there is or that `open`
    /// makes; and again where it met the connection's end. A server may close one that has served a
    /// request at any time, and whether it has read this one, nobody knows: what may have been done
    /// once is not done twice (RFC 9112, 9.3.1).
    pub async fn exchange(
        &self,
        mut request: Request<B>,
        open: impl AsyncFn() -> Result<Link<B>, Failure>,
        send: impl AsyncFn(&mut Link<B>, Request<B>) -> Result<Response<Incoming>, Unanswered<B>>,
    ) -> Result<(Response<Incoming>, Lent<B>), Ended> {
        let again = spare(&request);
        for turn in 1.. {
            let mut lent = self.lend(open()).await.map_err(Ended::By)?;
            let is_last = !lent.is_used || turn == STALE_MAX;
            match send(&mut lent.link, request).await {
                Ok(response) => return Ok((response, lent)),
                Err(Unanswered::Unsent(unsent)) if !is_last => request = *unsent,
                Err(Unanswered::Unsent(_)) => break,
                Err(Unanswered::Ended(ended)) => match &again {
                    Some(again) if !is_last && ended.failure() == Failure::Terminated => {
                        request = again.clone().map(|()| B::none());
                    }
                    _ => return Err(ended),
                },
            }
        }
        Err(Ended::By(Failure::Terminated))
    }

    /// A connection that there is, or one that `open` makes.
    async fn lend(
        &self,
        open: impl Future<Output = Result<Link<B>, Failure>>,
    ) -> Result<Lent<B>, Failure> {
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

    fn take(&self) -> Option<Lent<B>> {
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

    /// Takes a connection back whose request and response are complete, once it is ready for the
    /// next request; until then it is waited for, but no longer than `settle_max`.
    pub async fn give_back(&self, mut lent: Lent<B>, settle_max: Option<Duration>) {
        if lent.link.is_h2() {
            if let Some(shared) = &mut *self.shared.borrow_mut() {
                shared.since = Instant::now();
            }
            return;
        }
        let ready = lent.link.is_ready();
        let is_ready = match settle_max {
            Some(max) => tokio::time::timeout(max, ready).await.unwrap_or(false),
            None => ready.await,
        };
        let mut idle = self.idle.borrow_mut();
        if is_ready && idle.len() < self.idle_count_max {
            idle.push((lent.link, Instant::now()));
        }
    }

    /// Sends no more requests by the connection of HTTP/2; it is closed with the last that is under
    /// way.
    pub fn leave_shared(&self) {
        *self.shared.borrow_mut() = None;
    }

    /// Closes what has been idle for long or is closed by the server; whether anything is left.
    pub fn sweep(&self) -> bool {
        let is_new = |since: Instant| since.elapsed() < IDLE_MAX;
        self.idle.borrow_mut().retain(|(link, since)| !link.is_closed() && is_new(*since));
        let mut shared = self.shared.borrow_mut();
        let is_kept = |it: &Shared<B>| {
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

/// A second copy of a request that may be sent twice: it changes nothing and has no body (RFC 9110,
/// 9.2.2).
fn spare<B: Body>(request: &Request<B>) -> Option<Request<()>> {
    let is_safe = [Method::GET, Method::HEAD, Method::OPTIONS].contains(request.method());
    if !is_safe || !request.body().is_end_stream() {
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

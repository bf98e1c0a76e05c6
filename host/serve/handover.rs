//! The way of a request to another worker, and of its response back.
//!
//! A call can begin on any worker: a request is handed over as it is, with its body still on the
//! wire, and so is the head of its response, whose body follows piece by piece. Owns whom a worker
//! asks, and how often. Only a worker that has no place for a request asks another.

use std::cell::Cell;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::{HeaderMap, StatusCode};
use http_body::{Body, Frame, SizeHint};
use tokio::sync::mpsc::{self, UnboundedReceiver, UnboundedSender, unbounded_channel};
use tokio::sync::oneshot;

use crate::guest::Guest;
use crate::message::{Reject, Request, RequestBody, Response, ResponseBody, Streamed};
use crate::registry::Current;
use crate::registry::admit::Permit;

/// A worker that had no place for a guest is not asked again for so long: where there is none
/// anywhere, requests are to wait and not to wander.
const FULL_FOR: Duration = Duration::from_millis(10);
/// Of so many guests that is kept in mind.
const KEPT_IN_MIND: usize = 8;

/// A request for another worker.
pub struct Order {
    pub guest: Arc<Guest>,
    pub request: Box<Request>,
    /// When it began.
    pub started: Instant,
    pub reply: oneshot::Sender<Reply>,
}

/// A request that has its place.
pub struct Admitted {
    pub guest: Current,
    pub request: Box<Request>,
    pub permit: Permit,
    /// Whether it has waited.
    pub waited: bool,
}

/// Where a request begins its way through the steps.
pub enum Start {
    Asked(Result<Box<Request>, Reject>),
    /// Behind its admission, on another worker than that of its connection.
    Admitted(Box<Admitted>),
}

/// What another worker says to it.
pub enum Reply {
    /// There is no place there, either.
    Full(Box<Request>),
    /// What came of it, and what is left of its body where it was refused.
    Served(Result<Answer, Reject>, RequestBody),
}

/// A response that has left its worker.
pub struct Answer {
    status: StatusCode,
    headers: HeaderMap,
    body: Content,
}

enum Content {
    Full(Bytes),
    Trailed(Bytes, Box<HeaderMap>),
    Stream(Remote),
}

/// A body that is made on another worker's thread.
struct Remote {
    pieces: mpsc::Receiver<Piece>,
    hint: SizeHint,
    is_end: bool,
}

/// A piece of it, or its end, and what is known then of what follows.
pub struct Piece {
    pub frame: Option<Result<Frame<Bytes>, Reject>>,
    pub hint: SizeHint,
    pub is_end: bool,
}

/// What is left to do for a response where it was made: its body, and where that goes.
pub type Rest = (Streamed, mpsc::Sender<Piece>);

/// What became of a request that another worker was asked to serve.
pub enum Outcome {
    /// Nobody has a place for it.
    Back(Box<Request>),
    /// The result, and what is left of the request's body.
    Served(Result<Response, Reject>, RequestBody),
}

/// The other workers, as one of them sees them.
pub struct Others {
    others: Box<[Other]>,
    /// Who is asked next.
    next: Cell<usize>,
}

struct Other {
    orders: UnboundedSender<Order>,
    /// For which guests it had none, and when.
    full: [Cell<Option<(usize, Instant)>>; KEPT_IN_MIND],
}

/// How to reach each worker, and where each gets what others hand over.
pub fn channels(workers: usize) -> (Arc<[UnboundedSender<Order>]>, Vec<UnboundedReceiver<Order>>) {
    let (senders, orders): (Vec<_>, Vec<_>) = (0..workers).map(|_| unbounded_channel()).unzip();
    (senders.into(), orders)
}

impl Others {
    /// All but the one with this index.
    pub fn new(senders: &[UnboundedSender<Order>], index: usize) -> Self {
        // The one behind it is asked first, so that not all ask the same.
        let behind = senders.iter().cycle().skip(index + 1).take(senders.len() - 1);
        let other = |orders: &UnboundedSender<Order>| Other {
            orders: orders.clone(),
            full: Default::default(),
        };
        Others { others: behind.map(other).collect(), next: Cell::new(0) }
    }

    /// Has one of them serve a request, if it has a place. One is asked, so that what finds a place
    /// nowhere loses little time.
    pub async fn serve(
        &self,
        guest: &Arc<Guest>,
        request: Box<Request>,
        started: Instant,
    ) -> Outcome {
        let Some(other) = self.next(guest.id) else { return Outcome::Back(request) };
        let (reply, replied) = oneshot::channel();
        let order = Order { guest: guest.clone(), request, started, reply };
        if let Err(back) = other.orders.send(order) {
            // That worker is about to end.
            return Outcome::Back(back.0.request);
        }
        match replied.await {
            Ok(Reply::Full(request)) => {
                other.full[guest.id % KEPT_IN_MIND].set(Some((guest.id, Instant::now())));
                Outcome::Back(request)
            }
            Ok(Reply::Served(result, left)) => Outcome::Served(result.map(Response::from), left),
            // It has panicked.
            Err(_) => Outcome::Served(Err(Reject::Panic), RequestBody::default()),
        }
    }

    fn next(&self, guest: usize) -> Option<&Other> {
        let is_full = |other: &Other| {
            let full = other.full[guest % KEPT_IN_MIND].get();
            full.is_some_and(|(of, at)| of == guest && at.elapsed() < FULL_FOR)
        };
        let first = self.next.get();
        let mut turn = (first..).take(self.others.len()).map(|at| at % self.others.len());
        let at = turn.find(|at| !is_full(&self.others[*at]))?;
        self.next.set(at + 1);
        Some(&self.others[at])
    }
}

impl Answer {
    /// A response as it leaves, and what is to follow it from its own thread.
    pub fn new(response: Response) -> (Answer, Option<Rest>) {
        let Response { status, headers, body } = response;
        let (body, rest) = match body {
            ResponseBody::Full(bytes) => (Content::Full(bytes), None),
            ResponseBody::Trailed(bytes, trailers) => (Content::Trailed(bytes, trailers), None),
            ResponseBody::Stream(body) => {
                let (sender, pieces) = mpsc::channel(1);
                let remote =
                    Remote { pieces, hint: body.size_hint(), is_end: body.is_end_stream() };
                (Content::Stream(remote), Some((body, sender)))
            }
        };
        (Answer { status, headers, body }, rest)
    }
}

impl From<Answer> for Response {
    fn from(answer: Answer) -> Self {
        let Answer { status, headers, body } = answer;
        let body = match body {
            Content::Full(bytes) => ResponseBody::Full(bytes),
            Content::Trailed(bytes, trailers) => ResponseBody::Trailed(bytes, trailers),
            Content::Stream(remote) => ResponseBody::Stream(Box::pin(remote)),
        };
        Response { status, headers, body }
    }
}

impl Body for Remote {
    type Data = Bytes;
    type Error = Reject;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Reject>>> {
        if self.is_end {
            return Poll::Ready(None);
        }
        match std::task::ready!(self.pieces.poll_recv(cx)) {
            Some(piece) => {
                self.hint = piece.hint;
                self.is_end = piece.is_end;
                Poll::Ready(piece.frame)
            }
            // Whoever made it is gone, and it is not complete.
            None => Poll::Ready(Some(Err(Reject::Panic))),
        }
    }

    fn is_end_stream(&self) -> bool {
        self.is_end
    }

    fn size_hint(&self) -> SizeHint {
        self.hint
    }
}

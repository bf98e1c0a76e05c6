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
use crate::message::{BodyStream, Reject, Request, RequestBody, Response, ResponseBody};
use crate::registry::CurrentGuest;
use crate::registry::admission_gate::Permit;

/// A worker that had no place for a guest is not asked again for so long: where there is none
/// anywhere, requests are to wait and not to wander.
const FULL_BACKOFF: Duration = Duration::from_millis(10);
/// Of so many guests that is kept in mind.
const FULL_ENTRIES_MAX: usize = 8;

/// A request for another worker.
pub struct HandoverRequest {
    pub guest: Arc<Guest>,
    pub request: Box<Request>,
    /// When it began.
    pub started: Instant,
    pub reply: oneshot::Sender<HandoverReply>,
}

/// A request that has its place.
pub struct AdmittedRequest {
    pub guest: CurrentGuest,
    pub request: Box<Request>,
    pub permit: Permit,
    /// Whether it has waited.
    pub waited: bool,
}

/// Where a request begins its way through the steps.
pub enum PipelineEntry {
    Parsed(Result<Box<Request>, Reject>),
    /// Behind its admission, on another worker than that of its connection.
    Admitted(Box<AdmittedRequest>),
}

/// What another worker says to it.
pub enum HandoverReply {
    /// There is no place there, either.
    Full(Box<Request>),
    /// What came of it, and what is left of its body where it was refused.
    Served(Result<RemoteResponse, Reject>, RequestBody),
}

/// A response that has left its worker.
pub struct RemoteResponse {
    status: StatusCode,
    headers: HeaderMap,
    body: RemoteContent,
}

enum RemoteContent {
    Full(Bytes),
    WithTrailers(Bytes, Box<HeaderMap>),
    Stream(RemoteBody),
}

/// A body that is made on another worker's thread.
struct RemoteBody {
    pieces: mpsc::Receiver<RemoteFrame>,
    hint: SizeHint,
    is_end: bool,
}

/// A piece of it, or its end, and what is known then of what follows.
pub struct RemoteFrame {
    pub frame: Option<Result<Frame<Bytes>, Reject>>,
    pub hint: SizeHint,
    pub is_end: bool,
}

/// What is left to do for a response where it was made: its body, and where that goes.
pub type BodyRelay = (BodyStream, mpsc::Sender<RemoteFrame>);

/// What became of a request that another worker was asked to serve.
pub enum HandoverOutcome {
    /// Nobody has a place for it.
    Returned(Box<Request>),
    /// The result, and what is left of the request's body.
    Served(Result<Response, Reject>, RequestBody),
}

/// The other workers, as one of them sees them.
pub struct OtherWorkers {
    others: Box<[OtherWorker]>,
    /// Who is asked next.
    next: Cell<usize>,
}

struct OtherWorker {
    orders: UnboundedSender<HandoverRequest>,
    /// For which guests it had none, and when.
    full: [Cell<Option<(usize, Instant)>>; FULL_ENTRIES_MAX],
}

/// How to reach each worker, and where each gets what others hand over.
pub fn channels(
    workers: usize,
) -> (Arc<[UnboundedSender<HandoverRequest>]>, Vec<UnboundedReceiver<HandoverRequest>>) {
    let (senders, orders): (Vec<_>, Vec<_>) = (0..workers).map(|_| unbounded_channel()).unzip();
    (senders.into(), orders)
}

impl OtherWorkers {
    /// All but the one with this index.
    pub fn new(senders: &[UnboundedSender<HandoverRequest>], index: usize) -> Self {
        // The one behind it is asked first, so that not all ask the same.
        let behind = senders.iter().cycle().skip(index + 1).take(senders.len() - 1);
        let other = |orders: &UnboundedSender<HandoverRequest>| OtherWorker {
            orders: orders.clone(),
            full: Default::default(),
        };
        OtherWorkers { others: behind.map(other).collect(), next: Cell::new(0) }
    }

    /// Has one of them serve a request, if it has a place. One is asked, so that what finds a place
    /// nowhere loses little time.
    pub async fn serve(
        &self,
        guest: &Arc<Guest>,
        request: Box<Request>,
        started: Instant,
    ) -> HandoverOutcome {
        let Some(other) = self.next(guest.id) else { return HandoverOutcome::Returned(request) };
        let (reply, replied) = oneshot::channel();
        let order = HandoverRequest { guest: guest.clone(), request, started, reply };
        if let Err(back) = other.orders.send(order) {
            // That worker is about to end.
            return HandoverOutcome::Returned(back.0.request);
        }
        match replied.await {
            Ok(HandoverReply::Full(request)) => {
                other.full[guest.id % FULL_ENTRIES_MAX].set(Some((guest.id, Instant::now())));
                HandoverOutcome::Returned(request)
            }
            Ok(HandoverReply::Served(result, left)) => {
                HandoverOutcome::Served(result.map(Response::from), left)
            }
            // It has panicked.
            Err(_) => HandoverOutcome::Served(Err(Reject::Panic), RequestBody::default()),
        }
    }

    fn next(&self, guest: usize) -> Option<&OtherWorker> {
        let is_full = |other: &OtherWorker| {
            let full = other.full[guest % FULL_ENTRIES_MAX].get();
            full.is_some_and(|(of, at)| of == guest && at.elapsed() < FULL_BACKOFF)
        };
        let first = self.next.get();
        let mut turn = (first..).take(self.others.len()).map(|at| at % self.others.len());
        let at = turn.find(|at| !is_full(&self.others[*at]))?;
        self.next.set(at + 1);
        Some(&self.others[at])
    }
}

impl RemoteResponse {
    /// A response as it leaves, and what is to follow it from its own thread.
    pub fn new(response: Response) -> (RemoteResponse, Option<BodyRelay>) {
        let Response { status, headers, body } = response;
        let (body, rest) = match body {
            ResponseBody::Full(bytes) => (RemoteContent::Full(bytes), None),
            ResponseBody::WithTrailers(bytes, trailers) => {
                (RemoteContent::WithTrailers(bytes, trailers), None)
            }
            ResponseBody::Stream(body) => {
                let (sender, pieces) = mpsc::channel(1);
                let remote =
                    RemoteBody { pieces, hint: body.size_hint(), is_end: body.is_end_stream() };
                (RemoteContent::Stream(remote), Some((body, sender)))
            }
        };
        (RemoteResponse { status, headers, body }, rest)
    }
}

impl From<RemoteResponse> for Response {
    fn from(answer: RemoteResponse) -> Self {
        let RemoteResponse { status, headers, body } = answer;
        let body = match body {
            RemoteContent::Full(bytes) => ResponseBody::Full(bytes),
            RemoteContent::WithTrailers(bytes, trailers) => {
                ResponseBody::WithTrailers(bytes, trailers)
            }
            RemoteContent::Stream(remote) => ResponseBody::Stream(Box::pin(remote)),
        };
        Response { status, headers, body }
    }
}

impl Body for RemoteBody {
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

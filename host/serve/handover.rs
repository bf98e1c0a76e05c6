//! Hands a request to another worker and brings its response back.
//!
//! A call can run on any worker. The request is handed over with its body still on the wire. The
//! head of the response comes back first, then its body piece by piece. Owns which worker is asked
//! and how often. A worker asks another only if it has no permit for the request itself.

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

/// How long a worker that had no permit for a handler is not asked again. If all workers are busy,
/// requests should wait and not move around.
const FULL_BACKOFF: Duration = Duration::from_millis(10);
/// For how many handlers a worker is remembered to be full.
const FULL_ENTRIES_MAX: usize = 8;

/// A request that is handed to another worker.
pub struct HandoverRequest {
    /// The guest to call.
    pub guest: Arc<Guest>,
    /// The request with its unread body.
    pub request: Box<Request>,
    /// When the request began.
    pub started: Instant,
    /// Where the other worker sends its reply.
    pub reply: oneshot::Sender<HandoverReply>,
}

/// A request that was admitted.
pub struct AdmittedRequest {
    /// The guest to call.
    pub guest: CurrentGuest,
    /// The request with its unread body.
    pub request: Box<Request>,
    /// The right to be in flight.
    pub permit: Permit,
    /// Whether the request has waited in the queue.
    pub waited: bool,
}

/// Where a request enters the pipeline.
pub enum PipelineEntry {
    /// At the start: a validated request, or the reason to refuse it.
    Parsed(Result<Box<Request>, Reject>),
    /// After admission, on another worker than that of its connection.
    Admitted(Box<AdmittedRequest>),
}

/// The reply of the other worker.
pub enum HandoverReply {
    /// The other worker has no permit either. The request comes back.
    Full(Box<Request>),
    /// The result, and the rest of the request's body if the request was refused.
    Served(Result<RemoteResponse, Reject>, RequestBody),
}

/// A response on its way back from the worker that made it.
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

/// A response body that another worker's thread makes.
struct RemoteBody {
    pieces: mpsc::Receiver<RemoteFrame>,
    hint: SizeHint,
    is_end: bool,
}

/// A piece of a remote body, or its end.
pub struct RemoteFrame {
    /// The piece; `None` at the end of the body.
    pub frame: Option<Result<Frame<Bytes>, Reject>>,
    /// How much follows after this piece.
    pub hint: SizeHint,
    /// Whether nothing follows.
    pub is_end: bool,
}

/// A body, and the channel by which the worker that makes it sends it to the connection's worker.
pub type BodyRelay = (BodyStream, mpsc::Sender<RemoteFrame>);

/// What became of a request that another worker was asked to serve.
pub enum HandoverOutcome {
    /// No worker that was asked has a permit for it. The request comes back.
    Returned(Box<Request>),
    /// The result, and the rest of the request's body.
    Served(Result<Response, Reject>, RequestBody),
}

/// The other workers, as one worker sees them.
pub struct OtherWorkers {
    others: Box<[OtherWorker]>,
    /// The index of the worker to ask next.
    next: Cell<usize>,
}

struct OtherWorker {
    orders: UnboundedSender<HandoverRequest>,
    /// The handlers for which it had no permit, and when it said so.
    full: [Cell<Option<(usize, Instant)>>; FULL_ENTRIES_MAX],
}

/// Channels between the workers: the senders to all of them, and each one's receiver.
pub fn channels(
    workers: usize,
) -> (Arc<[UnboundedSender<HandoverRequest>]>, Vec<UnboundedReceiver<HandoverRequest>>) {
    let (senders, orders): (Vec<_>, Vec<_>) = (0..workers).map(|_| unbounded_channel()).unzip();
    (senders.into(), orders)
}

impl OtherWorkers {
    /// All workers but the one with this index.
    pub fn new(senders: &[UnboundedSender<HandoverRequest>], index: usize) -> Self {
        // Each worker asks its successor first, so that they do not all ask the same one.
        let behind = senders.iter().cycle().skip(index + 1).take(senders.len() - 1);
        let other = |orders: &UnboundedSender<HandoverRequest>| OtherWorker {
            orders: orders.clone(),
            full: Default::default(),
        };
        OtherWorkers { others: behind.map(other).collect(), next: Cell::new(0) }
    }

    /// Asks one other worker to serve a request. It asks only one, so that little time is lost if
    /// no worker has a permit.
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
            // The other worker has panicked.
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
    /// Splits a response into what is sent at once, and the body that this thread still has to
    /// relay, if it is a stream.
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
            // The worker that made the body is gone before its end.
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

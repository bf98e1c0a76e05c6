//! Forwards requests to the upstream.
//!
//! Knows nothing of connections; `upstream.rs` does.

use std::pin::Pin;
use std::time::Instant;

use super::worker::Worker;
use crate::grants::Grants;
use crate::guest::{ForwardFuture, GuestInfo, NextHandler};
use crate::message::body_progress::Deadline;
use crate::message::{Reject, Request, RequestId, Response};

impl NextHandler for Worker {
    fn forward<'a>(
        &'a self,
        (guest, about): (usize, &'a GuestInfo),
        request: &'a mut Request,
        deadline: &'a Deadline,
    ) -> ForwardFuture<'a> {
        Box::pin(forward(self, (Some(guest), &about.grants), request, deadline))
    }

    fn warn(&self, request: RequestId, why: &str) {
        if let Some(upstream) = &self.upstream {
            upstream.warn(request, why);
        }
    }
}

/// Forwards a request that no handler answers.
///
/// # Errors
/// As [`forward`].
pub async fn forward_unrouted(
    worker: &Worker,
    mut request: Box<Request>,
    deadline: Instant,
) -> Result<Response, Reject> {
    let unrouted = (None, &*worker.router.unrouted_grants);
    request.body.limit(unrouted.1.limits.body_bytes_max)?;
    let deadline = Deadline::new(deadline, request.body.progress().cloned());
    forward(worker, unrouted, &mut request, &deadline).await
}

/// Forwards a request whose handler was removed while it waited for the guest to be loaded.
pub fn on_removed<'a>(
    worker: &'a Worker,
    request: Box<Request>,
    started: Instant,
) -> Pin<Box<impl Future<Output = Result<Response, Reject>> + use<'a>>> {
    let deadline = started + worker.router.unrouted_grants.limits.deadline;
    Box::pin(forward_unrouted(worker, request, deadline))
}

/// Sends a request to the upstream. The parts that are not consumed stay in `request` for the
/// guest. `guest` is the id of the handler that passes the request on, if any, and its grants, or
/// else the grants of unrouted requests.
///
/// # Errors
/// [`Reject::NoRoute`] if there is no upstream; else as [`super::upstream::Upstream::forward`].
async fn forward(
    worker: &Worker,
    guest: (Option<usize>, &Grants),
    request: &mut Request,
    deadline: &Deadline,
) -> Result<Response, Reject> {
    let Some(upstream) = &worker.upstream else { return Err(Reject::NoRoute) };
    let client = worker.worker_clients.shares(request.origin.peer.address);
    upstream.forward(request, deadline, guest, &client).await
}

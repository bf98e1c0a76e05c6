//! Answers that the host makes without a guest: native twins, the start page of an empty folder,
//! and requests that go to the upstream or to no route.

use std::pin::Pin;
use std::rc::Rc;
use std::time::Instant;

use super::forwarding::forward_unrouted;
use super::respond::{self, RequestMeta};
use super::routed::HostTarget;
use super::worker::Worker;
use super::worker_clients::ClientShares;
use crate::demo::native::Twin;
use crate::message::{Reject, Request, RequestBody, Response};

/// An answer, or a future that makes it.
enum HostAnswer {
    Now(Result<Response, Reject>),
    Later(Pin<Box<dyn Future<Output = HostResult>>>),
}

/// An answer, with the rest of the request's body.
type HostResult = (Result<Response, Reject>, RequestBody);

/// Answers a request. The rest of its body goes into the request's [`RequestMeta`].
pub async fn answer_own(
    worker: &Rc<Worker>,
    own: HostTarget,
    request: Box<Request>,
    client: &Rc<ClientShares>,
    meta: &mut RequestMeta,
) -> Result<Response, Reject> {
    match answer(worker, own, request, client, meta.conditions.deadline) {
        HostAnswer::Now(result) => result,
        HostAnswer::Later(later) => {
            let (result, left) = later.await;
            meta.unread_body = left;
            result
        }
    }
}

fn answer(
    worker: &Rc<Worker>,
    own: HostTarget,
    mut request: Box<Request>,
    client: &Rc<ClientShares>,
    deadline: Instant,
) -> HostAnswer {
    match own {
        HostTarget::Twin(twin) => {
            let bytes_max = worker.router.grants_of(twin).limits.body_bytes_max;
            match request.body.limit(bytes_max) {
                Ok(()) => answer_twin(worker, twin, request, client, deadline),
                Err(reject) => HostAnswer::Now(Err(reject)),
            }
        }
        HostTarget::Landing => {
            let limited = request.body.limit(worker.router.unrouted_grants.limits.body_bytes_max);
            HostAnswer::Now(limited.map(|()| respond::landing()))
        }
        HostTarget::Upstream => {
            let worker = worker.clone();
            HostAnswer::Later(Box::pin(async move {
                (forward_unrouted(&worker, request, deadline).await, RequestBody::default())
            }))
        }
    }
}

fn answer_twin(
    worker: &Rc<Worker>,
    twin: Twin,
    mut request: Box<Request>,
    client: &Rc<ClientShares>,
    deadline: Instant,
) -> HostAnswer {
    let permit = worker.gates.twins.admit(&client.serving).ok();
    let headers = worker.spare_headers.take();
    let headers = match permit.is_some() {
        true => match twin.respond_now(headers) {
            Ok(response) if request.body.is_end() => {
                worker.spare_headers.put(request.headers);
                return HostAnswer::Now(response);
            }
            // Yield once, so that hyper can read the body. Only then it knows whether all of it
            // has arrived.
            Ok(response) => {
                return HostAnswer::Later(Box::pin(async move {
                    tokio::task::yield_now().await;
                    drop(request);
                    (response, RequestBody::default())
                }));
            }
            Err(headers) => headers,
        },
        false => headers,
    };
    let (worker, client) = (worker.clone(), client.clone());
    HostAnswer::Later(Box::pin(async move {
        let waited = match permit {
            Some(permit) => Ok(permit),
            None => worker.gates.twins.clone().wait(&client.serving, deadline).await,
        };
        let result = match waited {
            Ok(_permit) => {
                let limits = &worker.router.grants_of(twin).limits;
                twin.respond(&mut request, headers, limits).await
            }
            Err(reject) => Err(reject),
        };
        (result, request.body)
    }))
}

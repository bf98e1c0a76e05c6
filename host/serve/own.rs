//! What the host answers itself, without a guest: native twins, the page of an empty folder, and
//! what nobody serves.

use std::pin::Pin;
use std::rc::Rc;
use std::time::Instant;

use super::forwarding::nobody;
use super::peer::Shares;
use super::respond::{self, Asked};
use super::routed::Own;
use super::worker::Worker;
use crate::demo::native::Twin;
use crate::message::{Reject, Request, RequestBody, Response};

/// An answer, or what is left to do for one.
enum Answer {
    Now(Result<Response, Reject>),
    Later(Pin<Box<dyn Future<Output = Answered>>>),
}

/// An answer, with what is left of the request's body.
type Answered = (Result<Response, Reject>, RequestBody);

/// Serves a request. What is left of its body goes to what was asked.
pub async fn serve(
    worker: &Rc<Worker>,
    own: Own,
    request: Box<Request>,
    client: &Rc<Shares>,
    asked: &mut Asked,
) -> Result<Response, Reject> {
    match answer(worker, own, request, client, asked.conditions.deadline) {
        Answer::Now(result) => result,
        Answer::Later(later) => {
            let (result, left) = later.await;
            asked.left = left;
            result
        }
    }
}

fn answer(
    worker: &Rc<Worker>,
    own: Own,
    mut request: Box<Request>,
    client: &Rc<Shares>,
    deadline: Instant,
) -> Answer {
    match own {
        Own::Twin(twin) => {
            let bytes_max = worker.router.grants_of(twin).limits.body_bytes_max;
            match request.body.limit(bytes_max) {
                Ok(()) => answer_twin(worker, twin, request, client, deadline),
                Err(reject) => Answer::Now(Err(reject)),
            }
        }
        Own::Landing => {
            let limited = request.body.limit(worker.router.nobody.limits.body_bytes_max);
            Answer::Now(limited.map(|()| respond::landing()))
        }
        Own::Nobody => {
            let worker = worker.clone();
            Answer::Later(Box::pin(async move {
                (nobody(&worker, request, deadline).await, RequestBody::default())
            }))
        }
    }
}

fn answer_twin(
    worker: &Rc<Worker>,
    twin: Twin,
    mut request: Box<Request>,
    client: &Rc<Shares>,
    deadline: Instant,
) -> Answer {
    let permit = worker.gates.twins.admit(&client.serving).ok();
    let headers = worker.spare_headers.take();
    let headers = match permit.is_some() {
        true => match twin.respond_now(headers) {
            Ok(response) if request.body.is_end() => {
                worker.spare_headers.keep(request.headers);
                return Answer::Now(response);
            }
            // Until hyper has looked for the body it cannot tell that all of it is here.
            Ok(response) => {
                return Answer::Later(Box::pin(async move {
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
    Answer::Later(Box::pin(async move {
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

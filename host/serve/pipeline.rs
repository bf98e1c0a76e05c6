//! The request path on one screen: route, admit, checkout, call, respond.
//!
//! Owns the order of the steps. What a guest passes on is `forwarding.rs`'s.

#[cfg(test)]
mod tests;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::sync::Arc;
use std::task::Poll;
use std::time::{Duration, Instant};

use http::header::TE;
use http::{HeaderMap, Method};
use hyper::body::Incoming;

use super::peer::{Peer, Shares};
use super::respond::{self, Asked, Body, Conditions};
use super::wire::Wire;
use super::worker::{Routed, Worker};
use super::{forwarding, intake, outgoing};
use crate::guest::component::{Terms, Visit, response};
use crate::guest::core::CoreInstance;
use crate::guest::{Guest, Instance};
use crate::message::progress::Deadline;
use crate::message::{Reject, Request, Response, ResponseBody};
use crate::native::Twin;
use crate::registry::Handler;
use crate::registry::admit::Permit;

/// A request that is refused waits for half of this at least, and until the next of the moments
/// that lie so far apart: many are answered in one go.
const REFUSED_EVERY: Duration = Duration::from_millis(25);

/// What is left to do for a request once it has been routed and admitted.
enum Step {
    /// Nothing but to respond.
    Respond(Result<Response, Reject>),
    /// The guest has the request.
    Call(Box<CoreInstance>, Permit),
    /// Anything rarer, boxed so that idle connections do not hold room for it.
    Later(Pin<Box<dyn Future<Output = Result<Response, Reject>>>>),
}

/// Who asks, and since when.
struct Caller {
    client: Rc<Shares>,
    started: Instant,
    /// When the head of the response is due.
    deadline: Instant,
}

/// Serves one request. Never fails: whatever goes wrong has a response.
///
/// Not an async fn: the steps that never wait run at once, so that the future holds little.
pub fn serve(
    worker: &Rc<Worker>,
    wire: &Rc<Wire>,
    peer: &Peer,
    http: http::Request<Incoming>,
) -> impl Future<Output = http::Response<Body>> + use<> {
    let started = Instant::now();
    let (worker, wire) = (worker.clone(), wire.clone());
    let (id, in_flight) = worker.begin();
    wire.begin_request();
    wire.exchange.begin(&http);
    let is_old = wire.exchange.is_old.get();
    let trailers = !is_old && http.headers().get(TE).is_some_and(|te| te == "trailers");
    let conditions = Conditions::new(None, &worker.nobody, started);
    let mut asked = Asked { id, method: http.method().clone(), trailers, is_old, conditions };
    let step = match intake::request(http, id, peer.address, &wire) {
        Ok(request) => {
            let conditions = &mut asked.conditions;
            let dispatch = || dispatch(&worker, request, (&peer.client, started), conditions);
            catch_unwind(AssertUnwindSafe(dispatch)).unwrap_or(Step::Respond(Err(Reject::Panic)))
        }
        Err(reject) => Step::Respond(Err(reject)),
    };
    async move {
        let result = contained(pin!(take(&worker, step, started))).await;
        if matches!(result, Err(Reject::NoMemory)) {
            Box::pin(until_dropped(&worker, &asked.conditions)).await;
        }
        drop(in_flight);
        if wire.exchange.is_body_left() && !wire.exchange.is_body_open() {
            // Nobody will read it. hyper takes note: where all of it is here already, the
            // connection can be kept, and else it says in the head that it will not be.
            tokio::task::yield_now().await;
        }
        finish(&worker, &wire, &asked, result)
    }
}

/// Takes a step to its end.
async fn take(worker: &Rc<Worker>, step: Step, started: Instant) -> Result<Response, Reject> {
    match step {
        Step::Respond(result) => result,
        Step::Call(instance, _permit) => {
            let _under_way = worker.schedule.begin();
            let mut meter = worker.meter(instance.guest(), started);
            match instance.request(&mut meter, &worker.schedule).await? {
                (instance, None) => Ok(conclude(worker, instance)),
                (instance, Some(context)) => {
                    Box::pin(forwarding::pass_on(worker, instance, context, &mut meter)).await
                }
            }
        }
        Step::Later(later) => later.await,
    }
}

/// A panic of the host's own code costs the request in which it happens, and no other: it becomes
/// [`Reject::Panic`].
fn contained<T>(
    mut future: Pin<&mut impl Future<Output = Result<T, Reject>>>,
) -> impl Future<Output = Result<T, Reject>> {
    std::future::poll_fn(move |cx| {
        let polled = catch_unwind(AssertUnwindSafe(|| future.as_mut().poll(cx)));
        polled.unwrap_or(Poll::Ready(Err(Reject::Panic)))
    })
}

/// Makes what is sent of a result, and counts a reject.
fn finish(
    worker: &Worker,
    wire: &Rc<Wire>,
    asked: &Asked,
    mut result: Result<Response, Reject>,
) -> http::Response<Body> {
    match &mut result {
        Err(
            Reject::BodyTooLarge | Reject::BodyBroken | Reject::BodyTimeout | Reject::UnknownCoding,
        ) => wire.exchange.unread.set(true),
        // What comes behind it is no request: whoever asked for a tunnel takes it for one.
        Err(Reject::BadPath(_)) if asked.method == Method::CONNECT => {
            wire.exchange.unread.set(true);
        }
        Ok(Response { body: ResponseBody::Stream(stream), .. }) => {
            outgoing::pass_on(stream, wire);
        }
        _ => {}
    }
    let last = worker.draining.get() || wire.exchange.unread.get();
    let Conditions { handler, header_bytes_max, .. } = asked.conditions;
    let is_made = result.is_ok();
    let (response, reject) = respond::respond(asked, result, header_bytes_max, last);
    if let Some(reject) = reject {
        worker.counters().reject(reject.index());
        log_reject(worker, asked, reject, is_made);
    }
    let fields = response.headers().len() + response.body().trailer_count();
    wire.exchange.hold_fields(fields, || worker.pool.memory_of(handler));
    wire.end_request();
    response
}

/// Says in the log why the host has answered itself, unless that has been said where it was known
/// better. `is_made` says that there was a response, which could not be sent.
fn log_reject(worker: &Worker, asked: &Asked, reject: Reject, is_made: bool) {
    let why = match reject {
        Reject::InvalidResponse if is_made => "the response's head is one that cannot be sent",
        Reject::NotLoaded => "its handler could not be loaded",
        Reject::Loading => "its handler is not loaded, or too many wait for that",
        Reject::NoInstance => "every place is taken, or it has waited for one for too long",
        Reject::NoMemory => "the handlers have all memory that they may have (--memory-total)",
        Reject::Paused => "its handler's start-up has failed time and again",
        Reject::UpstreamBusy => "too many requests are on their way to the upstream",
        Reject::UpstreamDeadline => "the upstream did not answer before the deadline",
        Reject::Panic => "the host itself has failed",
        Reject::Loop => "it has come back to its handler time and again",
        _ => return tracing::debug!(request = %asked.id, %reject, "{}", asked.method),
    };
    let Some(dropped) = worker.rejects_quota.take(why.len()) else { return };
    if dropped > 0 {
        tracing::info!("{dropped} more requests were refused, too fast to be listed");
    }
    tracing::info!(request = %asked.id, %reject, "{why}");
}

/// Routes a request, admits it and takes an instance. Says what holds for it.
fn dispatch(
    worker: &Rc<Worker>,
    mut request: Box<Request>,
    (client, started): (&Rc<Shares>, Instant),
    conditions: &mut Conditions,
) -> Step {
    let routed = worker.route(&mut request, (client, started), conditions);
    let deadline = conditions.deadline;
    let caller = || Caller { client: client.clone(), started, deadline };
    match routed {
        Err(reject @ Reject::Paused) => {
            let worker = worker.clone();
            Step::Later(Box::pin(async move { refuse(&worker, reject, deadline).await }))
        }
        Err(reject) => Step::Respond(Err(reject)),
        Ok(Routed::Ready(Instance::Core(mut instance), permit)) => {
            instance.accept(request, worker.take_headers());
            Step::Call(instance, permit)
        }
        Ok(Routed::Ready(Instance::Component(instance), permit)) => {
            let visit = Visit::begin(instance, request, terms(worker, permit, (started, false)));
            Step::Later(Box::pin(respond_by(visit, deadline)))
        }
        Ok(Routed::Seated(seat, permit)) => {
            let visit = Visit::join(seat, request, terms(worker, permit, (started, false)));
            Step::Later(Box::pin(respond_by(visit, deadline)))
        }
        Ok(Routed::Make(guest, permit)) => {
            Step::Later(Box::pin(make_and_call(worker.clone(), guest, permit, request, caller())))
        }
        Ok(Routed::Queue(guest, permit)) => {
            Step::Later(Box::pin(queue_and_call(worker.clone(), guest, permit, request, caller())))
        }
        Ok(Routed::Wait(handler, place)) => {
            Step::Later(Box::pin(wait_and_call(worker.clone(), handler, place, request, caller())))
        }
        Ok(Routed::Native(twin, Some(permit))) => match twin.respond_now(worker.take_headers()) {
            Ok(response) if request.body.is_end() => {
                worker.keep_headers(request.headers);
                Step::Respond(response)
            }
            // Until hyper has looked for the body it cannot tell that all of it is here.
            Ok(response) => Step::Later(Box::pin(async move {
                tokio::task::yield_now().await;
                drop(request);
                response
            })),
            Err(headers) => {
                let later = twin_later(worker.clone(), twin, permit, request, headers);
                Step::Later(Box::pin(later))
            }
        },
        Ok(Routed::Native(twin, None)) => {
            Step::Later(Box::pin(queue_for_twin(worker.clone(), twin, request, caller())))
        }
        Ok(Routed::Landing) => Step::Respond(Ok(respond::landing())),
        Ok(Routed::Nobody) => Step::Later(Box::pin(nobody(worker.clone(), request, deadline))),
    }
}

/// Runs a twin that reads the request or computes long.
async fn twin_later(
    worker: Rc<Worker>,
    twin: Twin,
    _permit: Permit,
    mut request: Box<Request>,
    headers: HeaderMap,
) -> Result<Response, Reject> {
    twin.respond(&mut request, headers, &worker.grants_of(twin).limits).await
}

/// Waits for a place first.
async fn queue_for_twin(
    worker: Rc<Worker>,
    twin: Twin,
    request: Box<Request>,
    caller: Caller,
) -> Result<Response, Reject> {
    let waited = worker.twins.clone().wait(&caller.client.serving, caller.deadline).await;
    let Ok(permit) = waited else {
        return refuse(&worker, Reject::NoInstance, caller.deadline).await;
    };
    let headers = worker.take_headers();
    twin_later(worker, twin, permit, request, headers).await
}

/// Waits until a guest is loaded, in a place where other requests do not stand behind it.
async fn wait_and_call(
    worker: Rc<Worker>,
    handler: Arc<Handler>,
    place: Permit,
    mut request: Box<Request>,
    caller: Caller,
) -> Result<Response, Reject> {
    let deadline = caller.deadline;
    let guest = tokio::time::timeout_at(deadline.into(), handler.wait()).await;
    drop(place);
    let guest = match guest {
        Ok(Ok(guest)) => guest,
        // Its file was removed meanwhile.
        Ok(Err(Reject::NoRoute)) => {
            let deadline = caller.started + worker.nobody.limits.deadline;
            return nobody(worker, request, deadline).await;
        }
        Ok(Err(reject)) => return Err(reject),
        Err(_) => return Err(Reject::Loading),
    };
    request.body.limit(handler.grants.limits.body_bytes_max)?;
    let permit = match worker.admit(&guest, &caller.client) {
        Err(Reject::NoInstance) => None,
        Err(reject) => return refuse(&worker, reject, deadline).await,
        Ok(permit) => Some(permit),
    };
    queue_and_call(worker, guest, permit, request, caller).await
}

/// Refuses a request for which there is no place. Not at once: clients that ask again at once would
/// take the time of those that are served. But not past its deadline either.
async fn refuse(worker: &Worker, reject: Reject, deadline: Instant) -> Result<Response, Reject> {
    wait_together(worker, REFUSED_EVERY / 2, deadline).await;
    Err(reject)
}

/// Waits for so long, and on until the next of the moments for which all wait; not past a request's
/// deadline.
async fn wait_together(worker: &Worker, least: Duration, deadline: Instant) {
    let earliest = worker.began.elapsed() + least;
    let moments = earliest.as_millis() / REFUSED_EVERY.as_millis() + 1;
    let moment = worker.began + REFUSED_EVERY * u32::try_from(moments).unwrap_or(u32::MAX);
    let moment = moment.min(deadline);
    tokio::time::sleep_until(moment.into()).await;
}

/// Waits until the instances are gone that are on their way out, and calls of the guest are over
/// that have answered. A client that was told that there is no memory may ask again at once, and
/// what its guest had is to be there by then.
async fn until_dropped(worker: &Worker, conditions: &Conditions) {
    let deadline = conditions.deadline;
    let pending = worker.schedule.pending_drops();
    // An instance whose call ends meanwhile is dropped behind that.
    for _ in 0..2 {
        let so_far = pending.so_far(conditions.handler);
        while !pending.are_gone(so_far) && Instant::now() < deadline {
            wait_together(worker, Duration::ZERO, deadline).await;
        }
    }
}

/// Waits for a place, if it has none yet; and if the guest's calls are long, for a turn among them.
async fn queue_and_call(
    worker: Rc<Worker>,
    guest: Arc<Guest>,
    permit: Option<Permit>,
    request: Box<Request>,
    caller: Caller,
) -> Result<Response, Reject> {
    let permit = match wait_in_queues(&worker, &guest, permit, &caller).await {
        Ok(permit) => permit,
        Err(reject) => return refuse(&worker, reject, caller.deadline).await,
    };
    match worker.pool.take(&guest) {
        Some(instance) => call(worker, instance, request, permit, &caller).await,
        None => make_and_call(worker, guest, permit, request, caller).await,
    }
}

async fn wait_in_queues(
    worker: &Worker,
    guest: &Guest,
    permit: Option<Permit>,
    caller: &Caller,
) -> Result<Permit, Reject> {
    let (client, deadline) = (&caller.client.serving, caller.deadline);
    let permit = match permit {
        Some(permit) => permit,
        None => {
            let permit = worker.guest_gate(guest).wait(client, deadline).await?;
            guest.about.health.admit()?;
            permit
        }
    };
    if let Some(line) = worker.schedule.must_wait(guest.id) {
        worker.counters().reasons.calls.queued.add(1);
        line.wait(client, deadline).await?;
    }
    Ok(permit)
}

async fn make_and_call(
    worker: Rc<Worker>,
    guest: Arc<Guest>,
    permit: Permit,
    request: Box<Request>,
    caller: Caller,
) -> Result<Response, Reject> {
    let started = caller.started;
    // One may have been made for another request meanwhile.
    if guest.is_shared()
        && let Some(seat) = worker.pool.seat(&guest)
    {
        let visit = Visit::join(seat, request, terms(&worker, permit, (started, true)));
        return respond_by(visit, caller.deadline).await;
    }
    let instance = worker.pool.make(guest, Some((request.id, started))).await?;
    call(worker, instance, request, permit, &caller).await
}

/// Calls an instance that the request has waited for.
async fn call(
    worker: Rc<Worker>,
    instance: Instance,
    request: Box<Request>,
    permit: Permit,
    caller: &Caller,
) -> Result<Response, Reject> {
    let started = caller.started;
    let mut instance = match instance {
        Instance::Core(instance) => instance,
        Instance::Component(instance) => {
            let terms = terms(&worker, permit, (started, true));
            let visit = if instance.is_shared() {
                Visit::join(worker.pool.settle(instance), request, terms)
            } else {
                Visit::begin(instance, request, terms)
            };
            return respond_by(visit, caller.deadline).await;
        }
    };
    let mut meter = worker.meter(instance.guest(), started);
    meter.resume();
    instance.accept(request, worker.take_headers());
    let _under_way = worker.schedule.begin();
    match instance.request(&mut meter, &worker.schedule).await? {
        (instance, None) => Ok(conclude(&worker, instance)),
        (instance, Some(context)) => {
            forwarding::pass_on(&worker, instance, context, &mut meter).await
        }
    }
}

/// What comes of a request that a component handles.
async fn respond_by(visit: Result<Visit, Reject>, deadline: Instant) -> Result<Response, Reject> {
    response(visit?, deadline).await
}

/// `waited` says that it was not the guest's time alone since the request began.
fn terms(worker: &Worker, permit: Permit, (started, waited): (Instant, bool)) -> Terms<Permit> {
    Terms { pool: worker.pool.clone(), started, waited, keep: permit }
}

async fn nobody(
    worker: Rc<Worker>,
    mut request: Box<Request>,
    deadline: Instant,
) -> Result<Response, Reject> {
    let nobody = (None, &*worker.nobody);
    request.body.limit(nobody.1.limits.body_bytes_max)?;
    let deadline = Deadline::new(deadline, request.body.progress().cloned());
    forwarding::forward(&worker, nobody, &mut request, &deadline).await
}

/// Takes the response of a guest that has answered, and takes its instance back.
fn conclude(worker: &Worker, mut instance: Box<CoreInstance>) -> Response {
    let (response, spare) = instance.respond();
    worker.keep_headers(spare);
    worker.pool.give_back(Instance::Core(instance));
    response
}

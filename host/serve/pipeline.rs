//! The request path on one screen: route, ready, admit, turn, checkout, call, respond.
//!
//! Owns the order of the steps. One that need not wait does not: an idle connection has room for
//! what is left of a request, so whatever waits is in a box of its own.

use std::mem::take;
use std::pin::pin;
use std::rc::Rc;
use std::time::Instant;

use hyper::body::Incoming;

use super::answer::finish;
use super::connection::Connection;
use super::contained::contained;
use super::exchange::Exchange;
use super::forwarding::removed;
use super::handover::{Admitted, Outcome, Start};
use super::own;
use super::peer::Shares;
use super::respond::{Asked, Body};
use super::routed::Routed;
use super::worker::Worker;
use super::{intake, refuse};
use crate::guest::{Context, call};
use crate::message::{Reject, Response};

/// Serves one request. Never fails: whatever goes wrong has a response.
pub fn serve(
    worker: &Rc<Worker>,
    connection: &Rc<Connection>,
    http: http::Request<Incoming>,
) -> impl Future<Output = http::Response<Body>> + use<> {
    let started = Instant::now();
    let worker = worker.clone();
    let (id, in_flight) = worker.begin();
    let exchange = Exchange::begin(connection, &http);
    let mut asked = Asked::new(id, &http, &worker.router.nobody, started);
    let request = intake::request(http, id, &exchange);
    async move {
        let client = &exchange.connection().client;
        let result =
            contained(pin!(handle(&worker, client, Start::Asked(request), &mut asked))).await;
        if let Err(reject) = result {
            Box::pin(refuse::wait(&worker, reject, &asked.conditions)).await;
            drop(take(&mut asked.left));
        }
        drop(in_flight);
        if exchange.state().is_body_left() && !exchange.state().is_body_open() {
            // Nobody will read it. hyper takes note: where all of it is here already, the
            // connection can be kept, and else it says in the head that it will not be.
            tokio::task::yield_now().await;
        }
        finish(&worker, exchange, &asked, result)
    }
}

/// Takes a request through the steps: all of them, or those behind its admission. One function: a
/// future within this one would have room for the same once more, and be copied.
pub async fn handle(
    worker: &Rc<Worker>,
    client: &Rc<Shares>,
    start: Start,
    asked: &mut Asked,
) -> Result<Response, Reject> {
    let started = asked.started;
    let (mut guest, mut request, permit, mut waited);
    match start {
        Start::Admitted(admitted) => Admitted { guest, request, permit, waited } = *admitted,
        Start::Asked(came) => {
            (request, waited) = (came?, false);
            // Route.
            let routed = worker.router.route(&mut request, started, &mut asked.conditions)?;
            let deadline = asked.conditions.deadline;
            // Ready.
            guest = match routed {
                Routed::Guest(guest) => guest,
                Routed::Unloaded(handler) => {
                    waited = true;
                    match Box::pin(worker.gates.loaded(&handler, client, deadline)).await {
                        // Its file was removed meanwhile.
                        Err(Reject::NoRoute) => return removed(worker, request, started).await,
                        loaded => loaded?,
                    }
                }
                Routed::Own(own) => return own::serve(worker, own, request, client, asked).await,
            };
            request.body.limit(guest.about.grants.limits.body_bytes_max)?;
            // Admit.
            permit = match worker.gates.try_admit(&guest, client)? {
                Some(permit) => permit,
                None => {
                    waited = true;
                    match Box::pin(worker.others.serve(guest.keep(), request, started)).await {
                        Outcome::Back(back) => request = back,
                        Outcome::Served(result, left) => {
                            asked.left = left;
                            return result;
                        }
                    }
                    let permit = Box::pin(worker.gates.admit(guest.keep(), client, deadline)).await;
                    permit.inspect_err(|_| asked.left = take(&mut request.body))?
                }
            };
        }
    }
    let deadline = asked.conditions.deadline;
    // Turn.
    if let Some(line) = worker.schedule.must_wait(guest.id) {
        waited = true;
        guest.keep();
        worker.counters().reasons.calls.queued.add(1);
        let waited = Box::pin(line.wait(&client.serving, deadline)).await;
        waited.inspect_err(|_| asked.left = take(&mut request.body))?;
    }
    // Checkout.
    let ready = worker.pool.try_checkout(&guest);
    waited |= ready.is_none();
    let checkout = match ready {
        Some(ready) => ready,
        None => Box::pin(worker.pool.checkout(guest.keep().clone(), (request.id, started))).await?,
    };
    drop(guest);
    // Call.
    let (pool, spare) = (&worker.pool, &worker.spare_headers);
    let context = Context { pool, next: &**worker, spare, started, waited, deadline };
    call(checkout, request, &context, permit).await
}

//! The request path on one screen: route, ready, admit, turn, checkout, call, respond.
//!
//! Owns the order of the steps. Steps that rarely wait have their waiting part in a box, because
//! every connection reserves memory for the whole future of a request.

use std::mem::take;
use std::pin::pin;
use std::rc::Rc;
use std::time::Instant;

use hyper::body::Incoming;

use super::answer::finish;
use super::connection::Connection;
use super::exchange::Exchange;
use super::forwarding::on_removed;
use super::handover::{AdmittedRequest, HandoverOutcome, PipelineEntry};
use super::host_answer::answer_own;
use super::panic_guard::catch_panic;
use super::respond::{HyperBody, RequestMeta};
use super::routed::Routed;
use super::worker::Worker;
use super::worker_clients::ClientShares;
use super::{rejection, validation};
use crate::guest::{CallContext, call};
use crate::message::{Reject, Response};

/// Serves one request. Never fails: every error becomes a response.
pub fn serve(
    worker: &Rc<Worker>,
    connection: &Rc<Connection>,
    http: http::Request<Incoming>,
) -> impl Future<Output = http::Response<HyperBody>> + use<> {
    let started = Instant::now();
    let worker = worker.clone();
    let (id, in_flight) = worker.begin();
    let exchange = Exchange::begin(connection, &http);
    let mut meta = RequestMeta::new(id, &http, &worker.router.unrouted_grants, started);
    let request = validation::validate(http, id, &exchange);
    async move {
        let client = &exchange.connection().client;
        let result =
            catch_panic(pin!(handle(&worker, client, PipelineEntry::Parsed(request), &mut meta)))
                .await;
        if let Err(reject) = result {
            Box::pin(rejection::wait(&worker, reject, &meta.conditions)).await;
            drop(take(&mut meta.unread_body));
        }
        drop(in_flight);
        if exchange.state().is_body_unread() && !exchange.state().is_body_open() {
            // The body was dropped unread. Yield once, so that hyper notices: if all of the body
            // has arrived, hyper keeps the connection alive; if not, the head announces its end.
            tokio::task::yield_now().await;
        }
        finish(&worker, exchange, &meta, result)
    }
}

/// Takes a request through all steps, or through those after admission. This is one function on
/// purpose: a nested future would need the same memory again and be copied.
pub async fn handle(
    worker: &Rc<Worker>,
    client: &Rc<ClientShares>,
    start: PipelineEntry,
    meta: &mut RequestMeta,
) -> Result<Response, Reject> {
    let started = meta.started;
    let (mut guest, mut request, permit, mut waited);
    match start {
        PipelineEntry::Admitted(it) => AdmittedRequest { guest, request, permit, waited } = *it,
        PipelineEntry::Parsed(came) => {
            (request, waited) = (came?, false);
            // Route.
            let routed = worker.router.route(&mut request, started, &mut meta.conditions)?;
            let deadline = meta.conditions.deadline;
            // Ready.
            guest = match routed {
                Routed::Guest(guest) => guest,
                Routed::Unloaded(handler) => {
                    waited = true;
                    match Box::pin(worker.gates.loaded(&handler, client, deadline)).await {
                        // The handler was removed meanwhile.
                        Err(Reject::NoRoute) => return on_removed(worker, request, started).await,
                        loaded => loaded?,
                    }
                }
                Routed::Host(own) => return answer_own(worker, own, request, client, meta).await,
            };
            request.body.limit(guest.info.grants.limits.body_bytes_max)?;
            // Admit.
            permit = match worker.gates.try_admit(&guest, client)? {
                Some(permit) => permit,
                None => {
                    waited = true;
                    match Box::pin(worker.others.serve(guest.keep(), request, started)).await {
                        HandoverOutcome::Returned(back) => request = back,
                        HandoverOutcome::Served(result, left) => {
                            meta.unread_body = left;
                            return result;
                        }
                    }
                    let permit = Box::pin(worker.gates.admit(guest.keep(), client, deadline)).await;
                    permit.inspect_err(|_| meta.unread_body = take(&mut request.body))?
                }
            };
        }
    }
    let deadline = meta.conditions.deadline;
    // Turn.
    if let Some(line) = worker.schedule.queue_to_wait_in(guest.id) {
        waited = true;
        guest.keep();
        worker.counters().reasons.calls.queued.add(1);
        let waited = Box::pin(line.wait(&client.serving, deadline)).await;
        waited.inspect_err(|_| meta.unread_body = take(&mut request.body))?;
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
    let context = CallContext { pool, next: &**worker, spare, started, waited, deadline };
    call(checkout, request, &context, permit).await
}

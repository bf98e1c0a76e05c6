//! The request path on one screen: route, admit, checkout, call, respond.
//!
//! Owns the order of the steps, and what happens to a request that a guest passes on.

use std::net::SocketAddr;
use std::rc::Rc;
use std::time::Instant;

use http::header::TE;
use hyper::body::Incoming;

use super::intake;
use super::respond::{self, Asked, Body};
use super::wire::Wire;
use super::worker::{Routed, Worker};
use crate::guest::instance::{Answer, Meter};
use crate::guest::{Instance, Outcome};
use crate::message::{Reject, Request, Response, ResponseBody};

/// Serves one request. Never fails: whatever goes wrong has a response.
pub async fn serve(
    worker: &Rc<Worker>,
    wire: &Wire,
    peer: SocketAddr,
    http: http::Request<Incoming>,
) -> http::Response<Body> {
    let started = Instant::now();
    let (id, _in_flight) = worker.begin();
    wire.begin_request();
    let limits = &worker.config.limits;
    let trailers = http.headers().get(TE).is_some_and(|te| te == "trailers");
    let asked = Asked { id, method: http.method().clone(), trailers };
    let result = match intake::request(http, id, peer, limits.body_bytes_max) {
        Ok(request) => dispatch(worker, request, started).await,
        Err(reject) => Err(reject),
    };
    if matches!(result, Err(Reject::BodyTooLarge | Reject::BodyBroken)) {
        wire.unread.set(true);
    }
    let last = worker.draining.get() || wire.unread.get();
    let (response, reject) = respond::respond(&asked, result, limits.header_bytes_max, last);
    if let Some(reject) = reject {
        worker.counters().reject(reject);
        tracing::debug!(request = %id, %reject, "{} {peer}", asked.method);
    }
    wire.end_request();
    response
}

async fn dispatch(
    worker: &Rc<Worker>,
    mut request: Request,
    started: Instant,
) -> Result<Response, Reject> {
    let limits = &worker.config.limits;
    let mut meter = Meter::new(limits, started);
    match worker.route(&mut request)? {
        Routed::Ready(instance, _permit) => call(worker, instance, request, &mut meter).await,
        Routed::Make(guest, _permit) => {
            let instance = worker.pool.make(guest).await?;
            call(worker, instance, request, &mut meter).await
        }
        Routed::Native(twin, _permit) => {
            let headers = worker.take_headers();
            let response = twin.respond(&mut request, headers, limits, started).await;
            worker.keep_headers(request.headers);
            response
        }
        Routed::Landing => Ok(respond::landing()),
        Routed::Nobody => Box::pin(forward(worker, &mut request, &meter)).await,
    }
}

/// Lets a guest handle the request, and whoever it passes the request on to.
async fn call(
    worker: &Rc<Worker>,
    instance: Instance,
    request: Request,
    meter: &mut Meter<'_>,
) -> Result<Response, Reject> {
    let _out = worker.pool.lend();
    let headers = worker.take_headers();
    let pulse = worker.pool.pulse();
    let (instance, outcome) = instance.request(request, headers, meter, pulse).await?;
    match outcome {
        Outcome::Respond(response, spare) => {
            worker.keep_headers(spare);
            worker.pool.give_back(instance);
            Ok(response)
        }
        Outcome::Next(next) => Box::pin(pass_on(worker, instance, *next, meter)).await,
    }
}

/// Sends a request on that a guest did not answer (`next`), and lets the guest see the answer.
async fn pass_on(
    worker: &Rc<Worker>,
    instance: Instance,
    next: crate::guest::instance::Next,
    meter: &mut Meter<'_>,
) -> Result<Response, Reject> {
    let crate::guest::instance::Next { mut request, headers, context } = next;
    if !instance.wants_response() {
        worker.pool.give_back(instance);
        let response = forward(worker, &mut request, meter).await?;
        return Ok(with_headers(response, headers));
    }
    let id = request.id;
    let forwarded = forward(worker, &mut request, meter).await;
    let (mut response, is_error) = match forwarded {
        Ok(response) => (with_headers(response, headers), false),
        // That nobody serves the path is the host's answer, not an error.
        Err(Reject::NoRoute) => (respond::problem(Reject::NoRoute, id), false),
        Err(reject) => {
            worker.counters().reject(reject);
            (respond::problem(reject, id), true)
        }
    };
    if instance.buffers_response() {
        response = buffer(response, worker.config.limits.response_bytes_max, meter).await?;
    }
    let answer = Answer { response, is_error };
    let pulse = worker.pool.pulse();
    let (instance, response) = instance.response(request, answer, context, meter, pulse).await?;
    worker.pool.give_back(instance);
    Ok(response)
}

/// What the guest had set before it passed the request on, under what the next handler has set.
fn with_headers(mut response: Response, headers: http::HeaderMap) -> Response {
    for name in headers.keys() {
        if !response.headers.contains_key(name) {
            for value in headers.get_all(name) {
                response.headers.append(name, value.clone());
            }
        }
    }
    response
}

/// Waits for a whole body, at most `bytes_max` of it.
async fn buffer(
    mut response: Response,
    bytes_max: usize,
    meter: &mut Meter<'_>,
) -> Result<Response, Reject> {
    let ResponseBody::Stream(stream) = response.body else { return Ok(response) };
    let limited = http_body_util::Limited::new(stream, bytes_max);
    let collect = http_body_util::BodyExt::collect(limited);
    let collected = tokio::time::timeout_at(meter.deadline().into(), collect).await;
    let collected = collected.map_err(|_| Reject::UpstreamDeadline)?;
    let collected = collected.map_err(|_| Reject::UpstreamFailed)?;
    let trailers = collected.trailers().cloned();
    let bytes = collected.to_bytes();
    response.body = match trailers {
        Some(trailers) => ResponseBody::Trailed(bytes, Box::new(trailers)),
        None => ResponseBody::Full(bytes),
    };
    Ok(response)
}

/// Sends a request to the upstream. What is left of it stays for the guest to look at.
async fn forward(
    worker: &Rc<Worker>,
    request: &mut Request,
    meter: &Meter<'_>,
) -> Result<Response, Reject> {
    match &worker.upstream {
        Some(upstream) => upstream.forward(request, meter.deadline()).await,
        None => Err(Reject::NoRoute),
    }
}

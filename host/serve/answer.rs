//! Turns the result of a request into the response that hyper sends, and tells the connection.

use http::Method;

use super::exchange::Exchange;
use super::respond::{self, Conditions, HyperBody, RequestMeta};
use super::worker::Worker;
use super::{rejection, streaming_body};
use crate::message::{Reject, Response, ResponseBody};

/// Makes the response for a result, counts it, and logs a reject.
pub fn finish(
    worker: &Worker,
    exchange: Exchange,
    meta: &RequestMeta,
    mut result: Result<Response, Reject>,
) -> http::Response<HyperBody> {
    if let Err(reject) = &result
        && leaves_unread(reject, &meta.method)
    {
        exchange.state().mark_unread();
    }
    let last = worker.draining.get() || exchange.state().is_unread();
    let connection = exchange.connection().clone();
    let in_flight = match &mut result {
        Ok(Response { body: ResponseBody::Stream(stream), .. }) => {
            streaming_body::attach_exchange(stream, exchange);
            None
        }
        _ => Some(exchange),
    };
    let Conditions { handler, header_bytes_max, .. } = &meta.conditions;
    let is_made = result.is_ok();
    let (response, reject) = respond::respond(meta, result, *header_bytes_max, last);
    count(worker, meta, reject.is_some());
    if let Some(reject) = reject {
        worker.counters().reject(reject.index());
        rejection::log(worker, meta, reject, is_made);
    }
    let fields = response.headers().len() + response.body().trailer_count();
    connection.charge_fields(fields, || worker.pool.memory_of(handler.as_ref().map(|(id, _)| *id)));
    drop(in_flight);
    response
}

/// Whether the bytes after the request's head must not be read. After a `CONNECT` they are no
/// request: the client takes the connection for a tunnel.
fn leaves_unread(reject: &Reject, method: &Method) -> bool {
    match reject {
        Reject::BodyTooLarge | Reject::BodyBroken | Reject::BodyTimeout | Reject::UnknownCoding => {
            true
        }
        Reject::BadPath(_) => *method == Method::CONNECT,
        _ => false,
    }
}

/// Counts how long the request took, for the worker and for its handler.
fn count(worker: &Worker, meta: &RequestMeta, is_reject: bool) {
    let duration = meta.started.elapsed();
    worker.counters().durations.note(duration);
    if let Some((_, entry)) = &meta.conditions.handler {
        entry.counts.note(duration, is_reject);
    }
}

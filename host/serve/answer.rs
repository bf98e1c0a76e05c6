//! What is sent of a request's result, and what its connection is told of it.

use http::Method;

use super::exchange::Exchange;
use super::respond::{self, Conditions, HyperBody, RequestMeta};
use super::worker::Worker;
use super::{rejection, streaming_body};
use crate::message::{Reject, Response, ResponseBody};

/// Makes what is sent of a result, and counts a reject.
pub fn finish(
    worker: &Worker,
    exchange: Exchange,
    asked: &RequestMeta,
    mut result: Result<Response, Reject>,
) -> http::Response<HyperBody> {
    if let Err(reject) = &result
        && leaves_unread(reject, &asked.method)
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
    let Conditions { handler, header_bytes_max, .. } = &asked.conditions;
    let is_made = result.is_ok();
    let (response, reject) = respond::respond(asked, result, *header_bytes_max, last);
    count(worker, asked, reject.is_some());
    if let Some(reject) = reject {
        worker.counters().reject(reject.index());
        rejection::log(worker, asked, reject, is_made);
    }
    let fields = response.headers().len() + response.body().trailer_count();
    connection.charge_fields(fields, || worker.pool.memory_of(handler.as_ref().map(|(id, _)| *id)));
    drop(in_flight);
    response
}

/// Whether what comes behind the head is not to be read. Behind a `CONNECT` it is no request:
/// whoever asked for a tunnel takes it for one.
fn leaves_unread(reject: &Reject, method: &Method) -> bool {
    match reject {
        Reject::BodyTooLarge | Reject::BodyBroken | Reject::BodyTimeout | Reject::UnknownCoding => {
            true
        }
        Reject::BadPath(_) => *method == Method::CONNECT,
        _ => false,
    }
}

/// Counts how long it took.
fn count(worker: &Worker, asked: &RequestMeta, is_reject: bool) {
    let duration = asked.started.elapsed();
    worker.counters().durations.note(duration);
    if let Some((_, entry)) = &asked.conditions.handler {
        entry.counts.note(duration, is_reject);
    }
}

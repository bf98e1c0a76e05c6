//! What is sent of a request's result, and what its connection is told of it.

use std::rc::Rc;

use http::Method;

use super::respond::{self, Asked, Body, Conditions};
use super::wire::Wire;
use super::worker::Worker;
use super::{outgoing, refuse};
use crate::message::{Reject, Response, ResponseBody};

/// Makes what is sent of a result, and counts a reject.
pub fn finish(
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
    let Conditions { handler, header_bytes_max, .. } = &asked.conditions;
    let is_made = result.is_ok();
    let (response, reject) = respond::respond(asked, result, *header_bytes_max, last);
    count(worker, asked, reject.is_some());
    if let Some(reject) = reject {
        worker.counters().reject(reject.index());
        refuse::log(worker, asked, reject, is_made);
    }
    let fields = response.headers().len() + response.body().trailer_count();
    wire.exchange
        .hold_fields(fields, || worker.pool.memory_of(handler.as_ref().map(|(id, _)| *id)));
    wire.end_request();
    response
}

/// Counts how long it took.
fn count(worker: &Worker, asked: &Asked, is_reject: bool) {
    let duration = asked.started.elapsed();
    worker.counters().durations.note(duration);
    if let Some((_, counts)) = &asked.conditions.handler {
        counts.note(duration, is_reject);
    }
}

//! What is sent of a request's result, and what its connection is told of it.

use std::rc::Rc;

use http::Method;

use super::connection::Connection;
use super::respond::{self, Asked, Body, Conditions};
use super::worker::Worker;
use super::{outgoing, refuse};
use crate::message::{Reject, Response, ResponseBody};

/// Makes what is sent of a result, and counts a reject.
pub fn finish(
    worker: &Worker,
    connection: &Rc<Connection>,
    asked: &Asked,
    mut result: Result<Response, Reject>,
) -> http::Response<Body> {
    match &mut result {
        Err(
            Reject::BodyTooLarge | Reject::BodyBroken | Reject::BodyTimeout | Reject::UnknownCoding,
        ) => connection.exchange.unread.set(true),
        // What comes behind it is no request: whoever asked for a tunnel takes it for one.
        Err(Reject::BadPath(_)) if asked.method == Method::CONNECT => {
            connection.exchange.unread.set(true);
        }
        Ok(Response { body: ResponseBody::Stream(stream), .. }) => {
            outgoing::pass_on(stream, connection);
        }
        _ => {}
    }
    let last = worker.draining.get() || connection.exchange.unread.get();
    let Conditions { handler, header_bytes_max, .. } = asked.conditions;
    let is_made = result.is_ok();
    let (response, reject) = respond::respond(asked, result, header_bytes_max, last);
    if let Some(reject) = reject {
        worker.counters().reject(reject.index());
        refuse::log(worker, asked, reject, is_made);
    }
    let fields = response.headers().len() + response.body().trailer_count();
    connection.exchange.hold_fields(fields, || worker.pool.memory_of(handler));
    connection.end_request();
    response
}

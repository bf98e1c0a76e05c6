//! Two demo handlers as one component, for peers that serve `wasi:http/proxy` 0.2.
//!
//! Owns the way from the component's request to its response. What is answered is in the guests'
//! workload, which is the same code that the host serves. Must not use a framework: the peer would
//! be measured with its cost.

use std::borrow::Cow;

use guesthouse_guests::{Reply, fib, hello};
use wasip2::exports::http::incoming_handler::Guest;
use wasip2::http::types::{
    Fields, IncomingRequest, OutgoingBody, OutgoingResponse, ResponseOutparam,
};

struct Peer;

wasip2::http::proxy::export!(Peer);

impl Guest for Peer {
    fn handle(request: IncomingRequest, response_out: ResponseOutparam) {
        let path = request.path_with_query().unwrap_or_default();
        send(answer(&path), response_out);
    }
}

fn answer(path: &str) -> Reply {
    match path {
        "/hello" => hello(),
        _ if path.starts_with("/fib/") => fib("/fib", path),
        _ => Reply { status: 404, body: Cow::Borrowed(b"not found\n"), ..hello() },
    }
}

/// With its length, or the peer would answer in chunks, which costs it more.
fn send(reply: Reply, response_out: ResponseOutparam) {
    let headers = Fields::from_list(&[
        ("content-type".to_owned(), reply.content_type.into()),
        ("content-length".to_owned(), reply.body.len().to_string().into_bytes()),
    ])
    .expect("both names may be set");
    let response = OutgoingResponse::new(headers);
    response.set_status_code(reply.status).expect("the workload's statuses are valid");
    let body = response.body().expect("the body was not taken before");
    ResponseOutparam::set(response_out, Ok(response));
    let stream = body.write().expect("the stream was not taken before");
    // A client that is gone is no concern of the guest.
    let _ = stream.blocking_write_and_flush(&reply.body);
    drop(stream);
    let _ = OutgoingBody::finish(body, None);
}

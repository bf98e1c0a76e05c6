//! A workload's [`Reply`] as a response of the crate `wasip3`.

use bytes::Bytes;
use guesthouse_guests::{Reply, SERVER};
use http_body_util::Full;
use wasip3::http::types::{ErrorCode, Request, Response};
use wasip3::http_compat::{http_from_wasi_request, http_into_wasi_response};

/// Answers a request with the whole reply that is made of its head.
///
/// # Errors
/// The request is not one of HTTP, or the reply is not a valid response.
pub fn respond(
    request: Request,
    reply: impl FnOnce(&http::Request<()>) -> Reply,
) -> Result<Response, ErrorCode> {
    let (head, _body) = http_from_wasi_request(request)?.into_parts();
    let reply = reply(&http::Request::from_parts(head, ()));
    let mut response =
        http::Response::builder().status(reply.status).header("content-type", reply.content_type);
    if reply.server {
        response = response.header("server", SERVER);
    }
    let body = Full::new(Bytes::from(reply.body.into_owned()));
    let response = response.body(body);
    http_into_wasi_response(
        response.map_err(|error| ErrorCode::InternalError(Some(error.to_string())))?,
    )
}

//! A workload's [`Reply`] as a response of the crate `wasip3`.

use bytes::Bytes;
use guesthouse_guests::{Reply, SERVER};
use http_body_util::Full;
use wasip3::http::types::{ErrorCode, Response};
use wasip3::http_compat::http_into_wasi_response;

/// The whole reply.
///
/// # Errors
/// The reply is not a valid response.
pub fn respond(reply: Reply) -> Result<Response, ErrorCode> {
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

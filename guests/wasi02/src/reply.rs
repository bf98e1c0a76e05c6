//! A workload's [`Reply`] as a response of the crate `wstd`.

use guesthouse_guests::{Reply, SERVER};
use wstd::http::{Body, Error, Response};

/// The whole reply.
///
/// # Errors
/// The reply is not a valid response.
pub fn respond(reply: Reply) -> Result<Response<Body>, Error> {
    let mut response =
        Response::builder().status(reply.status).header("content-type", reply.content_type);
    if reply.server {
        response = response.header("server", SERVER);
    }
    Ok(response.body(Body::from(reply.body.into_owned()))?)
}

//! The component `hello`: the least that a handler can do.

use guesthouse_guests_wasi02::respond;
use wstd::http::{Body, Error, Request, Response};

#[wstd::http_server]
async fn main(_request: Request<Body>) -> Result<Response<Body>, Error> {
    respond(guesthouse_guests::hello())
}

//! The component `fib`: naive recursion, for work that consists of calls.

use guesthouse_guests_wasi02::respond;
use wstd::http::{Body, Error, Request, Response};

#[wstd::http_server]
async fn main(request: Request<Body>) -> Result<Response<Body>, Error> {
    // Other hosts than Guesthouse do not set the mount path.
    let base = request.headers().get("guesthouse-base-path");
    let base = base.and_then(|base| base.to_str().ok()).unwrap_or("/fib");
    let uri = request.uri().path_and_query().map_or("/", |uri| uri.as_str());
    respond(guesthouse_guests::fib(base, uri))
}

//! The component `fib`: naive recursion, for work that is nothing but calls.

use guesthouse_guests_wasi02::respond;
use wstd::http::{Body, Error, Request, Response};

#[wstd::http_server]
async fn main(request: Request<Body>) -> Result<Response<Body>, Error> {
    // A host that is not Guesthouse does not say where the guest is mounted.
    let base = request.headers().get("guesthouse-base-path");
    let base = base.and_then(|base| base.to_str().ok()).unwrap_or("/fib");
    let uri = request.uri().path_and_query().map_or("/", |uri| uri.as_str());
    respond(guesthouse_guests::fib(base, uri))
}

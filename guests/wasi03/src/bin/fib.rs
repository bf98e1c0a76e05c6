//! The component `fib` of wasi:http 0.3: naive recursion, for work that consists of calls.

use guesthouse_guests_wasi03::respond;
use wasip3::http::types::{ErrorCode, Request, Response};
use wasip3::http_compat::http_from_wasi_request;

wasip3::http::service::export!(Fib);

struct Fib;

impl wasip3::exports::http::handler::Guest for Fib {
    async fn handle(request: Request) -> Result<Response, ErrorCode> {
        let request = http_from_wasi_request(request)?;
        // Other hosts than Guesthouse do not set the mount path.
        let base = request.headers().get("guesthouse-base-path");
        let base = base.and_then(|base| base.to_str().ok()).unwrap_or("/fib");
        let uri = request.uri().path_and_query().map_or("/", |uri| uri.as_str());
        respond(guesthouse_guests::fib(base, uri))
    }
}

/// A handler does not run as a command, so this does nothing.
fn main() {}

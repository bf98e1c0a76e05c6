//! The component `hello` of wasi:http 0.3: the least that a handler can do. It does not read its
//! request, so the host converts nothing of it.

use guesthouse_guests_wasi03::respond;
use wasip3::http::types::{ErrorCode, Request, Response};

wasip3::http::service::export!(Hello);

struct Hello;

impl wasip3::exports::http::handler::Guest for Hello {
    async fn handle(_request: Request) -> Result<Response, ErrorCode> {
        respond(guesthouse_guests::hello())
    }
}

/// A handler does not run as a command, so this does nothing.
fn main() {}

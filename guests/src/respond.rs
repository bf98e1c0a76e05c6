//! The one place where a [`Reply`] becomes calls of the http-wasm handler ABI; wasm only.
//!
//! It makes only the calls that are needed: each of them leaves the sandbox.

use http_wasm_guest::host::Response;

use crate::{Reply, SERVER};

/// Sends the whole reply: content type and body, the status only where it is not the host's
/// default, 200, and the server's name only where it is asked for.
pub fn respond(response: &Response, reply: &Reply) {
    if reply.status != 200 {
        response.set_status(i32::from(reply.status));
    }
    response.header.set(b"content-type", reply.content_type.as_bytes());
    if reply.server {
        response.header.set(b"server", SERVER.as_bytes());
    }
    response.body.write(&reply.body);
}

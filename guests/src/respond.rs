//! Sends a [`Reply`] by calls of the http-wasm handler ABI. Wasm only.
//!
//! It makes no call that is not needed, because each call leaves the sandbox.

use http_wasm_guest::host::Response;

use crate::{Reply, SERVER};

/// Sends the whole reply: content type and body, the status unless it is 200 (the host's default),
/// and the server's name only if the reply asks for it.
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

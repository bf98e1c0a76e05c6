//! An HTTP handler: answers every request with a line of text.

use http_wasm_guest::{
    Guest,
    host::{Request, Response},
    register,
};

struct Handler;

impl Guest for Handler {
    /// Called for each request. `(false, 0)` answers it here; `(true, 0)` passes it on to the
    /// upstream, if the host has one.
    fn handle_request(&self, request: &Request, response: &Response) -> (bool, i32) {
        let method = request.method();
        if *method != *b"GET" && *method != *b"HEAD" {
            response.set_status(405);
            response.header.set(b"allow", b"GET, HEAD");
            return (false, 0);
        }
        response
            .header
            .set(b"content-type", b"text/plain; charset=utf-8");
        response.body.write(b"Hello, World!\n");
        (false, 0)
    }
}

/// Runs when the host compiles the file, or in each new instance if this asks for the time or for
/// random numbers. Under `--isolation fresh` every request begins with what is set up here.
fn main() {
    register(Handler);
}

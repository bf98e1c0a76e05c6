//! The handler `echo`: answers with method, URI, headers and body as text.

#[cfg(target_family = "wasm")]
fn main() {
    use guesthouse_guests::{echo, respond::respond};
    use http_wasm_guest::{
        Guest,
        host::{Request, Response},
        register,
    };

    struct Echo;

    impl Guest for Echo {
        fn handle_request(&self, request: &Request, response: &Response) -> (bool, i32) {
            let (method, uri) = (request.method(), request.uri());
            let headers = request.header.entries_iter().flat_map(|(name, values)| {
                values.into_iter().map(move |value| (name.clone(), value))
            });
            // Chunk by chunk, because `Body::read` silently stops at 16 MiB.
            let mut body = Vec::new();
            request.body.read_iter().for_each(|chunk| body.extend_from_slice(&chunk));
            let method = String::from_utf8_lossy(&method);
            respond(response, &echo(&method, &String::from_utf8_lossy(&uri), headers, &body));
            (false, 0)
        }
    }

    register(Echo);
}

/// Natively there is nothing to run: the twin in the host calls the workload itself.
#[cfg(not(target_family = "wasm"))]
fn main() {}

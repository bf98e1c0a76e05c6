//! The handler `fib`: naive recursion, for work that consists of calls.

#[cfg(target_family = "wasm")]
fn main() {
    use guesthouse_guests::{fib, respond::respond};
    use http_wasm_guest::{
        Guest,
        host::{Request, Response},
        register,
    };

    struct Fib;

    impl Guest for Fib {
        fn handle_request(&self, request: &Request, response: &Response) -> (bool, i32) {
            // Other hosts than Guesthouse do not set the mount path.
            let base = request.header.get(b"guesthouse-base-path");
            let base = base.as_deref().unwrap_or(b"/fib");
            let uri = request.uri();
            respond(response, &fib(&String::from_utf8_lossy(base), &String::from_utf8_lossy(&uri)));
            (false, 0)
        }
    }

    register(Fib);
}

/// Natively there is nothing to run: the twin in the host calls the workload itself.
#[cfg(not(target_family = "wasm"))]
fn main() {}

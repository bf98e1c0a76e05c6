//! The handler `hello`: the least that a handler can do, in two host calls.

#[cfg(target_family = "wasm")]
fn main() {
    use guesthouse_guests::{hello, respond::respond};
    use http_wasm_guest::{
        Guest,
        host::{Request, Response},
        register,
    };

    struct Hello;

    impl Guest for Hello {
        fn handle_request(&self, _request: &Request, response: &Response) -> (bool, i32) {
            respond(response, &hello());
            (false, 0)
        }
    }

    register(Hello);
}

/// Natively there is nothing to run: the twin in the host calls the workload itself.
#[cfg(not(target_family = "wasm"))]
fn main() {}

//! The handler `plaintext`: the plaintext test of the TechEmpower framework benchmarks.

#[cfg(target_family = "wasm")]
fn main() {
    use guesthouse_guests::{plaintext, respond::respond};
    use http_wasm_guest::{
        Guest,
        host::{Request, Response},
        register,
    };

    struct Plaintext;

    impl Guest for Plaintext {
        fn handle_request(&self, _request: &Request, response: &Response) -> (bool, i32) {
            respond(response, &plaintext());
            (false, 0)
        }
    }

    register(Plaintext);
}

/// Natively there is nothing to run: the twin in the host calls the workload itself.
#[cfg(not(target_family = "wasm"))]
fn main() {}

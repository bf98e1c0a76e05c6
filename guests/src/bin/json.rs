//! The handler `json`: the JSON test of the TechEmpower framework benchmarks.

#[cfg(target_family = "wasm")]
fn main() {
    use guesthouse_guests::{json, respond::respond};
    use http_wasm_guest::{
        Guest,
        host::{Request, Response},
        register,
    };

    struct Json;

    impl Guest for Json {
        fn handle_request(&self, _request: &Request, response: &Response) -> (bool, i32) {
            respond(response, &json());
            (false, 0)
        }
    }

    register(Json);
}

/// Natively there is nothing to run: the twin in the host calls the workload itself.
#[cfg(not(target_family = "wasm"))]
fn main() {}

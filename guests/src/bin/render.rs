//! The handler `render`: renders a Markdown document to HTML for every request, for real memory
//! traffic.

#[cfg(target_family = "wasm")]
fn main() {
    use guesthouse_guests::{render, respond::respond};
    use http_wasm_guest::{
        Guest,
        host::{Request, Response},
        register,
    };

    struct Render;

    impl Guest for Render {
        fn handle_request(&self, _request: &Request, response: &Response) -> (bool, i32) {
            respond(response, &render());
            (false, 0)
        }
    }

    register(Render);
}

/// Natively there is nothing to run: the twin in the host calls the workload itself.
#[cfg(not(target_family = "wasm"))]
fn main() {}

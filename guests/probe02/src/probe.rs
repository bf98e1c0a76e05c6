//! The component `probe` for the host's tests. The last segment of the path names its behaviour.
//!
//! `/probe/sleep?50` is the behaviour `sleep` with the number 50. Each behaviour is a function of
//! the module for its subject. The host's `tests/it/component` says what the host has to make of
//! it. The component is built for wasm32-wasip2 only; on other targets this file is empty.

#![cfg(all(target_family = "wasm", target_env = "p2"))]

mod ask;
mod bodies;
mod bounds;
mod config;
mod ends;
mod fetch;
mod heads;
mod reply;
mod upload;
mod world;

use wasip2::exports::http::incoming_handler::Guest;
use wasip2::http::types::{IncomingRequest, ResponseOutparam};

use ask::Ask;
use reply::Reply;

struct Probe;

wasip2::http::proxy::export!(Probe);

/// The function of a behaviour.
type Behaviour = fn(Ask);

/// All behaviours, by module.
const BEHAVIOURS: [&[(&str, Behaviour)]; 7] = [
    &heads::BEHAVIOURS,
    &bodies::BEHAVIOURS,
    &bounds::BEHAVIOURS,
    &config::BEHAVIOURS,
    &ends::BEHAVIOURS,
    &world::BEHAVIOURS,
    &fetch::BEHAVIOURS,
];

impl Guest for Probe {
    fn handle(request: IncomingRequest, out: ResponseOutparam) {
        let uri = request.path_with_query().unwrap_or_default();
        let (path, query) = uri.split_once('?').unwrap_or((&uri, ""));
        let name = path.rsplit('/').next().unwrap_or_default();
        let ask = Ask { request, out, number: query.parse().ok() };
        let behaviours = BEHAVIOURS.into_iter().flatten();
        match behaviours.into_iter().find(|(known, _)| *known == name) {
            Some((_, behaviour)) => behaviour(ask),
            None => Reply::begin(ask.out, 404, &[]).end("no such behaviour\n"),
        }
    }
}

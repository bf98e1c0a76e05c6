//! The component `probe` of wasi:http 0.3 for the host's tests. The last segment of the path names
//! its behaviour.
//!
//! `/probe/sleep?50` is the behaviour `sleep` with the number 50. A behaviour with the name of one
//! of `probe02` does the same, seen from outside; `beside.rs` has those that only 0.3 has. The
//! host's `tests/it/component` says what the host has to make of each. The component is built for
//! wasm32-wasip2 only; on other targets this file is empty.

#![cfg(all(target_family = "wasm", target_env = "p2"))]

mod ask;
mod beside;
mod bodies;
mod bounds;
mod config;
mod ends;
#[cfg(feature = "all")]
mod fetch;
mod heads;
#[cfg(not(feature = "all"))]
#[path = "inward.rs"]
mod outward;
#[cfg(feature = "all")]
mod outward;
mod reply;
mod upload;
mod world;

use std::pin::Pin;

use wasip3::exports::http::handler::Guest;
use wasip3::http::types::{ErrorCode, Request, Response};

use ask::Ask;
use reply::Reply;

struct Probe;

wasip3::http::service::export!(Probe);

/// The result of a behaviour.
type Answer = Result<Response, ErrorCode>;
type Answering = Pin<Box<dyn Future<Output = Answer>>>;

/// The function of a behaviour.
type Behaviour = fn(Ask) -> Answering;

/// All behaviours, by module.
const BEHAVIOURS: &[&[(&str, Behaviour)]] = &[
    &heads::BEHAVIOURS,
    &bodies::BEHAVIOURS,
    &bounds::BEHAVIOURS,
    &config::BEHAVIOURS,
    &ends::BEHAVIOURS,
    #[cfg(feature = "all")]
    &fetch::BEHAVIOURS,
    &world::BEHAVIOURS,
    &beside::BEHAVIOURS,
    &outward::BEHAVIOURS,
];

/// Pairs the names of behaviours with asynchronous functions.
macro_rules! behaviours {
    ($($name:literal: $function:ident,)*) => {
        [$(($name, |ask| Box::pin($function(ask)))),*]
    };
}
use behaviours;

impl Guest for Probe {
    async fn handle(request: Request) -> Answer {
        let uri = request.get_path_with_query().unwrap_or_default();
        let (path, query) = uri.split_once('?').unwrap_or((&uri, ""));
        let name = path.rsplit('/').next().unwrap_or_default();
        let ask = Ask { request, number: query.parse().ok() };
        let mut behaviours = BEHAVIOURS.iter().copied().flatten();
        match behaviours.find(|(known, _)| *known == name) {
            Some((_, behaviour)) => behaviour(ask).await,
            None => Reply::whole(404, "no such behaviour\n"),
        }
    }
}

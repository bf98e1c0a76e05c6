//! The component `probe` of wasi:http 0.3: does as the last segment of its path says, for the
//! host's tests.
//!
//! `/probe/sleep?50` is the behaviour `sleep` with the number 50. Those that have the name of one of
//! `probe02` are the same, seen from outside; `beside.rs` has those that only 0.3 can have. What a
//! good host makes of each is in the host's `tests/it/component`. On any other target than
//! wasm32-wasip2 there is nothing here.

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

/// What a behaviour comes to.
type Answer = Result<Response, ErrorCode>;
type Answering = Pin<Box<dyn Future<Output = Answer>>>;

/// What a behaviour is.
type Behaviour = fn(Ask) -> Answering;

/// All of them, by module.
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

/// Makes behaviours of names and asynchronous functions.
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

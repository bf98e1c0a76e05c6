//! Tests of the host from outside: files in, HTTP and log out.
//!
//! There is one binary, so that it is linked once. [`host`] starts the real program on a port of
//! its own, [`client`] speaks raw HTTP/1.1 to it, [`patience`] says how long tests wait, and every
//! other module is a theme.

mod client;
mod host;
mod patience;

mod abi;
mod admission;
mod bench;
mod bounds;
mod cache;
mod causes;
mod cli;
mod clients;
mod component;
#[path = "component.rs"]
#[expect(clippy::duplicate_mod, reason = "the same tests of a guest of wasi:http 0.3")]
mod component_03;
#[path = "component.rs"]
#[expect(clippy::duplicate_mod, reason = "the same tests of another form of that guest")]
mod component_03_whole;
#[path = "component.rs"]
#[expect(clippy::duplicate_mod, reason = "the same tests of another form of the same guest")]
mod component_whole;
mod concurrent;
#[path = "concurrent.rs"]
#[expect(clippy::duplicate_mod, reason = "the same tests of another form of the same guest")]
mod concurrent_whole;
mod connections;
mod counts;
mod cycles;
mod demo;
mod documents;
mod drain;
mod faults;
mod files;
mod grammar;
mod grants;
mod handover;
mod hostile;
mod http;
mod lanes;
mod languages;
mod loading;
mod malformed;
mod memory;
mod middleware;
mod names;
mod outbound;
#[path = "outbound.rs"]
#[expect(clippy::duplicate_mod, reason = "the same tests of a guest of wasi:http 0.3")]
mod outbound_03_whole;
#[path = "outbound.rs"]
#[expect(clippy::duplicate_mod, reason = "the same tests of another form of the same guest")]
mod outbound_whole;
mod owners;
mod platform;
mod random;
mod reset;
mod secure;
mod settings;
mod sniff;
mod soak;
mod third_party;
mod tidy;
mod uploads;
mod wat;
mod watch;

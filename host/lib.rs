//! Guesthouse: a multi-core HTTP host for sandboxed WebAssembly handlers.
//!
//! The program is the binary `guesthouse`; this library holds its parts. In reading order:

pub mod cli;
pub mod config;
pub mod control;
pub mod demo;
pub mod file;
pub mod folder;
pub mod grants;
pub mod guest;
pub mod log;
pub mod message;
pub mod metrics;
pub mod outbound;
pub mod queue;
pub mod registry;
pub mod serve;
pub mod source;
pub mod status;

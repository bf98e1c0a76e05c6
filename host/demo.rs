//! The demo: handlers that are built into this program, their native twins, and the many small
//! guests of `--many`.
//!
//! This file only declares. Must not know how any of them is served.

pub mod bundled;
pub mod many;
pub mod native;
mod twins;

pub use twins::Twins;

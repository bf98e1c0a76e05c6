//! Analyses and rewrites the WebAssembly of guests before they are compiled: bytes in, facts or
//! bytes out.
//!
//! All input is untrusted. The crate compiles and runs nothing, and knows neither the host nor
//! its engine. The fuzzer links this crate alone.

pub mod component;
pub mod flatten;
pub mod imports;
pub mod interfaces;
pub mod interrupt;
pub mod limits;
pub mod records;
pub mod reset;
pub mod sniff;
#[cfg(test)]
mod tests;
pub mod text;
mod toolchains;

//! What the host has to know of a guest before it runs it, and what it rewrites in it: bytes in,
//! facts or bytes out.
//!
//! Everything here reads bytes that a stranger has made. It compiles and runs nothing, knows
//! neither the host nor its engine, and is what the fuzzer links.

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

//! From a file's bytes to a guest, in steps that each can fail with a sentence.

pub mod cache;
pub mod check;
pub mod child;
pub mod compile;
pub mod environment;
pub mod link;
pub mod loader;
pub mod startup;

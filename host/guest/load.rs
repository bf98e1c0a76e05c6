//! From a file's bytes to a guest, in steps that each can fail with a sentence.

pub mod cache;
pub mod check;
pub mod compiler;
pub mod compiler_process;
pub mod environment;
pub mod link;
pub mod loader;
pub mod startup;

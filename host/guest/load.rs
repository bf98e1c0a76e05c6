//! From a file's bytes to a guest, in steps. Each may fail with a sentence for the user.

pub mod cache;
pub mod check;
pub mod compiler;
pub mod compiler_process;
pub mod environment;
pub mod link;
pub mod loader;
pub mod startup;

//! The handler folder: what is in it, when to look at it, and what is known of its writers.
//!
//! Declares. Must not know what becomes of a file.

pub mod follow;
pub mod scan;
pub mod watch;

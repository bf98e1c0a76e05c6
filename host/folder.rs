//! The handler folder as a source: each of its files is a handler, and it is followed while the
//! host runs.
//!
//! Declares. Must not know how handlers are loaded, published or served.

mod file;
mod follow;
mod listing;
pub mod scan;
mod stamp;
mod watch;
mod writers;

pub use follow::Folder;
pub use listing::{RouteLine, routes};

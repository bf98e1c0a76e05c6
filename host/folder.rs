//! The handler folder as a source: each of its files is a handler, and changes are followed while
//! the host runs.
//!
//! This file only declares. Must not know how handlers are loaded, published or served.

mod file_blob;
mod folder_source;
mod folder_watcher;
mod listing;
pub mod scan;
mod stamp;
mod writers;

pub use folder_source::FolderSource;
pub use listing::{RouteLine, routes};

//! The control path: from a folder, or from the demo's own guests, to a snapshot.
//!
//! Owns loading at start. Touches the request path only by handing over a snapshot.

pub mod load;
pub mod scan;

use std::path::PathBuf;

use anyhow::Result;

/// Where the handlers come from.
#[derive(Clone, Debug)]
pub enum Source {
    /// A folder of `.wasm` and `.wat` files.
    Folder(PathBuf),
    /// The guests that are built into this program.
    Demo,
}

/// One line of the route table, as `routes` prints it.
#[derive(Debug)]
pub struct RouteLine {
    pub pattern: String,
    pub kind: String,
    pub file: String,
}

/// The route table of a source, most specific first. Loads nothing; a file's kind is told from its
/// first bytes.
///
/// # Errors
/// The folder cannot be read, or two files claim one route.
pub fn routes(source: Source) -> Result<Vec<RouteLine>> {
    load::routes(&source)
}

//! The routes of a folder without serving it, for `guesthouse routes`.

use std::path::Path;

use anyhow::Result;

use super::scan::scan;
use crate::guest::load::loader;
use crate::log::escape;
use crate::registry::route::{Route, Table};

/// One line of the route table, as `routes` prints it.
#[derive(Debug)]
pub struct RouteLine {
    /// The pattern of the route.
    pub pattern: String,
    /// The kind of the file, such as a core module or a component.
    pub kind: String,
    /// The path of the file.
    pub file: String,
}

/// The route table of a folder, most specific first. Loads nothing: the first bytes of a file show
/// its kind.
///
/// # Errors
/// The folder cannot be read, or two files claim one route.
pub fn routes(folder: &Path) -> Result<Vec<RouteLine>> {
    let scan = scan(folder)?;
    for skipped in &scan.skipped {
        let path = skipped.path.to_string_lossy();
        tracing::warn!("{}: {}", escape(path.as_bytes(), 512), skipped.reason);
    }
    let files = scan.found.into_iter().map(|found| {
        let kind = loader::kind_of_file(&found.path);
        (found.pattern, kind, found.path.to_string_lossy().into_owned())
    });
    let table = Table::build(files).map_err(|conflicts| anyhow::anyhow!("{conflicts}"))?;
    let line = |route: &Route<&'static str>| RouteLine {
        pattern: route.pattern.to_string(),
        kind: route.target.to_owned(),
        file: route.source.clone(),
    };
    Ok(table.routes().iter().map(line).collect())
}

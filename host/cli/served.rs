//! What a verb serves, as sources for the control path.

use std::net::SocketAddr;
use std::path::PathBuf;

use crate::config::GrantTable;
use crate::demo::Twins;
use crate::demo::bundled::{self, Bundled};
use crate::folder::FolderSource;
use crate::source::Source;

/// What a verb serves: the demo's handlers, a folder, or both.
pub struct Served {
    is_demo: bool,
    folder: Option<PathBuf>,
    has_twins: bool,
}

impl Served {
    /// A folder, with or without the native twins of the demo's handlers.
    pub fn folder(folder: PathBuf, has_twins: bool) -> Self {
        Served { is_demo: false, folder: Some(folder), has_twins }
    }

    /// The demo's own handlers with their twins, and a folder besides, if there is one.
    pub fn demo(beside: Option<PathBuf>) -> Self {
        Served { is_demo: true, folder: beside, has_twins: true }
    }

    /// The sources. `reached` are the addresses of this host; the demo may send requests to them.
    pub fn sources(self, grants: &mut GrantTable, reached: &[SocketAddr]) -> Vec<Box<dyn Source>> {
        let mut sources: Vec<Box<dyn Source>> = Vec::new();
        if self.is_demo {
            grants.allow_own_addresses(bundled::PROXY, reached);
            sources.push(Box::new(Bundled::new(grants.clone())));
        }
        if let Some(folder) = self.folder {
            sources.push(Box::new(FolderSource::new(folder, grants.clone())));
        }
        if self.has_twins {
            sources.push(Box::new(Twins));
        }
        sources
    }
}

//! The handlers that are built into this program, as a source.
//!
//! Owns what the demo says about some of them. The build script compiles them and writes the list.

use std::sync::Arc;

use anyhow::{Context, Result};

use crate::config::GrantTable;
use crate::guest::load::loader::Contents;
use crate::registry::route::Pattern;
use crate::source::{Blob, BlobError, ContentVersion, HandlerItem, HandlerSet, Source, Wake};

include!(concat!(env!("OUT_DIR"), "/demo_guests.rs"));

/// Handlers that never buffer a request body, so they may get one of any size.
pub const STREAMING: [&str; 1] = ["stream"];
/// The handler that sends requests to the demo itself.
pub const PROXY: &str = "proxy";

/// The source of all bundled handlers, with their grants.
pub struct Bundled {
    grants: GrantTable,
}

impl Bundled {
    /// All bundled handlers. They get their grants from `grants`.
    pub fn new(grants: GrantTable) -> Self {
        Bundled { grants }
    }

    fn item(&self, name: &str, wasm: &'static [u8]) -> Result<Arc<HandlerItem>> {
        let version = ContentVersion::of(wasm);
        Ok(Arc::new(HandlerItem {
            label: format!("{name}.wasm (built in)").into(),
            name: name.into(),
            pattern: Pattern::parse(name).context("the pattern of a demo handler")?,
            grants: self.grants.of(name),
            version,
            blob: Arc::new(BuiltInBlob { wasm, version }),
        }))
    }
}

impl Source for Bundled {
    fn begin(&mut self, _wake: Wake) -> Result<HandlerSet> {
        let items = DEMO_GUESTS.iter().map(|(name, wasm)| self.item(name, wasm));
        let items = items.collect::<Result<_>>()?;
        // All or nothing, because one that does not load is a mistake in this program or its flags.
        Ok(HandlerSet { items, native: Vec::new(), is_atomic: true })
    }
}

/// A guest that is built into this program.
struct BuiltInBlob {
    wasm: &'static [u8],
    version: ContentVersion,
}

impl Blob for BuiltInBlob {
    fn read(&self, _bytes_max: u64) -> Result<Option<(ContentVersion, Contents)>, BlobError> {
        let contents = Contents { bytes: self.wasm.to_vec(), is_text: false };
        Ok(Some((self.version, contents)))
    }
}

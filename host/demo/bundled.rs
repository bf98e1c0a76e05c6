//! The handlers that are built into this program, as a source.
//!
//! Owns which they are, and what the demo says of some of them. The build script compiles them and
//! writes the list.

use std::sync::Arc;

use anyhow::{Context, Result};

use crate::config::GrantTable;
use crate::guest::load::loader::Contents;
use crate::registry::route::Pattern;
use crate::source::{Blob, Item, Set, Source, Unreadable, Version, Wake};

include!(concat!(env!("OUT_DIR"), "/demo_guests.rs"));

/// Those that never keep a body, and so may be sent one of any size.
pub const STREAMING: [&str; 1] = ["stream"];
/// The one that sends requests to the demo itself.
pub const PROXY: &str = "proxy";

/// All of them, with what is granted to their names.
pub struct Bundled {
    grants: GrantTable,
}

impl Bundled {
    pub fn new(grants: GrantTable) -> Self {
        Bundled { grants }
    }

    fn item(&self, name: &str, wasm: &'static [u8]) -> Result<Arc<Item>> {
        let version = Version::of(wasm);
        Ok(Arc::new(Item {
            label: format!("{name}.wasm (built in)").into(),
            name: name.into(),
            pattern: Pattern::parse(name).context("the pattern of a demo guest")?,
            grants: self.grants.of(name),
            version,
            blob: Arc::new(BuiltIn { wasm, version }),
        }))
    }
}

impl Source for Bundled {
    fn begin(&mut self, _wake: Wake) -> Result<Set> {
        let items = DEMO_GUESTS.iter().map(|(name, wasm)| self.item(name, wasm));
        let items = items.collect::<Result<_>>()?;
        // That one of them cannot be loaded is a mistake, in this program or in its flags.
        Ok(Set { items, native: Vec::new(), is_atomic: true })
    }
}

/// A module of this program.
struct BuiltIn {
    wasm: &'static [u8],
    version: Version,
}

impl Blob for BuiltIn {
    fn read(&self, _bytes_max: u64) -> Result<Option<(Version, Contents)>, Unreadable> {
        let contents = Contents { bytes: self.wasm.to_vec(), is_text: false };
        Ok(Some((self.version, contents)))
    }
}

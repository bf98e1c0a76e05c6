//! Sources and the sets of handlers that they give: everything that passes between a source and the
//! control path.
//!
//! This module is a leaf: plain values and two traits. The folder and the demo are sources. The
//! control path knows no particular source, and a source knows nothing of loading and publishing.

use std::fmt;
use std::sync::Arc;
use std::time::Instant;

use anyhow::Result;

use crate::grants::Grants;
use crate::guest::engine::load_failure::LoadFailure;
use crate::guest::load::loader::Contents;
use crate::registry::route::Pattern;

/// All handlers that a source wants served at one moment.
#[derive(Debug, Default)]
pub struct HandlerSet {
    /// The handlers. No two have the same label.
    pub items: Vec<Arc<HandlerItem>>,
    /// Routes to native code of this program, each with the index of its twin.
    pub native: Vec<(Pattern, usize)>,
    /// Whether the set is served all or nothing.
    ///
    /// The first such set is served at once, and the host ends if one of its handlers does not
    /// load. A later one is served once all its handlers are loaded; if one does not load, the set
    /// before it stays.
    pub is_atomic: bool,
}

/// One handler of a set, at one version of its contents.
pub struct HandlerItem {
    /// The handler's name in messages, such as its path. It is unique in the source and the same
    /// for all versions.
    pub label: Arc<str>,
    /// The handler's name, as flags use it.
    pub name: Box<str>,
    /// The route that the handler answers.
    pub pattern: Pattern,
    /// What the handler may use.
    pub grants: Arc<Grants>,
    /// The version of the contents.
    pub version: ContentVersion,
    /// Reads the contents.
    pub blob: Arc<dyn Blob>,
}

/// Identifies a version of contents: a digest of them, or file metadata that changes with them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ContentVersion {
    fingerprint: [u64; 6],
    bytes: u64,
}

/// Reads the contents of a handler, on a thread that may block.
pub trait Blob: Send + Sync {
    /// Reads the contents and returns them with their version.
    ///
    /// Memory was reserved for `bytes_max` bytes. Returns `None` if the contents are longer by now
    /// or change during the read; then the caller asks the source again for the current version.
    ///
    /// # Errors
    /// The contents cannot be read.
    fn read(&self, bytes_max: u64) -> Result<Option<(ContentVersion, Contents)>, BlobError>;
}

/// Why contents cannot be read.
pub struct BlobError {
    /// The version that cannot be read, if it is known.
    pub version: Option<ContentVersion>,
    /// The reason.
    pub failure: LoadFailure,
}

/// Tells the control path to ask a source for changes. Any thread may call it.
pub type Wake = Arc<dyn Fn() + Send + Sync>;

/// What has changed in a source.
pub enum Change {
    /// The set has changed, or may have. The control path refuses a set in which two handlers have
    /// the same route; the source gives the set again to have it tried again.
    Set(HandlerSet),
    /// The contents of a handler have changed, or may have.
    Item(Arc<HandlerItem>),
}

/// Which version an item has now.
pub enum ItemState {
    /// The version that was asked about.
    Same,
    /// Another version.
    Other(Arc<HandlerItem>),
    /// The item is gone. A [`Change`] will report that.
    Gone,
    /// The version cannot be determined at the moment.
    Unknown,
}

/// Gives sets of handlers. All methods are called on the control thread.
///
/// The provided methods suit a source whose versions are complete from the beginning and whose
/// blobs never change. A source of files overrides them, because a file may be half written.
pub trait Source: Send {
    /// Returns the first set. From now on the source may call `wake`.
    ///
    /// # Errors
    /// There is no set, so the host cannot start.
    fn begin(&mut self, wake: Wake) -> Result<HandlerSet>;

    /// Returns what has changed since the last call.
    fn changes(&mut self, _now: Instant) -> Vec<Change> {
        Vec::new()
    }

    /// When to ask for changes even if the source does not call `wake`.
    fn wake_at(&self) -> Option<Instant> {
        None
    }

    /// Makes the next call of [`Source::changes`] look everywhere, notified or not.
    fn refresh(&mut self) {}

    /// Blocks until the source knows of everything that has happened before this call.
    fn catch_up(&mut self) {}

    /// Determines which version an item has now.
    fn present(&mut self, _item: &HandlerItem, _now: Instant) -> ItemState {
        ItemState::Same
    }

    /// The earliest time to load an item, when it is likely to be completely written.
    fn whole_at(&self, _item: &HandlerItem, now: Instant) -> Instant {
        now
    }

    /// Whether nobody wrote to the item while the version `_read` of it was read.
    fn was_whole(&self, _item: &HandlerItem, _read: Option<ContentVersion>, _now: Instant) -> bool {
        true
    }

    /// If an item that does not load may be half written: the time at which to try it once more.
    fn doubtful_until(&self, _item: &HandlerItem, _now: Instant) -> Option<Instant> {
        None
    }
}

impl HandlerItem {
    /// Whether both items belong to one handler: they have the same route and the same grants.
    pub fn has_handler_of(&self, other: &HandlerItem) -> bool {
        self.pattern == other.pattern && Arc::ptr_eq(&self.grants, &other.grants)
    }
}

impl ContentVersion {
    /// A version with this fingerprint, whose contents have `bytes` bytes.
    pub fn new(marks: [u64; 6], bytes: u64) -> Self {
        ContentVersion { fingerprint: marks, bytes }
    }

    /// The version of these contents, by their digest.
    pub fn of(contents: &[u8]) -> Self {
        let mut marks = [0; 6];
        let digest = blake3::hash(contents);
        for (mark, bytes) in marks.iter_mut().zip(digest.as_bytes().chunks_exact(8)) {
            *mark = bytes.iter().fold(0, |mark, byte| mark << 8 | u64::from(*byte));
        }
        ContentVersion { fingerprint: marks, bytes: contents.len() as u64 }
    }

    /// The fingerprint, for whoever has to store it.
    pub fn fingerprint_words(&self) -> [u64; 6] {
        self.fingerprint
    }

    /// How many bytes the contents have.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }
}

impl fmt::Debug for HandlerItem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Item").field("label", &self.label).finish_non_exhaustive()
    }
}

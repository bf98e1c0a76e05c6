//! Sets of handlers, and what gives them: all that passes between a source and the control path.
//!
//! A leaf: plain values and two traits. The folder is a source and so is the demo; whoever loads
//! guests and publishes routes knows none of them, and a source knows nothing of both.

use std::fmt;
use std::sync::Arc;
use std::time::Instant;

use anyhow::Result;

use crate::grants::Grants;
use crate::guest::engine::load_failure::LoadFailure;
use crate::guest::load::loader::Contents;
use crate::registry::route::Pattern;

/// All that a source wants served at one time.
#[derive(Debug, Default)]
pub struct HandlerSet {
    /// Each has a label of its own.
    pub items: Vec<Arc<HandlerItem>>,
    /// Routes to native code of this program, by the number of that.
    pub native: Vec<(Pattern, usize)>,
    /// Whether it is served as a whole or not at all. The first one that a host has begins to serve
    /// at once, and ends the host if one of its handlers cannot be loaded. A later one is served
    /// once all of its handlers are loaded; if one cannot be, the set before it stays.
    pub is_atomic: bool,
}

/// One handler of a set, at one version of its contents.
pub struct HandlerItem {
    /// What messages call it. It tells one handler from all others of its source, whatever its
    /// version.
    pub label: Arc<str>,
    /// The handler's name.
    pub name: Box<str>,
    pub pattern: Pattern,
    pub grants: Arc<Grants>,
    pub version: ContentVersion,
    pub blob: Arc<dyn Blob>,
}

/// Tells one version of contents from another, without them: their digest, or what else there is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ContentVersion {
    fingerprint: [u64; 6],
    bytes: u64,
}

/// Where contents come from. It is asked on a thread that may block.
pub trait Blob: Send + Sync {
    /// Reads them. `None` where they change meanwhile, or have more than `bytes_max` bytes, for
    /// which memory was taken: then it is to be looked again which version there is.
    ///
    /// # Errors
    /// They cannot be read.
    fn read(&self, bytes_max: u64) -> Result<Option<(ContentVersion, Contents)>, BlobError>;
}

/// Why contents cannot be read, and of which version, if that is known.
pub struct BlobError {
    pub version: Option<ContentVersion>,
    pub failure: LoadFailure,
}

/// Tells the control path that a source has to be asked for changes. Any thread may call it.
pub type Wake = Arc<dyn Fn() + Send + Sync>;

/// What has changed.
pub enum Change {
    /// There is another set, or may be. Where two handlers would have one route, it is refused; to
    /// have it tried again, it is given again.
    Set(HandlerSet),
    /// The contents of a handler have changed, or may have.
    Item(Arc<HandlerItem>),
}

/// Which version an item has now.
pub enum ItemState {
    Same,
    Other(Arc<HandlerItem>),
    /// There is no such item any more, which a change will say.
    Gone,
    /// It cannot be told at the moment.
    Unknown,
}

/// What gives sets. All of it is called on the thread of the control path.
///
/// Most sources have nothing to say of the single item: where versions are whole from the
/// beginning, what is provided does. The blob of an item is then of its version for as long as the
/// item is there.
pub trait Source: Send {
    /// The first set. From here on `wake` may be called.
    ///
    /// # Errors
    /// There is none, and the host cannot start.
    fn begin(&mut self, wake: Wake) -> Result<HandlerSet>;

    /// What has changed since this was asked last.
    fn changes(&mut self, _now: Instant) -> Vec<Change> {
        Vec::new()
    }

    /// When it is to be asked for changes although it does not call.
    fn wake_at(&self) -> Option<Instant> {
        None
    }

    /// Has it look for changes when it is next asked for them.
    fn refresh(&mut self) {}

    /// Returns when it knows of everything that has happened by now.
    fn catch_up(&mut self) {}

    /// Looks which version an item has now.
    fn present(&mut self, _item: &HandlerItem, _now: Instant) -> ItemState {
        ItemState::Same
    }

    /// When an item may be taken for whole, so that it is loaded.
    fn whole_at(&self, _item: &HandlerItem, now: Instant) -> Instant {
        now
    }

    /// Whether nobody has written to an item while this version of it was read.
    fn was_whole(&self, _item: &HandlerItem, _read: Option<ContentVersion>, _now: Instant) -> bool {
        true
    }

    /// Until when it may be that an item cannot be loaded because it is not whole yet. It is tried
    /// once more then.
    fn doubtful_until(&self, _item: &HandlerItem, _now: Instant) -> Option<Instant> {
        None
    }
}

impl HandlerItem {
    /// Whether a handler that was made of this item is that of the other one, too: it has the same
    /// route and the same grants.
    pub fn has_handler_of(&self, other: &HandlerItem) -> bool {
        self.pattern == other.pattern && Arc::ptr_eq(&self.grants, &other.grants)
    }
}

impl ContentVersion {
    /// Of contents that have so many bytes.
    pub fn new(marks: [u64; 6], bytes: u64) -> Self {
        ContentVersion { fingerprint: marks, bytes }
    }

    /// By a digest of all of them.
    pub fn of(contents: &[u8]) -> Self {
        let mut marks = [0; 6];
        let digest = blake3::hash(contents);
        for (mark, bytes) in marks.iter_mut().zip(digest.as_bytes().chunks_exact(8)) {
            *mark = bytes.iter().fold(0, |mark, byte| mark << 8 | u64::from(*byte));
        }
        ContentVersion { fingerprint: marks, bytes: contents.len() as u64 }
    }

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

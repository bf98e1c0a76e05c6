//! What is served: an immutable snapshot of the routes, and the place where the current one is
//! published.
//!
//! Owns targets, routes and gates. The request path reads a snapshot; only the control path makes
//! one.

pub mod admit;
pub mod route;

use std::sync::Arc;

use arc_swap::ArcSwap;

use crate::guest::Guest;
use crate::native::Twin;
use route::Table;

/// What serves a route.
#[derive(Clone)]
pub enum Target {
    Guest(Arc<Guest>),
    Native(Twin),
    /// A file that could not be loaded; the log has said why.
    Failed,
    /// The page of a folder without handlers.
    Landing,
}

/// Everything that is served at one time.
pub struct Snapshot {
    pub table: Table<Target>,
}

/// The current snapshot. Readers never wait for a writer.
pub struct Registry(ArcSwap<Snapshot>);

impl Registry {
    pub fn new(snapshot: Snapshot) -> Self {
        Registry(ArcSwap::from_pointee(snapshot))
    }

    /// Publishes a snapshot: requests that begin from now on see it.
    pub fn publish(&self, snapshot: Snapshot) {
        self.0.store(Arc::new(snapshot));
    }

    /// A reader for one thread, which looks for a newer snapshot without touching the count of
    /// the one it has.
    pub fn reader(self: &Arc<Self>) -> Reader {
        Reader(arc_swap::Cache::new(Shared(self.clone())))
    }
}

/// One thread's view of the registry.
pub struct Reader(arc_swap::Cache<Shared, Arc<Snapshot>>);

impl Reader {
    /// The current snapshot.
    pub fn load(&mut self) -> &Arc<Snapshot> {
        self.0.load()
    }
}

struct Shared(Arc<Registry>);

impl std::ops::Deref for Shared {
    type Target = ArcSwap<Snapshot>;

    fn deref(&self) -> &ArcSwap<Snapshot> {
        &self.0.0
    }
}

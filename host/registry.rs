//! What is served: an immutable snapshot of the routes, and the place where the current one is
//! published.
//!
//! Owns targets, handlers, routes and gates. The request path reads a snapshot; only the control
//! path makes one.

pub mod admission_gate;
pub mod handler;
pub mod route;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use arc_swap::ArcSwap;

use crate::guest::Guest;
pub use handler::{CurrentGuest, Handler, HandlerState};
use route::Table;

/// What serves a route.
#[derive(Clone)]
pub enum RouteTarget {
    Handler(Arc<Handler>),
    /// Native code of this program, by its number.
    Native(usize),
    /// The page of a host without handlers.
    Landing,
}

/// Every route that is there at one time.
pub struct Snapshot {
    pub table: Table<RouteTarget>,
}

/// The current snapshot. Readers never wait for a writer.
pub struct Registry {
    snapshot: ArcSwap<Snapshot>,
    /// Guests that have been retired so far.
    retired: AtomicU64,
    began: Instant,
}

impl Registry {
    pub fn new(snapshot: Snapshot) -> Self {
        let (retired, began) = (AtomicU64::new(0), Instant::now());
        Registry { snapshot: ArcSwap::from_pointee(snapshot), retired, began }
    }

    /// Publishes a snapshot: requests that begin from now on see it.
    pub fn publish(&self, snapshot: Snapshot) {
        self.snapshot.store(Arc::new(snapshot));
    }

    /// Says that a guest is served no more, so that the workers drop the instances they keep.
    pub fn retire(&self, guest: &Guest) {
        guest.retire();
        self.retired.fetch_add(1, Ordering::Release);
    }

    /// Guests that have been retired so far: when it has changed, pools are to be swept.
    pub fn retired(&self) -> u64 {
        self.retired.load(Ordering::Acquire)
    }

    /// The coarse time by which the last use of a handler is noted, in tenths of a second.
    pub fn coarse_ticks(&self) -> u32 {
        // Thirteen years.
        (self.began.elapsed().as_millis() / 100) as u32
    }

    /// How many handlers there are in each state, in the order of [`HandlerState::ALL`].
    pub fn count_states(&self) -> [usize; 5] {
        let mut counts = [0; 5];
        for route in self.snapshot.load().table.routes() {
            if let RouteTarget::Handler(handler) = &route.target {
                counts[handler.state() as usize] += 1;
            }
        }
        counts
    }

    /// A reader for one thread, which looks for a newer snapshot without touching the count of
    /// the one it has.
    pub fn reader(self: &Arc<Self>) -> SnapshotReader {
        SnapshotReader(arc_swap::Cache::new(SharedRegistry(self.clone())))
    }
}

/// One thread's view of the registry.
pub struct SnapshotReader(arc_swap::Cache<SharedRegistry, Arc<Snapshot>>);

impl SnapshotReader {
    /// The current snapshot.
    pub fn load(&mut self) -> &Arc<Snapshot> {
        self.0.load()
    }
}

struct SharedRegistry(Arc<Registry>);

impl std::ops::Deref for SharedRegistry {
    type Target = ArcSwap<Snapshot>;

    fn deref(&self) -> &ArcSwap<Snapshot> {
        &self.0.snapshot
    }
}

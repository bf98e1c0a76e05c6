//! The published table of routes and handlers: immutable snapshots, and the place that holds the
//! current one.
//!
//! Owns targets, handlers, routes and gates. The request path reads snapshots; only the control
//! path makes them.

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
    /// A handler, whose guest may still have to be loaded.
    Handler(Arc<Handler>),
    /// Native code of this program: the index of a twin.
    Native(usize),
    /// The start page of a host without handlers.
    Landing,
}

/// All routes at one moment.
pub struct Snapshot {
    /// Finds the target of a host and path.
    pub table: Table<RouteTarget>,
}

/// The current snapshot. Readers never wait for a writer.
pub struct Registry {
    snapshot: ArcSwap<Snapshot>,
    /// How many guests have been retired so far.
    retired: AtomicU64,
    began: Instant,
}

impl Registry {
    /// A registry that publishes `snapshot` as its first one.
    pub fn new(snapshot: Snapshot) -> Self {
        let (retired, began) = (AtomicU64::new(0), Instant::now());
        Registry { snapshot: ArcSwap::from_pointee(snapshot), retired, began }
    }

    /// Publishes a snapshot. Requests that begin from now on see it.
    pub fn publish(&self, snapshot: Snapshot) {
        self.snapshot.store(Arc::new(snapshot));
    }

    /// Retires a guest: it serves no new requests, and the workers drop its ready instances.
    pub fn retire(&self, guest: &Guest) {
        guest.retire();
        self.retired.fetch_add(1, Ordering::Release);
    }

    /// How many guests have been retired so far. When this has changed, workers sweep their pools.
    pub fn retired(&self) -> u64 {
        self.retired.load(Ordering::Acquire)
    }

    /// A coarse clock for the last use of handlers: tenths of a second since the start.
    pub fn coarse_ticks(&self) -> u32 {
        // A `u32` holds thirteen years.
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

    /// A reader for one thread. It caches the snapshot, so loading it again touches no shared
    /// reference count.
    pub fn reader(self: &Arc<Self>) -> SnapshotReader {
        SnapshotReader(arc_swap::Cache::new(SharedRegistry(self.clone())))
    }
}

/// One thread's cached view of the registry.
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

//! The sandbox: guests, their instances and pools.
//!
//! This folder is the only place that names wasmtime. Everything else sees a [`Guest`] that was
//! loaded, an [`Instance`] that was checked out of a [`Pool`], and what comes of a call.

pub mod budget;
pub mod cache;
pub mod call;
pub mod check;
pub mod child;
pub mod compile;
pub mod core;
pub mod engine;
pub mod header;
mod health;
pub mod imports;
pub mod instance;
pub mod kept;
pub mod lane;
pub mod line;
pub mod link;
pub mod load;
pub mod log;
pub mod meter;
mod pages;
pub mod pool;
pub mod reset;
mod shelves;
pub mod sniff;
pub mod startup;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use wasmtime::{InstancePre, ModuleExport};

pub use instance::Instance;
pub use load::Loader;
pub use pool::Pool;

use crate::config::{Isolation, Limits};
use budget::{Budget, Charge};
use call::Call;
use health::Health;
use reset::Baseline;

/// A handler that has been loaded and can be instantiated.
pub struct Guest {
    /// Its place in the pools and gates of every worker: its handler's.
    pub id: usize,
    pub isolation: Isolation,
    pub about: Arc<About>,
    pre: InstancePre<Call>,
    exports: Exports,
    /// Features that its start-up code enabled.
    features: u32,
    startup: Startup,
    /// The state to which its instances can be reset, if they can.
    pub baseline: Option<Baseline>,
    /// Whether it is served no more: by another version, or not at all.
    retired: AtomicBool,
    /// What its code takes of the host's memory, once it is loaded.
    _charge: Option<Charge>,
}

/// What each instance of a guest has to know of it, in one piece: every reference costs an atomic
/// operation per fresh instance.
pub struct About {
    /// Its file's path below the handler folder, without extension.
    pub name: Box<str>,
    pub limits: Limits,
    pub health: Health,
    /// The host's memory, of which its instances take theirs.
    pub memory: Budget,
}

impl About {
    pub fn new(name: &str, limits: &Limits, memory: &Budget) -> Arc<Self> {
        let (limits, memory) = (limits.clone(), memory.clone());
        Arc::new(About { name: name.into(), limits, health: Health::new(), memory })
    }
}

/// A guest's exports, looked up by index: by name it costs 175 ns each.
struct Exports {
    memory: ModuleExport,
    handle_request: ModuleExport,
    handle_response: Option<ModuleExport>,
    /// Mutable globals, where its instances can be reset.
    globals: Vec<ModuleExport>,
}

/// What a fresh instance still has to run before its first request.
enum Startup {
    /// Nothing: there is no start-up code, or its result is in the module's image.
    Done,
    /// A start function, or start-up exports whose result may not be kept.
    Each { functions: Vec<ModuleExport>, why: String },
}

impl Guest {
    /// Says that it is served no more. Requests that have it already end on it.
    pub fn retire(&self) {
        self.retired.store(true, Ordering::Relaxed);
    }

    pub fn is_retired(&self) -> bool {
        self.retired.load(Ordering::Relaxed)
    }

    /// Whether a fresh instance runs guest code before its first request.
    pub fn runs_startup(&self) -> bool {
        matches!(self.startup, Startup::Each { .. })
    }

    /// What `check` says about the start-up code.
    fn startup_note(&self) -> String {
        match &self.startup {
            Startup::Done if self.baseline.is_some() => {
                "nothing is left to run at start-up; instances are reset between requests".into()
            }
            Startup::Done => {
                "nothing is left to run at start-up; instances are made anew for each request"
                    .into()
            }
            Startup::Each { why, .. } => format!("start-up code runs in each instance: {why}"),
        }
    }
}

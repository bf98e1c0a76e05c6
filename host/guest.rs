//! The sandbox: guests, their instances and pools.
//!
//! This folder is the only place that names wasmtime. Everything else sees a [`Guest`] that was
//! loaded, an [`Instance`] that was checked out of a [`Pool`], and what comes of a call.

mod about;
pub mod allocator;
pub mod budget;
pub mod cache;
mod call;
pub mod check;
pub mod child;
pub mod class;
pub mod compile;
pub mod component;
mod context;
pub mod core;
mod ends;
pub mod engine;
mod environment;
pub mod failure;
pub mod fault;
pub mod header;
mod health;
pub mod held;
pub mod instance;
pub mod kept;
mod limiter;
pub mod link;
pub mod load;
pub mod log;
mod mapped;
mod pages;
pub mod poll;
pub mod pool;
pub mod reset;
pub mod resources;
pub mod schedule;
mod shelves;
mod slot_pages;
pub mod slots;
pub mod startup;
mod tenants;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

pub use about::About;
pub use call::{Checkout, call};
pub use context::{Context, Forwarded, Next};
pub use instance::Instance;
pub use load::Loader;
pub use pool::Pool;
pub use schedule::Schedule;

use crate::grants::Isolation;
use crate::message::Reject;
use allocator::Freed;
use budget::Charge;
use component::ComponentCode;
use core::{CoreCode, Startup};
use limiter::{Cost, PrepaidStacks};
use reset::Baseline;
use resources::Held;
use tenants::Tenants;

/// A handler that has been loaded and can be instantiated.
pub struct Guest {
    /// Its place in the pools and gates of every worker: its handler's.
    pub id: usize,
    /// The number of its engine.
    pub engine: usize,
    pub about: Arc<About>,
    /// Bytes that the engine keeps for each of its instances.
    record_bytes: usize,
    /// Slots of its engine that each takes.
    slots: usize,
    /// Who has the slots of its engine.
    tenants: Arc<Tenants>,
    code: Code,
    /// Whether it is served no more: by another version, or not at all.
    retired: AtomicBool,
    /// What its code takes of the host's memory, once it is loaded.
    _charge: Option<Charge>,
    /// What it holds of mappings and descriptors.
    _held: Option<Held>,
    /// What of its code is the allocator's.
    _freed: Option<Freed>,
}

/// What a guest is made of, by its kind.
enum Code {
    /// A core module that speaks the http-wasm handler ABI.
    Core(CoreCode),
    /// A component that speaks wasi:http.
    Component(ComponentCode),
}

/// What is instantiated of a guest.
enum Form {
    /// A core module, which speaks the http-wasm handler ABI.
    Core,
    /// The one module of a component.
    Flat,
    /// A component as it is.
    Whole,
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
        match &self.code {
            Code::Core(code) => matches!(code.startup, Startup::Each { .. }),
            Code::Component(code) => code.has_start,
        }
    }

    /// Whether its instances are given requests beside each other.
    pub fn is_shared(&self) -> bool {
        self.about.grants.isolation == Isolation::Reuse
            && matches!(&self.code, Code::Component(code) if code.is_concurrent())
    }

    /// What each of its instances takes.
    fn cost(&self) -> Cost<'_> {
        Cost { tenants: &self.tenants, slots: self.slots, record_bytes: self.record_bytes }
    }

    /// Whether it has as many instances as it may have, all workers together.
    fn has_enough_instances(&self) -> bool {
        self.tenants.has_enough(self.about.tenant(), self.slots)
    }

    /// Charges an instance that is to have so many calls at once for their stacks, as far as they
    /// are not charged.
    fn charge_stacks(&self, calls: usize, prepaid: &PrepaidStacks) -> Result<(), Reject> {
        let more = calls.saturating_sub(slots::STACKS_PER_SLOT as usize);
        if !self.component().has_many_stacks() || more == 0 {
            return Ok(());
        }
        prepaid.charge(more, &self.about.memory)
    }

    /// The code of a guest whose instances are core instances.
    fn core(&self) -> &CoreCode {
        match &self.code {
            Code::Core(code) => code,
            Code::Component(_) => unreachable!("a core instance is made of core code"),
        }
    }

    /// The code of a guest whose instances are component instances.
    fn component(&self) -> &ComponentCode {
        match &self.code {
            Code::Component(code) => code,
            Code::Core(_) => unreachable!("a component instance is made of a component's code"),
        }
    }

    /// Bytes of the state to which its instances are reset.
    fn baseline_bytes(&self) -> usize {
        match &self.code {
            Code::Core(code) => code.baseline.as_ref(),
            Code::Component(code) => code.baseline(),
        }
        .map_or(0, Baseline::bytes)
    }

    /// Says to what state its instances can be reset, which the loader reads from one of them.
    pub fn set_baseline(&mut self, baseline: Option<Baseline>) {
        match &mut self.code {
            Code::Core(code) => code.baseline = baseline,
            Code::Component(code) => code.set_baseline(baseline),
        }
    }

    /// What `check` calls it.
    fn kind(&self) -> &'static str {
        match &self.code {
            Code::Core(_) => "core module (http-wasm handler)",
            Code::Component(code) if code.is_concurrent() => "component (wasi:http 0.3)",
            Code::Component(_) => "component (wasi:http 0.2)",
        }
    }

    /// In which form it is served.
    fn form(&self) -> Form {
        match &self.code {
            Code::Core(_) => Form::Core,
            Code::Component(code) if code.is_flat() => Form::Flat,
            Code::Component(_) => Form::Whole,
        }
    }

    /// What `check` says about the start-up code.
    fn startup_note(&self) -> String {
        const RESET: &str =
            "nothing is left to run at start-up; instances are reset between requests";
        const ANEW: &str =
            "nothing is left to run at start-up; instances are made anew for each request";
        match &self.code {
            Code::Core(CoreCode { startup: Startup::Each { why, .. }, .. }) => {
                format!("start-up code runs in each instance: {why}")
            }
            Code::Core(CoreCode { baseline: Some(_), .. }) => RESET.into(),
            Code::Component(code) if code.baseline().is_some() => RESET.into(),
            Code::Component(code) if code.has_start => {
                "start-up code runs in each instance: it has a start function".into()
            }
            Code::Core(_) | Code::Component(_) => ANEW.into(),
        }
    }
}

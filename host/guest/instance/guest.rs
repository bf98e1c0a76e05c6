//! A guest: one version of a handler's code, linked, and what is known of it.
//!
//! Owns what its instances share.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use wasmtime_wasi_http::p2::bindings::Proxy;
use wasmtime_wasi_http::p3::bindings::Service;

use crate::grants::Isolation;
use crate::guest::component::{CallbackExports, ComponentCode, FlatComponent, SyncExport};
use crate::guest::core::{CoreCode, Startup};
use crate::guest::engine::allocator::FreedNotice;
use crate::guest::engine::budget::Charge;
use crate::guest::engine::form::Form;
use crate::guest::engine::guest_info::GuestInfo;
use crate::guest::engine::limiter::{InstanceCost, PrepaidStacks};
use crate::guest::engine::reset::Baseline;
use crate::guest::engine::resources::ResourceReservation;
use crate::guest::engine::slot_quota::SlotQuota;
use crate::guest::engine::slots;
use crate::message::Reject;

/// A guest that has been loaded and can be instantiated.
pub struct Guest {
    /// The number of its handler, by which every worker's pool and gates know it.
    pub id: usize,
    /// The number of its engine.
    pub engine: usize,
    /// What every instance needs to know of it.
    pub info: Arc<GuestInfo>,
    /// Bytes that the engine keeps for each of its instances.
    pub(in crate::guest) record_bytes: usize,
    /// Slots of its engine that each instance takes.
    pub(in crate::guest) slots: usize,
    /// Shares out the slots of its engine.
    pub(in crate::guest) slot_quota: Arc<SlotQuota>,
    pub(in crate::guest) code: LinkedCode,
    /// The state to which its instances are reset; `None` if they cannot be.
    pub baseline: Option<Baseline>,
    /// Whether it is no longer served: a newer version is, or none.
    pub(in crate::guest) retired: AtomicBool,
    /// The charge for its code.
    pub(in crate::guest) _charge: Option<Charge>,
    /// The mappings and descriptors that it holds.
    pub(in crate::guest) _reservation: Option<ResourceReservation>,
    /// Tells the allocator of the memory that is freed with it.
    pub(in crate::guest) _freed: Option<FreedNotice>,
}

/// A guest's linked code, by its form.
pub type LinkedCode = Form<
    CoreCode,
    ComponentCode<Proxy>,
    ComponentCode<Service>,
    ComponentCode<FlatComponent<SyncExport>>,
    ComponentCode<FlatComponent<CallbackExports>>,
>;

impl Guest {
    /// Says that it is no longer served. Requests that it has already end on it.
    pub fn retire(&self) {
        self.retired.store(true, Ordering::Relaxed);
    }

    /// Whether it is no longer served.
    pub fn is_retired(&self) -> bool {
        self.retired.load(Ordering::Relaxed)
    }

    /// Whether making an instance runs guest code.
    pub fn runs_startup(&self) -> bool {
        match &self.code {
            Form::Core(code) => matches!(code.startup, Startup::Each { .. }),
            Form::Whole02(code) => code.has_start,
            Form::Whole03(code) => code.has_start,
            Form::Flat02(code) => code.has_start,
            Form::Flat03(code) => code.has_start,
        }
    }

    /// Whether its instances handle several requests at once.
    pub fn is_shared(&self) -> bool {
        self.info.grants.isolation == Isolation::Reuse && self.code.is_concurrent()
    }

    /// What each of its instances costs.
    pub(in crate::guest) fn cost(&self) -> InstanceCost<'_> {
        InstanceCost {
            slot_quota: &self.slot_quota,
            slots: self.slots,
            record_bytes: self.record_bytes,
        }
    }

    /// Whether it has as many instances as it may have, over all workers.
    pub(in crate::guest) fn is_at_slot_quota(&self) -> bool {
        self.slot_quota.is_at_quota(self.info.slot_holder(), self.slots)
    }

    /// Charges the stacks of an instance that is to have so many calls at once, less those that are
    /// charged already.
    pub(in crate::guest) fn charge_stacks(
        &self,
        calls: usize,
        prepaid: &PrepaidStacks,
    ) -> Result<(), Reject> {
        let more = calls.saturating_sub(slots::STACKS_PER_SLOT as usize);
        if !matches!(self.code, Form::Whole03(_)) || more == 0 {
            return Ok(());
        }
        prepaid.charge(more, &self.info.memory)
    }

    /// Bytes of the state to which its instances are reset.
    pub(in crate::guest) fn baseline_bytes(&self) -> usize {
        self.baseline.as_ref().map_or(0, Baseline::bytes)
    }

    /// What `guesthouse check` says of the start-up code.
    pub(in crate::guest) fn startup_note(&self) -> String {
        match &self.code {
            Form::Core(CoreCode { startup: Startup::Each { why, .. }, .. }) => {
                format!("start-up code runs in each instance: {why}")
            }
            _ if self.runs_startup() => {
                "start-up code runs in each instance: it has a start function".into()
            }
            _ if self.baseline.is_some() => {
                "nothing is left to run at start-up; instances are reset between requests".into()
            }
            _ => "nothing is left to run at start-up; instances are made anew for each request"
                .into(),
        }
    }
}

//! One sandbox: a store with an instance, in whichever form the guest has.
//!
//! Owns how instances are made, and what an error of that means. The calls are in `core.rs` and
//! `component.rs`.

use std::pin::pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

use guesthouse_module::reset::MEMORY_BYTES_MAX;
use wasmtime_wasi_http::p2::bindings::Proxy;
use wasmtime_wasi_http::p3::bindings::Service;

use super::component::ComponentInstance;
use super::core::CoreInstance;
use super::guest::Guest;
use crate::guest::component::{CallbackExports, FlatComponent, SyncExport};
use crate::guest::engine::fault::{describe, fault_reject};
use crate::guest::engine::form::{Form, each};
use crate::guest::engine::load_failure::LoadFailure;
use crate::guest::engine::outcomes::{
    is_host_limit, is_out_of_capacity, log_not_started, note_failure, note_start, start_reject,
};
use crate::guest::engine::reset::Baseline;
use crate::guest::schedule::TickerHandle;
use crate::guest::schedule::{CostClass, DropCost, LONG_CALL, Meter, Scheduler, SliceStart};
use crate::message::{Reject, RequestId};

/// An instance that is ready for a request.
pub type Instance = Form<
    Box<CoreInstance>,
    Box<ComponentInstance<Proxy>>,
    Box<ComponentInstance<Service>>,
    Box<ComponentInstance<FlatComponent<SyncExport>>>,
    Box<ComponentInstance<FlatComponent<CallbackExports>>>,
>;

impl From<Box<ComponentInstance<Proxy>>> for Instance {
    fn from(instance: Box<ComponentInstance<Proxy>>) -> Self {
        Form::Whole02(instance)
    }
}

impl From<Box<ComponentInstance<Service>>> for Instance {
    fn from(instance: Box<ComponentInstance<Service>>) -> Self {
        Form::Whole03(instance)
    }
}

impl From<Box<ComponentInstance<FlatComponent<SyncExport>>>> for Instance {
    fn from(instance: Box<ComponentInstance<FlatComponent<SyncExport>>>) -> Self {
        Form::Flat02(instance)
    }
}

impl From<Box<ComponentInstance<FlatComponent<CallbackExports>>>> for Instance {
    fn from(instance: Box<ComponentInstance<FlatComponent<CallbackExports>>>) -> Self {
        Form::Flat03(instance)
    }
}

impl Instance {
    /// Makes an instance, and runs the guest's start-up code if that has to run each time.
    /// `request` is the request that waits for it, if there is one, and when that began: the
    /// instance has to be ready by its deadline.
    ///
    /// # Errors
    /// [`Reject::NoInstance`] if all slots are taken, [`Reject::NoMemory`] if memory is short,
    /// [`Reject::Trap`] or [`Reject::Deadline`] if the start-up code fails.
    pub async fn make(
        guest: Arc<Guest>,
        schedule: &Scheduler,
        request: Option<(RequestId, Instant)>,
    ) -> Result<Instance, Reject> {
        let about = guest.info.clone();
        let runs_startup = guest.runs_startup();
        let _running = schedule.ticker().begin();
        let (request, started) = request.unzip();
        let started = started.unwrap_or_else(Instant::now);
        let (id, class) = (guest.id, schedule.instantiation_class(guest.id));
        let slice = schedule.note(id, |usage| usage.instantiation_time());
        let meter = Meter::new(&about.grants.limits, started).in_lanes(schedule, id);
        let mut meter = meter.as_untracked(class, slice);
        meter.resume();
        let made = meter.call(Box::pin(Self::instantiate(guest))).await;
        // If it has only waited for its turn, that says nothing of the guest.
        let has_run = made.is_ok() || !meter.used().is_zero();
        if has_run && !matches!(&made, Ok(Err(error)) if is_out_of_capacity(fault_reject(error))) {
            // The start-up code counts as a part of making it, even if it fails. If it was stopped
            // in the slow lane, its time is not known.
            let least = if made.is_err() { LONG_CALL } else { Duration::ZERO };
            schedule.note(id, |usage| usage.note_instantiation(meter.used().max(least), true));
        }
        match made {
            Err(reject) => {
                if has_run || request.is_some() {
                    log_not_started(&about, request, format_args!("{reject}"));
                }
                Err(reject)
            }
            Ok(Ok(instance)) => {
                if runs_startup {
                    note_start(&about);
                }
                schedule.reasons().instances.made.add(1);
                Ok(instance)
            }
            Ok(Err(error)) => {
                let reject = start_reject(&about, &error);
                if !is_out_of_capacity(reject) {
                    log_not_started(&about, request, format_args!("{}", describe(&error)));
                }
                // Only an error in the guest's code has a backtrace; others are the host's or the
                // machine's.
                if runs_startup && error.is::<wasmtime::WasmBacktrace>() && reject == Reject::Trap {
                    note_failure(&about);
                }
                Err(reject)
            }
        }
    }

    /// Makes an instance to see whether that is possible; `None` if there is no slot or memory for
    /// it.
    ///
    /// # Errors
    /// Why it cannot be made, in a sentence.
    pub async fn try_make(
        guest: Arc<Guest>,
        ticker: &TickerHandle,
    ) -> Result<Option<Instance>, LoadFailure> {
        let runs_startup = guest.runs_startup();
        match Self::instantiate_metered(guest, ticker).await {
            Ok(Ok(instance)) => Ok(Some(instance)),
            Ok(Err(error)) if is_host_limit(&error) => Ok(None),
            Ok(Err(error)) if runs_startup => {
                Err(LoadFailure::of_engine("its start-up failed", &error))
            }
            Ok(Err(error)) => Err(LoadFailure::of_engine("an instance cannot be made", &error)),
            Err(reject) => {
                Err(LoadFailure::of_file(format!("its start-up did not end in time ({reject})")))
            }
        }
    }

    /// Makes an instance of a guest that runs no code at start-up; `None` if there is no slot or
    /// memory for it. Does not wait.
    ///
    /// # Errors
    /// Why it cannot be made, in a sentence.
    pub fn try_now(guest: Arc<Guest>) -> Result<Option<Instance>, LoadFailure> {
        match Self::instantiate_now(guest) {
            Ok(instance) => Ok(Some(instance)),
            Err(error) if is_host_limit(&error) => Ok(None),
            Err(error) => Err(LoadFailure::of_engine("an instance could not be made", &error)),
        }
    }

    /// Makes an instance of a guest that runs no code at start-up, and records how long that took.
    /// Does not wait.
    ///
    /// # Errors
    /// As [`Instance::make`].
    pub fn make_now(
        guest: Arc<Guest>,
        schedule: &Scheduler,
        request: Option<RequestId>,
    ) -> Result<Instance, Reject> {
        let (about, id) = (guest.info.clone(), guest.id);
        let is_measured = schedule.instantiation_class(guest.id) != CostClass::Short;
        let begun = SliceStart::begin((!is_measured).then(Instant::now));
        let made = Self::instantiate_now(guest);
        let used = begun.used();
        schedule.note(id, |usage| usage.note_instantiation(used, is_measured));
        let made = made.inspect(|_| schedule.reasons().instances.made.add(1));
        made.map_err(|error| {
            let reject = start_reject(&about, &error);
            if is_out_of_capacity(reject) {
                return reject;
            }
            let (why, request) = (describe(&error), request.map(tracing::field::display));
            tracing::error!(request, "an instance could not be made: {why}");
            Reject::NoInstance
        })
    }

    fn instantiate_now(guest: Arc<Guest>) -> wasmtime::Result<Instance> {
        let made = pin!(Self::instantiate(guest));
        match made.poll(&mut Context::from_waker(Waker::noop())) {
            Poll::Ready(made) => made,
            Poll::Pending => wasmtime::bail!("an instance without start-up code had to wait"),
        }
    }

    /// Makes an instance. Its start-up code is held to the guest's deadline and CPU limit.
    async fn instantiate_metered(
        guest: Arc<Guest>,
        ticker: &TickerHandle,
    ) -> Result<wasmtime::Result<Instance>, Reject> {
        let about = guest.info.clone();
        let _running = ticker.begin();
        let mut meter = Meter::new(&about.grants.limits, Instant::now());
        meter.run(pin!(Self::instantiate(guest))).await
    }

    async fn instantiate(guest: Arc<Guest>) -> wasmtime::Result<Instance> {
        Ok(match &guest.code {
            Form::Core(code) => Form::Core(CoreInstance::instantiate(&guest, code).await?),
            Form::Whole02(code) => ComponentInstance::instantiate(&guest, code).await?.into(),
            Form::Whole03(code) => ComponentInstance::instantiate(&guest, code).await?.into(),
            Form::Flat02(code) => ComponentInstance::instantiate(&guest, code).await?.into(),
            Form::Flat03(code) => ComponentInstance::instantiate(&guest, code).await?.into(),
        })
    }

    /// Resets an instance that ended well to the state in which it was made. `is_warm` says that
    /// its memory is likely to be in a cache.
    ///
    /// # Errors
    /// The instance is gone. A new one of this guest has to be made instead.
    pub fn reset(self, is_warm: bool) -> Result<Instance, Arc<Guest>> {
        Ok(match self {
            Form::Core(instance) => Form::Core(instance.reset(is_warm)?),
            Form::Whole02(instance) => Form::Whole02(instance.reset(is_warm)?),
            Form::Whole03(instance) => Form::Whole03(instance.reset(is_warm)?),
            Form::Flat02(instance) => Form::Flat02(instance.reset(is_warm)?),
            Form::Flat03(instance) => Form::Flat03(instance.reset(is_warm)?),
        })
    }

    /// The state in which it was made; `None` if it cannot be reset.
    pub fn baseline(&mut self) -> Option<Baseline> {
        each!(self, instance => instance.baseline())
    }

    /// Bytes of its memories at their present size.
    pub fn memory_bytes(&self) -> usize {
        each!(self, instance => instance.memory_bytes())
    }

    /// The guest that it is an instance of.
    pub fn guest(&self) -> &Arc<Guest> {
        each!(self, instance => instance.guest())
    }

    /// Whether it is to serve no more requests, under reuse.
    pub fn is_spent(&mut self) -> bool {
        each!(self, instance => instance.is_spent())
    }

    /// Whether its memory is larger than that of instances that are reset.
    pub fn is_large(&self) -> bool {
        self.memory_bytes() as u64 > MEMORY_BYTES_MAX
    }
}

impl DropCost for Instance {
    fn bytes(&self) -> usize {
        each!(self, instance => instance.bytes())
    }
}

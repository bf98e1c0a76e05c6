//! The data of a component's store: its limits, its resources, and the little of WASI that it gets.
//!
//! Knows nothing of pools or of the network.

use std::sync::Arc;

use guesthouse_module::limits::TABLES_MAX;
use http::HeaderMap;
use wasmtime::Store;
use wasmtime::component::{Resource, ResourceTable};
use wasmtime_wasi::{WasiCtx, WasiCtxView, WasiView};
use wasmtime_wasi_http::{FieldMap, WasiHttpCtx, WasiHttpCtxView, WasiHttpHooks, WasiHttpView};
use wasmtime_wasi_io::IoView;

use super::flat::{CanonState, ResourceKind};
use super::hooks::Hooks;
use super::limits::{FIELD_BYTES_MAX, HANDLES_MAX, HOSTCALL_FUEL, RANDOM_BYTES_MAX};
use super::outgoing_body::UnopenedBodies;
use super::store_charge::StoreCharge;
use super::store_liveness::StoreLiveness;
use crate::guest::engine::budget::Charge;
use crate::guest::engine::guest_info::GuestInfo;
use crate::guest::engine::limiter::{Limiter, StoreItemLimits, reject_error};
use crate::guest::schedule::QUANTUM_TICKS;
use crate::guest::services::log::{LogSink, SharedSink};
use crate::message::RequestId;

/// Items that a component's store may hold. A toolchain splits a component into a handful of core
/// instances, and a language runtime of shared libraries into some dozens.
const PARTS: StoreItemLimits = StoreItemLimits { instances: 100, tables: TABLES_MAX, memories: 2 };
/// The data of one component's store.
pub struct ComponentState {
    /// The memory and stacks that the store is charged for.
    pub limiter: Limiter,
    /// Tells others whether the store is gone.
    pub liveness: StoreLiveness,
    /// The host's objects behind the guest's handles.
    pub table: ResourceTable,
    /// The canonical ABI's state, if the component is flat.
    pub canon: CanonState,
    /// How wasi:http sends requests, and what it forbids.
    pub hooks: Hooks,
    /// Bodies that the guest has not begun to write to.
    pub unopened: UnopenedBodies,
    /// The charge for a large result on its way to the guest, until the next one.
    pub result: Option<Charge>,
    http: WasiHttpCtx,
    /// Made when the guest first needs it.
    wasi: Option<Box<WasiCtx>>,
    /// Where stdout and stderr go. Made with `wasi`.
    log: Option<SharedSink>,
    request: Option<RequestId>,
    /// The charge for what the table holds; dropped after it.
    store_charge: StoreCharge,
}

impl ComponentState {
    /// The state of a new store, without a request.
    pub fn new(info: Arc<GuestInfo>) -> Self {
        let mut table = ResourceTable::new();
        table.set_max_capacity(HANDLES_MAX);
        let mut http = WasiHttpCtx::new();
        http.set_field_size_limit(FIELD_BYTES_MAX);
        let liveness = StoreLiveness::default();
        ComponentState {
            hooks: Hooks::new(info.clone(), liveness.clone()),
            limiter: Limiter::new(info, PARTS),
            liveness,
            table,
            canon: CanonState::default(),
            unopened: UnopenedBodies::default(),
            result: None,
            store_charge: StoreCharge::default(),
            http,
            wasi: None,
            log: None,
            request: None,
        }
    }

    /// A store that guest code can run in: with limits, and yielding after every quantum.
    pub fn store(engine: &wasmtime::Engine, info: Arc<GuestInfo>) -> Store<ComponentState> {
        let mut store = Store::new(engine, ComponentState::new(info));
        store.limiter(|state| &mut state.limiter);
        store.set_hostcall_fuel(HOSTCALL_FUEL);
        store.set_max_component_handles(HANDLES_MAX);
        // The future has no size, so boxing it does not allocate.
        store.epoch_deadline_callback(|_| {
            let yielded = Box::pin(tokio::task::yield_now());
            Ok(wasmtime::UpdateDeadline::YieldCustom(QUANTUM_TICKS, yielded))
        });
        store.set_epoch_deadline(QUANTUM_TICKS);
        store
    }

    /// The variables that `wasi:config` shows.
    pub fn vars(&self) -> &[(String, String)] {
        &self.limiter.guest_info.grants.variables.config
    }

    /// The value of one `wasi:config` variable.
    pub fn var(&self, key: &str) -> Option<String> {
        self.vars().iter().find(|(name, _)| name == key).map(|(_, value)| value.clone())
    }

    /// Continues with a request that the guest has begun: its log lines follow.
    pub fn resume(&mut self, request: RequestId) {
        self.request = Some(request);
        if let Some(log) = &self.log {
            log.with(|sink| sink.resume(Some(request)));
        }
    }

    /// Begins a request; without its id if the guest has others, too.
    pub fn begin(&mut self, request: Option<RequestId>) {
        self.request = request;
        self.canon.has_polled = false;
        if let Some(log) = &self.log {
            log.with(|sink| sink.begin(request));
        }
    }

    /// Drops all that belongs to earlier requests, when an instance is reset.
    pub fn clear_requests(&mut self) {
        self.end_log();
        self.hooks.abort_sends();
        self.table = ResourceTable::new();
        self.table.set_max_capacity(HANDLES_MAX);
        self.unopened.clear();
        self.result = None;
        self.store_charge = StoreCharge::default();
        self.canon.handles.clear();
        self.canon.pending.clear();
        self.canon.tasks.clear();
        self.wasi = None;
        self.log = None;
        self.request = None;
    }

    /// Charges bytes that the host is about to keep for the guest.
    ///
    /// # Errors
    /// [`Reject::NoMemory`](crate::message::Reject::NoMemory) as the error of a host function.
    pub fn hold(&mut self, bytes: usize) -> wasmtime::Result<()> {
        let ComponentState { store_charge, table, limiter, .. } = self;
        let resources = || table.iter_mut().count();
        store_charge.add(&limiter.guest_info.memory, bytes, resources).map_err(reject_error)
    }

    /// Bytes that the host keeps for the guest: resources and bodies.
    pub fn held_bytes(&self) -> usize {
        self.store_charge.size() + self.unopened.charged()
    }

    /// Gives a flat guest a handle of a resource, and charges for it.
    pub fn give<T: ResourceKind>(&mut self, resource: Resource<T>) -> wasmtime::Result<u32> {
        let handle = self.canon.handles.put(resource)?;
        self.store_charge.note_handles(&self.limiter.guest_info.memory, self.canon.handles.peak());
        Ok(handle)
    }

    /// How many resources the table has.
    pub fn resources(&mut self) -> usize {
        self.table.iter_mut().count()
    }

    /// Resources that past requests have left behind, and bytes that the host keeps in them.
    pub fn leftovers(&mut self) -> (usize, usize) {
        let resources = self.resources();
        if resources == 0 {
            self.store_charge = StoreCharge::default();
        }
        (resources, self.store_charge.bytes())
    }

    /// Counts the resources every so often, before one more may be made.
    fn sample_resources(&mut self) {
        if self.store_charge.is_due() {
            let resources = self.resources();
            self.store_charge.note_handles(&self.limiter.guest_info.memory, resources);
        }
    }

    /// The hooks and the table, borrowed together.
    pub fn hooks_and_table(&mut self) -> (&mut dyn WasiHttpHooks, &mut ResourceTable) {
        (&mut self.hooks, &mut self.table)
    }

    /// Header fields that the guest cannot change.
    pub fn field_map(&mut self, fields: HeaderMap) -> FieldMap {
        FieldMap::new_immutable(&mut self.hooks, fields)
    }

    /// Header fields that the guest cannot change, as a resource.
    pub fn fields(&mut self, fields: HeaderMap) -> wasmtime::Result<Resource<FieldMap>> {
        let fields = self.field_map(fields);
        Ok(self.table.push(fields)?)
    }

    /// Logs the unfinished last lines of stdout and stderr.
    pub fn end_log(&self) {
        if let Some(log) = &self.log {
            log.with(LogSink::end);
        }
    }

    /// Makes the WASI state: the guest's environment, no arguments, files or sockets. stdout and
    /// stderr go to the log.
    fn make_wasi(&mut self) {
        let log = SharedSink::new(LogSink::new(self.limiter.guest_info.clone(), self.request));
        let mut builder = WasiCtx::builder();
        builder
            .stdout(log.stream("stdout"))
            .stderr(log.stream("stderr"))
            .envs(&self.limiter.guest_info.grants.variables.env)
            .max_random_size(RANDOM_BYTES_MAX);
        self.wasi = Some(Box::new(builder.build()));
        self.log = Some(log);
    }
}

/// However a call ends, its output is logged, and its bodies do not look complete.
impl Drop for ComponentState {
    fn drop(&mut self) {
        self.liveness.mark_dropped();
        self.hooks.abort_sends();
        self.end_log();
    }
}

impl WasiView for ComponentState {
    fn ctx(&mut self) -> WasiCtxView<'_> {
        if self.wasi.is_none() {
            self.make_wasi();
        }
        self.sample_resources();
        let ctx = self.wasi.as_mut().expect("it is made just above");
        WasiCtxView { ctx, table: &mut self.table }
    }
}

impl IoView for ComponentState {
    fn table(&mut self) -> &mut ResourceTable {
        self.sample_resources();
        &mut self.table
    }
}

impl WasiHttpView for ComponentState {
    fn http(&mut self) -> WasiHttpCtxView<'_> {
        self.sample_resources();
        WasiHttpCtxView { hooks: &mut self.hooks, table: &mut self.table, ctx: &mut self.http }
    }
}

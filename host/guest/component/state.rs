//! What a component's store holds: its limits, the resources that it has handles of, and what
//! little of WASI it is given.
//!
//! Owns every limit on what a guest may have the host keep. Knows nothing of pools or of the
//! network.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use http::HeaderName;
use wasmtime::Store;
use wasmtime::component::ResourceTable;
use wasmtime_wasi::{WasiCtx, WasiCtxView, WasiView};
use wasmtime_wasi_http::{
    DEFAULT_FORBIDDEN_HEADERS, Error, ForbiddenHeaderFilter, RequestOptions, WasiBody, WasiHttpCtx,
    WasiHttpCtxView, WasiHttpHooks, WasiHttpView,
};
use wasmtime_wasi_io::IoView;

use super::flat::Canon;
use crate::guest::About;
use crate::guest::engine::{QUANTUM_TICKS, TABLES_MAX};
use crate::guest::limiter::{Limiter, Parts};
use crate::guest::log::{LogSink, SharedSink};
use crate::message::RequestId;

/// What the store of a component may hold. A toolchain splits a component into a handful of core
/// instances, and a language runtime of shared libraries into some dozens.
const PARTS: Parts = Parts { instances: 100, tables: TABLES_MAX, memories: 2 };
/// Bytes that one host call may copy out of a guest as lists and strings.
pub const HOSTCALL_FUEL: usize = 4 << 20;
/// Handles that a guest may have open, and resources that the host keeps for it.
pub const HANDLES_MAX: usize = 1_000;
/// Bytes of one set of header fields, with what they take in memory.
const FIELD_BYTES_MAX: usize = 64 << 10;
/// Bytes of one call for random bytes.
const RANDOM_BYTES_MAX: u64 = 64 << 10;
/// Bytes of one write to a body, and how many writes wait to be sent on.
const CHUNK_BYTES_MAX: usize = 64 << 10;
const CHUNKS_MAX: usize = 1;

/// Tells whether a store is gone. What is behind its resources ends with them, a body as if it were
/// complete; so this is said before they are dropped.
#[derive(Clone, Default)]
pub struct Gone(Arc<AtomicBool>);

impl Gone {
    pub fn is_gone(&self) -> bool {
        self.0.load(Ordering::Acquire)
    }
}

/// The data of one component's store.
pub struct State {
    pub limiter: Limiter,
    pub gone: Gone,
    pub table: ResourceTable,
    /// What a flattened component's instance has, in the place of a component's.
    pub canon: Canon,
    http: WasiHttpCtx,
    hooks: Hooks,
    /// Made when the guest first asks for it.
    wasi: Option<Box<WasiCtx>>,
    /// Where stdout and stderr go; made with `wasi`.
    log: Option<SharedSink>,
    request: Option<RequestId>,
}

impl State {
    pub fn new(about: Arc<About>) -> Self {
        let mut table = ResourceTable::new();
        table.set_max_capacity(HANDLES_MAX);
        let mut http = WasiHttpCtx::new();
        http.set_field_size_limit(FIELD_BYTES_MAX);
        State {
            limiter: Limiter::new(about, PARTS),
            gone: Gone::default(),
            table,
            canon: Canon::default(),
            http,
            hooks: Hooks,
            wasi: None,
            log: None,
            request: None,
        }
    }

    /// A store in which guest code can run: limited, and yielding at every quantum.
    pub fn store(engine: &wasmtime::Engine, about: Arc<About>) -> Store<State> {
        let mut store = Store::new(engine, State::new(about));
        store.limiter(|state| &mut state.limiter);
        store.set_hostcall_fuel(HOSTCALL_FUEL);
        store.set_max_component_handles(HANDLES_MAX);
        // The callback owns nothing, so the box costs nothing.
        store.epoch_deadline_callback(|_| {
            let yielded = Box::pin(tokio::task::yield_now());
            Ok(wasmtime::UpdateDeadline::YieldCustom(QUANTUM_TICKS, yielded))
        });
        store.set_epoch_deadline(QUANTUM_TICKS);
        store
    }

    /// Takes up a request; without its id where the guest is at others, too.
    pub fn begin(&mut self, request: Option<RequestId>) {
        self.request = request;
        if let Some(log) = &self.log {
            log.with(|sink| sink.begin(request));
        }
    }

    /// Drops everything that belongs to the requests so far: the guest starts anew.
    pub fn forget(&mut self) {
        self.end_log();
        self.table = ResourceTable::new();
        self.table.set_max_capacity(HANDLES_MAX);
        self.canon.handles.clear();
        self.canon.pending = None;
        self.wasi = None;
        self.log = None;
        self.request = None;
    }

    /// Writes out what the guest has said without ending the line.
    pub fn end_log(&self) {
        if let Some(log) = &self.log {
            log.with(LogSink::end);
        }
    }

    /// WASI without arguments, environment, files and sockets; stdout and stderr go to the log.
    fn make_wasi(&mut self) {
        let log = SharedSink::new(LogSink::new(self.limiter.about.clone(), self.request));
        let mut builder = WasiCtx::builder();
        builder
            .stdout(log.stream("stdout"))
            .stderr(log.stream("stderr"))
            .max_random_size(RANDOM_BYTES_MAX);
        self.wasi = Some(Box::new(builder.build()));
        self.log = Some(log);
    }
}

/// What the guest has said is not lost, however its call ends.
impl Drop for State {
    fn drop(&mut self) {
        self.gone.0.store(true, Ordering::Release);
        self.end_log();
    }
}

impl WasiView for State {
    fn ctx(&mut self) -> WasiCtxView<'_> {
        if self.wasi.is_none() {
            self.make_wasi();
        }
        let ctx = self.wasi.as_mut().expect("it is made just above");
        WasiCtxView { ctx, table: &mut self.table }
    }
}

impl IoView for State {
    fn table(&mut self) -> &mut ResourceTable {
        &mut self.table
    }
}

impl WasiHttpView for State {
    fn http(&mut self) -> WasiHttpCtxView<'_> {
        WasiHttpCtxView { hooks: &mut self.hooks, table: &mut self.table, ctx: &mut self.http }
    }
}

/// What the host has a say in, of wasi:http.
struct Hooks;

type Sent = (http::Response<WasiBody>, Box<dyn Future<Output = Result<(), Error>> + Send>);

impl WasiHttpHooks for Hooks {
    fn is_forbidden_header(&mut self, name: &HeaderName) -> bool {
        DEFAULT_FORBIDDEN_HEADERS.contains(name)
    }

    fn forbidden_header_filter(&mut self) -> ForbiddenHeaderFilter {
        Arc::new(|name| DEFAULT_FORBIDDEN_HEADERS.contains(name))
    }

    fn send_request(
        &mut self,
        _request: http::Request<WasiBody>,
        _options: Option<RequestOptions>,
        _sent: Box<dyn Future<Output = Result<(), Error>> + Send>,
    ) -> Box<dyn Future<Output = Result<Sent, Error>> + Send> {
        Box::new(std::future::ready(Err(Error::HttpRequestDenied)))
    }

    fn p2_outgoing_body_buffer_chunks(&mut self) -> usize {
        CHUNKS_MAX
    }

    fn p2_outgoing_body_chunk_size(&mut self) -> usize {
        CHUNK_BYTES_MAX
    }

    fn p3_outgoing_body_chunk_size(&mut self) -> usize {
        CHUNK_BYTES_MAX
    }
}

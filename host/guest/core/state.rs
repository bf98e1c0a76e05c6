//! The data of a core guest's store: its limits, and the exchange of the current request.
//!
//! Owns the state behind the host functions. Knows nothing of pools or of the network.

use std::sync::Arc;

use bytes::Bytes;
use guesthouse_module::interrupt::PIECE_BYTES;
use guesthouse_module::limits::{MEMORIES_MAX, TABLES_MAX};
use http::{HeaderMap, StatusCode};
use wasmtime::Memory;
use wasmtime_wasi::p1::WasiP1Ctx;

use crate::guest::engine::guest_info::GuestInfo;
use crate::guest::engine::limiter::{Limiter, StoreItemLimits};
use crate::guest::services::buffer::Buffer;
use crate::guest::services::header_charge::HeaderCharge;
use crate::guest::services::log::{LogSink, SharedSink};
use crate::message::{Reject, Request, RequestBody};

/// Feature bit of `enable_features`: the host keeps the request's body that the guest reads.
pub const BUFFER_REQUEST: u32 = 1;
/// Feature bit: the guest gets the next handler's response whole, and may change it.
pub const BUFFER_RESPONSE: u32 = 2;
/// Feature bit: the guest sees trailers.
pub const TRAILERS: u32 = 4;
/// All feature bits that this host knows.
pub const FEATURES_KNOWN: u32 = BUFFER_REQUEST | BUFFER_RESPONSE | TRAILERS;

/// Items that a core guest's store may hold.
const PARTS: StoreItemLimits =
    StoreItemLimits { instances: 1, tables: TABLES_MAX, memories: MEMORIES_MAX };

/// Bytes that one WASI call may copy out of a guest as lists and strings, or search.
pub const HOSTCALL_FUEL: usize = 1 << 20;

/// The data of one core guest's store.
pub struct CoreState {
    /// The guest's memory, once the instance exists.
    pub memory: Option<Memory>,
    /// Feature bits enabled so far. What start-up code enables holds for every request.
    pub features: u32,
    /// Whether start-up code has read the environment, when it runs for a snapshot.
    pub reads_env: bool,
    /// Which of the guest's functions runs.
    pub phase: CallPhase,
    /// The current request and its response; `None` during start-up.
    pub exchange: Option<CoreExchange>,
    /// The memory that the store is charged for.
    pub limiter: Limiter,
    /// Where `log`, stdout and stderr go. Made when the guest first needs it.
    log: Option<SharedSink>,
    wasi: Option<Box<WasiP1Ctx>>,
}

/// Which of the guest's functions runs: what it may do depends on that.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CallPhase {
    /// `_start`, `_initialize` or the start function: there is no request.
    StartUp,
    /// `handle_request`.
    Request,
    /// `handle_response`.
    Response,
}

/// A request and the response that is being made for it.
pub struct CoreExchange {
    /// The request. A guest may change it until it passes it on.
    pub request: Box<Request>,
    /// What the guest has read of the request's body, if the host keeps it (`BUFFER_REQUEST`).
    pub request_buffer: Buffer,
    /// The request's body for the next handler, if the guest has written one.
    pub request_written: Option<Buffer>,
    /// The status of the response.
    pub status: StatusCode,
    /// The header fields of the response.
    pub headers: HeaderMap,
    /// The body of the response.
    pub body: CoreResponseBody,
    /// The response's trailers, if the guest has set some.
    pub trailers: Option<Box<HeaderMap>>,
    /// Bytes of header fields that the guest has set, by kind. An upper bound.
    pub header_bytes: [usize; 4],
    /// How many fields the request and the response had before the guest.
    pub fields_before: [usize; 2],
    /// The charge for what the host keeps because of the guest. Dropped last.
    pub header_charge: HeaderCharge,
}

/// The body of a response.
#[derive(Default)]
pub struct CoreResponseBody {
    /// What the guest has written. It replaces the next handler's body.
    pub written: Option<Buffer>,
    /// The next handler's body, for `read_body`.
    pub buffered: Bytes,
    /// How many bytes of it `read_body` has handed out.
    pub read_bytes: usize,
}

impl CoreExchange {
    /// The exchange before the guest has done anything. `headers` are those of the response.
    pub fn new(request: Box<Request>, headers: HeaderMap) -> Self {
        let fields_before = [request.headers.len(), headers.len()];
        CoreExchange {
            request,
            request_buffer: Buffer::default(),
            request_written: None,
            status: StatusCode::OK,
            headers,
            body: CoreResponseBody::default(),
            trailers: None,
            header_bytes: [0; 4],
            fields_before,
            header_charge: HeaderCharge::default(),
        }
    }

    /// The request for the next handler, and the response headers set so far, behind the charge for
    /// both. The request's body is what the guest has written; or what it has read, if that was
    /// kept (`BUFFER_REQUEST`), with the rest; or what it has not read.
    ///
    /// # Errors
    /// Those of reading a body, if the kept and the unread part have to be joined,
    /// [`Reject::BodyTooLarge`] and [`Reject::NoMemory`].
    pub async fn next_request(
        mut self,
        info: &GuestInfo,
    ) -> Result<(HeaderCharge, Box<Request>, HeaderMap), Reject> {
        if let Some(written) = self.request_written.take() {
            self.request.headers.remove(http::header::CONTENT_LENGTH);
            self.request.body = RequestBody::full(written.into_bytes());
        } else if !self.request_buffer.is_empty() {
            loop {
                let more = self.request.body.read(usize::MAX).await?;
                if more.is_empty() {
                    break;
                }
                self.buffer_request(info, &more)?;
            }
            self.request.body = RequestBody::full(self.request_buffer.into_bytes());
        }
        Ok((self.header_charge, self.request, self.headers))
    }

    /// Keeps a part of the request's body that was read (`BUFFER_REQUEST`).
    ///
    /// # Errors
    /// [`Reject::BodyTooLarge`] above `--body-max`, [`Reject::NoMemory`].
    pub fn buffer_request(&mut self, info: &GuestInfo, read: &[u8]) -> Result<(), Reject> {
        if (self.request_buffer.len() + read.len()) as u64 > info.grants.limits.buffered_bytes_max()
        {
            return Err(Reject::BodyTooLarge);
        }
        self.request_buffer.extend(&info.memory, read)
    }
}

impl CoreState {
    /// The state of a new store, with these feature bits.
    pub fn new(info: Arc<GuestInfo>, features: u32) -> Self {
        CoreState {
            memory: None,
            features,
            reads_env: false,
            phase: CallPhase::StartUp,
            exchange: None,
            limiter: Limiter::new(info, PARTS),
            log: None,
            wasi: None,
        }
    }

    /// The guest's WASI state, made when the guest first needs it: its environment, but no
    /// arguments, files or sockets. stdout and stderr go to the log.
    pub fn wasi(&mut self) -> &mut WasiP1Ctx {
        if self.wasi.is_none() {
            self.log();
        }
        let (log, env) = (&self.log, &self.limiter.guest_info.grants.variables.env);
        self.wasi.get_or_insert_with(|| {
            let log = log.as_ref().expect("the log is made just above");
            let mut builder = wasmtime_wasi::WasiCtxBuilder::new();
            builder
                .stdout(log.stream("stdout"))
                .stderr(log.stream("stderr"))
                .envs(env)
                // The loader has split calls that ask for more.
                .max_random_size(u64::from(PIECE_BYTES));
            Box::new(builder.build_p1())
        })
    }

    /// The log, under the guest's name and the id of the current request.
    pub fn log(&mut self) -> &SharedSink {
        let request = self.exchange.as_ref().map(|exchange| exchange.request.id);
        let info = &self.limiter.guest_info;
        self.log.get_or_insert_with(|| SharedSink::new(LogSink::new(info.clone(), request)))
    }

    /// Begins a request.
    pub fn begin(&mut self, exchange: CoreExchange) {
        if let Some(log) = &self.log {
            log.with(|sink| sink.begin(Some(exchange.request.id)));
        }
        self.exchange = Some(exchange);
    }

    /// Logs the unfinished last lines of stdout and stderr.
    pub fn end_log(&self) {
        if let Some(log) = &self.log {
            log.with(LogSink::end);
        }
    }

    /// Drops all that belongs to earlier requests, when an instance is reset.
    pub fn clear_exchange(&mut self) {
        self.exchange = None;
        self.wasi = None;
        self.log = None;
    }

    /// Bytes charged for what the host keeps for the request, without bodies.
    pub fn held_bytes(&self) -> usize {
        self.exchange.as_ref().map_or(0, |exchange| exchange.header_charge.charged())
    }

    /// The size of the guest's memories.
    pub fn memory_bytes(&self) -> usize {
        self.limiter.memory_bytes()
    }

    /// Whether a feature bit is enabled.
    pub fn has(&self, feature: u32) -> bool {
        self.features & feature != 0
    }
}

/// However a call ends, its output is logged.
impl Drop for CoreState {
    fn drop(&mut self) {
        self.end_log();
    }
}

//! What a core guest's store holds: the limits of its instance, and the exchange of the request
//! that it serves now.
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

/// Feature bits of `enable_features`.
pub const BUFFER_REQUEST: u32 = 1;
pub const BUFFER_RESPONSE: u32 = 2;
pub const TRAILERS: u32 = 4;
pub const FEATURES_KNOWN: u32 = BUFFER_REQUEST | BUFFER_RESPONSE | TRAILERS;

/// What the store of a core guest may hold.
const PARTS: StoreItemLimits =
    StoreItemLimits { instances: 1, tables: TABLES_MAX, memories: MEMORIES_MAX };

/// Bytes that one WASI call may copy out of a guest as lists and strings, or look through.
pub const HOSTCALL_FUEL: usize = 1 << 20;

/// The data of one core guest's store.
pub struct CoreState {
    /// The guest's memory, once it has been instantiated.
    pub memory: Option<Memory>,
    /// Features enabled so far; what start-up code enabled holds for every request.
    pub features: u32,
    /// Whether start-up code has read the environment, while a snapshot is made of it.
    pub reads_env: bool,
    pub phase: CallPhase,
    pub exchange: Option<CoreExchange>,
    pub limiter: Limiter,
    /// Where `log`, stdout and stderr go; made when the guest first says something.
    log: Option<SharedSink>,
    wasi: Option<Box<WasiP1Ctx>>,
}

/// What a guest may do now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CallPhase {
    /// `_start`, `_initialize` or the start function: there is no request.
    StartUp,
    /// `handle_request`.
    Request,
    /// `handle_response`.
    Response,
}

/// One request and the response that is being made for it.
pub struct CoreExchange {
    pub request: Box<Request>,
    /// The request's body as far as it has been kept (`BUFFER_REQUEST`).
    pub request_buffer: Buffer,
    /// What the guest wrote as the request's body for the next handler.
    pub request_written: Option<Buffer>,
    pub status: StatusCode,
    pub headers: HeaderMap,
    pub body: CoreResponseBody,
    /// What the guest set as the response's trailers.
    pub trailers: Option<Box<HeaderMap>>,
    /// Bytes of header fields that the guest has set, by kind; an upper bound.
    pub header_bytes: [usize; 4],
    /// How many fields there were before, of the request and of the response.
    pub fields_before: [usize; 2],
    /// What the guest has had the host keep. Dropped last.
    pub header_charge: HeaderCharge,
}

/// The response's body.
#[derive(Default)]
pub struct CoreResponseBody {
    /// What the guest wrote. It replaces what the next handler sent.
    pub written: Option<Buffer>,
    /// The next handler's, for `read_body`.
    pub buffered: Bytes,
    /// How much of it `read_body` has handed out.
    pub read_bytes: usize,
}

impl CoreExchange {
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

    /// The request as the next handler sees it, and the response headers set so far, behind what
    /// is charged for both. The request's body is what the guest wrote, or what it read put back in
    /// front (`BUFFER_REQUEST`), or what is left.
    ///
    /// # Errors
    /// The rejects of reading a body, where the kept and the unread part have to be joined,
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

    /// Keeps what has been read of the request's body (`BUFFER_REQUEST`).
    ///
    /// # Errors
    /// [`Reject::BodyTooLarge`], [`Reject::NoMemory`].
    pub fn buffer_request(&mut self, info: &GuestInfo, read: &[u8]) -> Result<(), Reject> {
        if (self.request_buffer.len() + read.len()) as u64 > info.grants.limits.buffered_bytes_max()
        {
            return Err(Reject::BodyTooLarge);
        }
        self.request_buffer.extend(&info.memory, read)
    }
}

impl CoreState {
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

    /// The guest's WASI state, made when the guest first asks for it: its environment, but no
    /// arguments, files or sockets; stdout and stderr go to the log.
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
                // The loader has divided calls for more.
                .max_random_size(u64::from(PIECE_BYTES));
            Box::new(builder.build_p1())
        })
    }

    /// The way to the log, under the guest's name and the id of the current request.
    pub fn log(&mut self) -> &SharedSink {
        let request = self.exchange.as_ref().map(|exchange| exchange.request.id);
        let info = &self.limiter.guest_info;
        self.log.get_or_insert_with(|| SharedSink::new(LogSink::new(info.clone(), request)))
    }

    /// Takes up a request.
    pub fn begin(&mut self, exchange: CoreExchange) {
        if let Some(log) = &self.log {
            log.with(|sink| sink.begin(Some(exchange.request.id)));
        }
        self.exchange = Some(exchange);
    }

    /// Writes out what the guest has said without ending the line.
    pub fn end_log(&self) {
        if let Some(log) = &self.log {
            log.with(LogSink::end);
        }
    }

    /// Drops everything that belongs to the requests so far: the guest starts anew.
    pub fn clear_exchange(&mut self) {
        self.exchange = None;
        self.wasi = None;
        self.log = None;
    }

    /// Bytes that are charged for what the host keeps for the request, beside bodies.
    pub fn held_bytes(&self) -> usize {
        self.exchange.as_ref().map_or(0, |exchange| exchange.header_charge.charged())
    }

    /// The size of its memories.
    pub fn memory_bytes(&self) -> usize {
        self.limiter.memory_bytes()
    }

    pub fn has(&self, feature: u32) -> bool {
        self.features & feature != 0
    }
}

/// What the guest has said is not lost, however its call ends.
impl Drop for CoreState {
    fn drop(&mut self) {
        self.end_log();
    }
}

//! One sandbox: a store and an instance in it; limits go in, a call runs, its outcome comes out.
//!
//! Owns the call. An instance is consumed by a call and comes back only if the
//! guest ended well, so that one which trapped or overran cannot be used again. Of the pool
//! it uses the lanes, and knows nothing of what is kept there.

use std::pin::pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::Instant;

use http::HeaderMap;
use wasmtime::{Global, PoolConcurrencyLimitError, Store, TypedFunc, WasmParams, WasmResults};

use super::call::{BUFFER_RESPONSE, Call, Exchange, Fault, Phase};
use super::engine::{Pulse, QUANTUM_TICKS};
use super::kept::Kept;
use super::lane::Movable;
use super::meter::Meter;
use super::reset::{Baseline, MEMORY_BYTES_MAX, RESETS_MAX};
use super::startup::{run_start, store};
use super::{About, Guest, Pool, Startup};
use crate::message::{Reject, Request, RequestId, Response, ResponseBody};

/// An instance that is ready for a request.
pub struct Instance {
    guest: Arc<Guest>,
    store: Store<Call>,
    instance: wasmtime::Instance,
    handle_request: TypedFunc<(), i64>,
    /// Looked up when it is needed first.
    handle_response: Option<Box<TypedFunc<(i32, i32), ()>>>,
    /// Features that its start-up code enabled.
    features: u32,
    /// Its mutable globals, where it can be reset.
    globals: Box<[Global]>,
    resets: u32,
}

/// How a guest ended: `None` if it answered, or if it passed the request on (`next`) the context
/// that goes back to it in `handle_response`.
pub type Passed = Option<i32>;

/// Where a function of an instance is, beside its store.
type Find<P, R> = for<'a> fn(&'a mut Instance) -> (&'a mut Store<Call>, &'a TypedFunc<P, R>);

/// How the next handler answered, for `handle_response`.
pub struct Answer {
    pub response: Response,
    /// Whether there was no answer but an error of the host.
    pub is_error: bool,
}

impl Instance {
    /// Makes an instance, running the guest's start-up code where that has to run each time.
    ///
    /// # Errors
    /// [`Reject::NoInstance`] where every slot is taken, [`Reject::NoMemory`] where there is no
    /// memory left, [`Reject::Trap`] or [`Reject::Deadline`] where the start-up code fails.
    pub async fn make(guest: Arc<Guest>, pool: &Pool) -> Result<Box<Instance>, Reject> {
        let about = guest.about.clone();
        let _running = pool.pulse().begin();
        let mut meter =
            Meter::new(&about.limits, Instant::now()).in_lanes(pool, guest.id).unnoted();
        let made = meter.call(Box::pin(Self::instantiate(guest))).await;
        made?.map_err(|error| {
            let reject = make_reject(&error);
            if !is_full(reject) {
                let why = describe(&error);
                tracing::warn!(target: "handler", guest = &*about.name, "could not start: {why}");
            }
            reject
        })
    }

    /// Makes an instance to see whether it can be made; `None` where there is no place for it.
    ///
    /// # Errors
    /// A sentence that says why not.
    pub async fn try_make(
        guest: Arc<Guest>,
        pulse: &Pulse,
    ) -> Result<Option<Box<Instance>>, String> {
        match Self::instantiate_metered(guest, pulse).await {
            Ok(Ok(instance)) => Ok(Some(instance)),
            Ok(Err(error)) if is_full(make_reject(&error)) => Ok(None),
            Ok(Err(error)) => Err(format!("its start-up failed: {}", describe(&error))),
            Err(reject) => Err(format!("its start-up did not end in time ({reject})")),
        }
    }

    /// Makes an instance of a guest that runs nothing at start-up; `None` where there is no place
    /// for it. Does not wait.
    ///
    /// # Errors
    /// A sentence that says why it cannot be made.
    pub fn try_now(guest: Arc<Guest>) -> Result<Option<Box<Instance>>, String> {
        match Self::instantiate_now(guest) {
            Ok(instance) => Ok(Some(instance)),
            Err(error) if is_full(make_reject(&error)) => Ok(None),
            Err(error) => Err(format!("an instance could not be made: {}", describe(&error))),
        }
    }

    /// Makes an instance of a guest that runs nothing at start-up. Does not wait.
    ///
    /// # Errors
    /// As [`Instance::make`].
    pub fn make_now(guest: Arc<Guest>) -> Result<Box<Instance>, Reject> {
        Self::instantiate_now(guest).map_err(|error| {
            let reject = make_reject(&error);
            if is_full(reject) {
                return reject;
            }
            tracing::error!("an instance could not be made: {}", describe(&error));
            Reject::NoInstance
        })
    }

    fn instantiate_now(guest: Arc<Guest>) -> wasmtime::Result<Box<Instance>> {
        let made = pin!(Self::instantiate(guest));
        match made.poll(&mut Context::from_waker(Waker::noop())) {
            Poll::Ready(made) => made,
            Poll::Pending => wasmtime::bail!("an instance without start-up code had to wait"),
        }
    }

    /// Makes an instance whose start-up code is held to the guest's deadline and CPU limit.
    async fn instantiate_metered(
        guest: Arc<Guest>,
        pulse: &Pulse,
    ) -> Result<wasmtime::Result<Box<Instance>>, Reject> {
        let about = guest.about.clone();
        let _running = pulse.begin();
        let mut meter = Meter::new(&about.limits, Instant::now());
        meter.run(pin!(Self::instantiate(guest))).await
    }

    async fn instantiate(guest: Arc<Guest>) -> wasmtime::Result<Box<Instance>> {
        let call = Call::new(guest.about.clone(), guest.features);
        let mut store = store(guest.pre.module().engine(), call);
        if !guest.runs_startup() {
            // Filling the memory is code, too, but bounded: it need not yield.
            store.set_epoch_deadline(u64::MAX / 2);
        }
        let instance = guest.pre.instantiate_async(&mut store).await?;
        let memory = instance.get_module_export(&mut store, &guest.exports.memory);
        store.data_mut().memory = memory.and_then(wasmtime::Extern::into_memory);
        if let Startup::Each { functions, .. } = &guest.startup {
            for function in functions {
                let function = export(&instance, &mut store, function).typed(&store)?;
                run_start(&mut store, &function).await?;
            }
            store.data().end_log();
        }
        let handle_request = export(&instance, &mut store, &guest.exports.handle_request);
        let handle_request = handle_request.typed(&store)?;
        let features = store.data().features;
        let global = |export| {
            let global = instance.get_module_export(&mut store, export);
            global.and_then(wasmtime::Extern::into_global).expect("it was exported at load")
        };
        let globals = guest.exports.globals.iter().map(global).collect();
        let (handle_response, resets) = (None, 0);
        Ok(Box::new(Instance {
            guest,
            store,
            instance,
            handle_request,
            handle_response,
            features,
            globals,
            resets,
        }))
    }

    /// The state in which it was made.
    pub fn baseline(&mut self) -> Option<Baseline> {
        let memory = self.store.data().memory?;
        Some(Baseline::read(&mut self.store, memory, &self.globals))
    }

    /// Puts an instance that ended well back into the state in which it was made. `is_warm` says
    /// that its guest was asked for just before, too.
    ///
    /// # Errors
    /// The instance is gone; a new one of this guest has to be made instead.
    pub fn reset(mut self: Box<Self>, is_warm: bool) -> Result<Box<Instance>, Arc<Guest>> {
        self.resets += 1;
        let restored = match (&self.guest.baseline, self.store.data().memory) {
            (Some(baseline), Some(memory)) if self.resets < RESETS_MAX => {
                baseline.restore(&mut self.store, memory, &self.globals, is_warm)
            }
            _ => false,
        };
        if !restored {
            return Err(self.guest);
        }
        self.store.data_mut().forget();
        Ok(self)
    }

    /// Bytes of its memories, as large as they have become.
    pub fn memory_bytes(&self) -> usize {
        self.store.data().memory_bytes()
    }

    pub fn guest(&self) -> &Arc<Guest> {
        &self.guest
    }

    /// Whether it has more memory than one that is reset.
    pub fn is_large(&self) -> bool {
        self.store.data().memory_bytes() as u64 > MEMORY_BYTES_MAX
    }

    /// Takes up a request; [`Instance::request`] is to follow. `headers` is an empty map to build
    /// the response in.
    pub fn accept(&mut self, request: Box<Request>, headers: HeaderMap) {
        let call = self.store.data_mut();
        call.features = self.features;
        call.phase = Phase::Request;
        call.begin(Exchange::new(request, headers));
    }

    /// Lets the guest handle the request that it was given; [`Instance::respond`] or
    /// [`Instance::next_request`] is to follow. The call may move to another thread while it runs.
    ///
    /// # Errors
    /// The instance is gone, and the reject says what the client is told. If the future is
    /// dropped, the call ends and the instance is gone too.
    // A block and not an async fn: that would hold its arguments twice, and every idle connection
    // has room for this future.
    pub fn request(
        self: Box<Self>,
        meter: &mut Meter<'_>,
        pool: &Pool,
    ) -> impl Future<Output = Result<(Box<Instance>, Passed), Reject>> {
        let called = self.enter(|it| (&mut it.store, &it.handle_request), (), meter, pool);
        async move {
            let (instance, result) = called.await?;
            // The low half says "next", the high half is the context.
            let passed = if result as i32 == 0 { None } else { Some((result >> 32) as i32) };
            Ok((instance, passed))
        }
    }

    /// Calls one of the guest's functions, in the lanes. To clone it would cost as much as to enter
    /// it.
    fn enter<P: WasmParams + Sync + 'static, R: WasmResults + Sync + 'static>(
        mut self: Box<Self>,
        function: Find<P, R>,
        params: P,
        meter: &mut Meter<'_>,
        pool: &Pool,
    ) -> impl Future<Output = Result<(Box<Instance>, R), Reject>> {
        self.store.set_epoch_deadline(QUANTUM_TICKS);
        let guest = self.guest.id;
        let request = self.store.data().exchange.as_ref().map(|exchange| exchange.request.id);
        let call: Movable<(Box<Instance>, wasmtime::Result<R>)> = Box::pin(async move {
            let (store, function) = function(&mut self);
            let result = function.call_async(store, params).await;
            (self, result)
        });
        async move {
            let running = pool.pulse().begin();
            let ended = meter.call(call).await;
            drop(running);
            match ended {
                Ok((mut instance, result)) => match instance.judge(result) {
                    Ok(result) => Ok((instance, result)),
                    Err(reject) => {
                        pool.dispose(instance);
                        Err(reject)
                    }
                },
                Err(reject) => {
                    if let Some(about) = pool.about(guest) {
                        log_end(&about, request, format_args!("{reject}"));
                    }
                    Err(reject)
                }
            }
        }
    }

    /// The response that the guest has made. The map is the request's, for its room to be used
    /// again.
    pub fn respond(&mut self) -> (Response, HeaderMap) {
        let mut exchange = self.take_exchange();
        let spare = std::mem::take(&mut exchange.request.headers);
        (respond(exchange), spare)
    }

    /// The request that the guest has passed on, and what it had set on the response before.
    ///
    /// # Errors
    /// The rejects of reading a request's body.
    pub async fn next_request(
        &mut self,
        meter: &mut Meter<'_>,
    ) -> Result<(Box<Request>, HeaderMap), Reject> {
        let exchange = self.take_exchange();
        let mut next = Box::pin(exchange.next_request(&self.guest.about.memory));
        meter.run(next.as_mut()).await?
    }

    /// Whether the guest wants to see the next handler's response.
    pub fn wants_response(&self) -> bool {
        self.guest.exports.handle_response.is_some()
    }

    /// Whether it wants that response whole (`buffer_response`).
    pub fn buffers_response(&self) -> bool {
        self.wants_response() && self.store.data().has(BUFFER_RESPONSE)
    }

    /// Lets the guest see, and with `buffer_response` change, the next handler's response.
    /// `request` is what is left of the request, for the guest to look at.
    ///
    /// # Errors
    /// As [`Instance::request`].
    pub async fn response(
        mut self: Box<Self>,
        request: Box<Request>,
        answer: Answer,
        context: i32,
        meter: &mut Meter<'_>,
        pool: &Pool,
    ) -> Result<(Box<Instance>, Response), Reject> {
        if !self.find_handle_response() {
            return Ok((self, answer.response));
        }
        let buffered = self.buffers_response();
        let is_error = i32::from(answer.is_error);
        let (exchange, stream) = answered(request, answer.response, buffered);
        let call = self.store.data_mut();
        call.phase = Phase::Response;
        call.begin(exchange);
        let params = (context, is_error);
        let function: Find<_, _> =
            |it| (&mut it.store, it.handle_response.as_ref().expect("it was found just now"));
        let (mut instance, ()) = self.enter(function, params, meter, pool).await?;
        let response = respond(instance.take_exchange());
        Ok(match stream {
            Some(body) => (instance, Response { body, ..response }),
            None => (instance, response),
        })
    }

    fn find_handle_response(&mut self) -> bool {
        if self.handle_response.is_none()
            && let Some(index) = &self.guest.exports.handle_response
        {
            let function = export(&self.instance, &mut self.store, index);
            self.handle_response = function.typed(&self.store).ok().map(Box::new);
        }
        self.handle_response.is_some()
    }

    fn take_exchange(&mut self) -> Exchange {
        let call = self.store.data_mut();
        call.end_log();
        call.exchange.take().expect("the exchange was put there for this call")
    }

    /// Sorts out how a call ended; a bad end is logged here, once.
    fn judge<T>(&mut self, result: wasmtime::Result<T>) -> Result<T, Reject> {
        let call = self.store.data();
        let error = match result {
            Ok(value) => {
                if call.about.health.note_good() {
                    let guest = &*call.about.name;
                    tracing::info!(target: "handler", guest, "answers again");
                }
                return Ok(value);
            }
            Err(error) => error,
        };
        call.end_log();
        let reject = fault_reject(&error);
        if !matches!(error.downcast_ref(), Some(Fault::Reject(_))) {
            let request = call.exchange.as_ref().map(|exchange| exchange.request.id);
            log_end(&call.about, request, format_args!("{}", describe(&error)));
        }
        if reject == Reject::Trap
            && let Some(pause) = call.about.health.note_trap()
        {
            let guest = &*call.about.name;
            tracing::warn!(
                target: "handler",
                guest,
                "has trapped time and again without one good answer; its requests are refused \
                 but for one now and then, the first in {pause:?}, until that is answered or its \
                 file is replaced"
            );
        }
        Err(reject)
    }
}

/// Says in the log how a call ended badly.
fn log_end(about: &About, request: Option<RequestId>, why: std::fmt::Arguments<'_>) {
    let request = request.map(tracing::field::display);
    tracing::warn!(target: "handler", guest = &*about.name, request, "stopped: {why}");
}

/// An export that was found when the guest was loaded.
fn export(
    instance: &wasmtime::Instance,
    store: &mut Store<Call>,
    export: &wasmtime::ModuleExport,
) -> wasmtime::Func {
    let item = instance.get_module_export(store, export);
    item.and_then(wasmtime::Extern::into_func).expect("its type was checked at load")
}

/// The exchange for `handle_response`, and the body which passes by the guest.
fn answered(
    request: Box<Request>,
    response: Response,
    buffered: bool,
) -> (Exchange, Option<ResponseBody>) {
    let mut exchange = Exchange::new(request, response.headers);
    exchange.status = response.status;
    match response.body {
        ResponseBody::Full(bytes) if buffered => exchange.body.buffered = bytes,
        ResponseBody::Trailed(bytes, trailers) if buffered => {
            exchange.body.buffered = bytes;
            exchange.trailers = Some(trailers);
        }
        body => return (exchange, Some(body)),
    }
    (exchange, None)
}

/// The response that a guest has built.
fn respond(exchange: Exchange) -> Response {
    let Exchange { status, headers, body, trailers, .. } = exchange;
    let bytes = body.written.map_or(body.buffered, Kept::into_bytes);
    let body = match trailers {
        None => ResponseBody::Full(bytes),
        Some(trailers) => ResponseBody::Trailed(bytes, trailers),
    };
    Response { status, headers, body }
}

/// What the client is told when an instance could not be made.
fn make_reject(error: &wasmtime::Error) -> Reject {
    if error.is::<PoolConcurrencyLimitError>() { Reject::NoInstance } else { fault_reject(error) }
}

/// Whether an instance could not be made for want of a place or of memory: nobody's fault.
fn is_full(reject: Reject) -> bool {
    matches!(reject, Reject::NoInstance | Reject::NoMemory)
}

/// What the client is told about an error that stopped a guest.
fn fault_reject(error: &wasmtime::Error) -> Reject {
    match error.downcast_ref() {
        Some(Fault::Reject(reject)) => *reject,
        Some(Fault::Invalid(_)) => Reject::InvalidResponse,
        Some(Fault::Misuse(_)) | None => Reject::Trap,
    }
}

/// An error of the engine as one line for the log: the cause first, then where it happened. Names
/// in it come from the module, so it is escaped and bounded.
pub fn describe(error: &wasmtime::Error) -> String {
    const BYTES_MAX: usize = 2 * 1024;
    let cause = error.root_cause().to_string();
    let place = error.downcast_ref::<wasmtime::WasmBacktrace>().map(place).unwrap_or_default();
    crate::log::escape(format!("{cause}{place}").as_bytes(), BYTES_MAX)
}

/// The innermost functions of a backtrace.
fn place(backtrace: &wasmtime::WasmBacktrace) -> String {
    const FRAMES_MAX: usize = 8;
    let frames = backtrace.frames().iter().take(FRAMES_MAX).map(|frame| match frame.func_name() {
        Some(name) => name.to_owned(),
        None => format!("function {}", frame.func_index()),
    });
    let frames: Vec<String> = frames.collect();
    if frames.is_empty() { String::new() } else { format!(", in {}", frames.join(" < ")) }
}

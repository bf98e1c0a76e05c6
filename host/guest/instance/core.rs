//! A core guest's sandbox: a store with an instance, and the calls of the http-wasm ABI.
//!
//! Owns the call. It consumes the instance, and returns it only if the guest ended well: one that
//! has trapped or was stopped cannot be used again.

use std::sync::Arc;

use http::HeaderMap;
use wasmtime::{Global, ModuleExport, Store, TypedFunc, WasmParams, WasmResults};

use super::guest::Guest;
use crate::guest::core::code::{CoreCode, Startup};
use crate::guest::core::state::{BUFFER_RESPONSE, CallPhase, CoreExchange, CoreState};
use crate::guest::core::store::{run_start, store};
use crate::guest::engine::outcomes::{log_stopped, resolve_outcome};
use crate::guest::engine::reset::{Baseline, RESETS_MAX};
use crate::guest::schedule::QUANTUM_TICKS;
use crate::guest::schedule::{BoxedCall, DropCost, Meter, Scheduler};
use crate::guest::services::buffer::Buffer;
use crate::guest::services::header_charge::HeaderCharge;
use crate::message::fields::compact;
use crate::message::{Reject, Request, Response, ResponseBody};

/// A core instance that is ready for a request.
pub struct CoreInstance {
    guest: Arc<Guest>,
    store: Store<CoreState>,
    instance: wasmtime::Instance,
    handle_request: TypedFunc<(), i64>,
    /// The export `handle_response`, if the guest has it. Looked up when it is first needed.
    response_export: Option<ModuleExport>,
    handle_response: Option<Box<TypedFunc<(i32, i32), ()>>>,
    /// Feature bits that its start-up code has enabled.
    features: u32,
    /// The mutable globals, if the instance can be reset.
    globals: Box<[Global]>,
    resets: u32,
}

/// `None` if the guest answered. If it passed the request on (`next`): the context that it wants
/// back in `handle_response`.
pub type NextContext = Option<i32>;

/// Borrows a function of an instance together with its store.
type ExportGetter<P, R> =
    for<'a> fn(&'a mut CoreInstance) -> (&'a mut Store<CoreState>, &'a TypedFunc<P, R>);

/// The next handler's answer, for `handle_response`.
pub struct NextResponse {
    /// The next handler's response, or the host's own in its place.
    pub response: Response,
    /// Whether there was no answer, but an error of the host.
    pub is_error: bool,
    /// The charge for what the guest had set before it passed the request on.
    pub held: HeaderCharge,
}

impl CoreInstance {
    /// Makes an instance, and runs the start-up code if that has to run each time.
    ///
    /// # Errors
    /// Those of the engine, and a trap of its start-up code.
    pub async fn instantiate(
        guest: &Arc<Guest>,
        code: &CoreCode,
    ) -> wasmtime::Result<Box<CoreInstance>> {
        let call = CoreState::new(guest.info.clone(), code.features);
        let mut store = store(code.pre.module().engine(), call);
        store.data_mut().limiter.charge_instance(guest.cost(), 1)?;
        if !guest.runs_startup() {
            // Initialising the memory is code, too, but bounded: it need not yield.
            store.set_epoch_deadline(u64::MAX / 2);
        }
        let instance = code.pre.instantiate_async(&mut store).await?;
        let memory = instance.get_module_export(&mut store, &code.exports.memory);
        store.data_mut().memory = memory.and_then(wasmtime::Extern::into_memory);
        if let Startup::Each { functions, .. } = &code.startup {
            for function in functions {
                let function = export(&instance, &mut store, function).typed(&store)?;
                run_start(&mut store, &function).await?;
            }
            store.data().end_log();
        }
        let handle_request = export(&instance, &mut store, &code.exports.handle_request);
        let handle_request = handle_request.typed(&store)?;
        let features = store.data().features;
        let global = |export| {
            let global = instance.get_module_export(&mut store, export);
            global.and_then(wasmtime::Extern::into_global).expect("it was exported at load")
        };
        let globals = code.exports.globals.iter().map(global).collect();
        let (handle_response, resets) = (None, 0);
        Ok(Box::new(CoreInstance {
            guest: guest.clone(),
            store,
            instance,
            handle_request,
            response_export: code.exports.handle_response,
            handle_response,
            features,
            globals,
            resets,
        }))
    }

    /// The state in which it was made; `None` if it has no memory.
    pub fn baseline(&mut self) -> Option<Baseline> {
        let memory = self.store.data().memory?;
        Some(Baseline::read(&mut self.store, memory, &self.globals))
    }

    /// Resets an instance that ended well to the state in which it was made. `is_warm` says that
    /// its memory is likely to be in a cache.
    ///
    /// # Errors
    /// The instance is gone. A new one of this guest has to be made instead.
    pub fn reset(mut self: Box<Self>, is_warm: bool) -> Result<Box<CoreInstance>, Arc<Guest>> {
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
        self.store.data_mut().clear_exchange();
        Ok(self)
    }

    /// Whether it is to serve no more requests, under reuse. Never: requests leave things behind
    /// only in the guest's memory, which is bounded.
    pub fn is_spent(&self) -> bool {
        false
    }

    /// Bytes of its memories at their present size.
    pub fn memory_bytes(&self) -> usize {
        self.store.data().memory_bytes()
    }

    /// The guest that it is an instance of.
    pub fn guest(&self) -> &Arc<Guest> {
        &self.guest
    }

    /// Begins a request; [`CoreInstance::request`] has to follow. `headers` is an empty map to
    /// build the response in.
    pub fn accept(&mut self, request: Box<Request>, headers: HeaderMap) {
        let call = self.store.data_mut();
        call.features = self.features;
        call.phase = CallPhase::Request;
        call.begin(CoreExchange::new(request, headers));
    }

    /// Calls `handle_request`. Then [`CoreInstance::respond`] or [`CoreInstance::next_request`] has
    /// to follow. The call may move to another thread while it runs.
    ///
    /// # Errors
    /// The reject says what the client is told. The instance is gone. Dropping the future ends the
    /// call and the instance, too.
    // Not an async fn: it would hold its arguments twice, and each idle connection reserves room
    // for this future.
    pub fn request(
        self: Box<Self>,
        meter: &mut Meter<'_>,
        schedule: &Scheduler,
    ) -> impl Future<Output = Result<(Box<CoreInstance>, NextContext), Reject>> {
        let called =
            self.call_export(|it| (&mut it.store, &it.handle_request), (), meter, schedule);
        async move {
            let (instance, result) = called.await?;
            // The low half says "next", the high half is the context.
            let passed = if result as i32 == 0 { None } else { Some((result >> 32) as i32) };
            Ok((instance, passed))
        }
    }

    /// Calls an export, in the lanes. `function` borrows it: cloning it would cost as much as a
    /// call.
    fn call_export<P: WasmParams + Sync + 'static, R: WasmResults + Sync + 'static>(
        mut self: Box<Self>,
        function: ExportGetter<P, R>,
        params: P,
        meter: &mut Meter<'_>,
        schedule: &Scheduler,
    ) -> impl Future<Output = Result<(Box<CoreInstance>, R), Reject>> {
        self.store.set_epoch_deadline(QUANTUM_TICKS);
        // If the call is stopped, the instance is gone with it.
        let about = schedule.shared_info(self.guest.id, &self.guest.info);
        let request = self.store.data().exchange.as_ref().map(|exchange| {
            meter.pause_for_body(exchange.request.body.progress());
            exchange.request.id
        });
        let call: BoxedCall<(Box<CoreInstance>, wasmtime::Result<R>)> = Box::pin(async move {
            let (store, function) = function(&mut self);
            let result = function.call_async(store, params).await;
            (self, result)
        });
        async move {
            let running = schedule.ticker().begin();
            let ended = meter.call(call).await;
            drop(running);
            match ended {
                Ok((instance, result)) => {
                    if result.is_err() {
                        instance.store.data().end_log();
                    }
                    match resolve_outcome(&instance.guest.info, request, result) {
                        Ok(result) => Ok((instance, result)),
                        Err(reject) => {
                            schedule.drop_or_defer(instance);
                            Err(reject)
                        }
                    }
                }
                Err(reject) => {
                    log_stopped(&about, request, format_args!("{reject}"));
                    Err(reject)
                }
            }
        }
    }

    /// The response that the guest has made. The map is the request's, to be reused, unless it is
    /// so large that it was charged.
    pub fn respond(&mut self) -> (Response, HeaderMap) {
        let mut exchange = self.take_exchange();
        let mut spare = HeaderMap::new();
        if exchange.header_charge.charged() == 0 {
            std::mem::swap(&mut spare, &mut exchange.request.headers);
        }
        (into_response(exchange), spare)
    }

    /// The request that the guest has passed on, and the response headers that it has set so far,
    /// behind the charge for both.
    ///
    /// # Errors
    /// Those of reading a request's body.
    pub async fn next_request(
        &mut self,
        meter: &mut Meter<'_>,
    ) -> Result<(HeaderCharge, Box<Request>, HeaderMap), Reject> {
        let exchange = self.take_exchange();
        let id = exchange.request.id;
        let about = &self.guest.info;
        let mut next = Box::pin(exchange.next_request(about));
        let next = meter.run(next.as_mut()).await;
        next.inspect_err(|reject| log_stopped(about, Some(id), format_args!("{reject}")))?
    }

    /// Whether the guest wants to see the next handler's response.
    pub fn wants_response(&self) -> bool {
        self.response_export.is_some()
    }

    /// Whether it wants that response whole (`buffer_response`), so that it can change it.
    pub fn buffers_response(&self) -> bool {
        self.wants_response() && self.store.data().has(BUFFER_RESPONSE)
    }

    /// Calls `handle_response` with the next handler's response. `request` is what is left of the
    /// request, for the guest to look at.
    ///
    /// # Errors
    /// As [`CoreInstance::request`].
    pub async fn response(
        mut self: Box<Self>,
        request: Box<Request>,
        answer: NextResponse,
        context: i32,
        meter: &mut Meter<'_>,
        schedule: &Scheduler,
    ) -> Result<(Box<CoreInstance>, Response), Reject> {
        if !self.find_handle_response() {
            return Ok((self, answer.response));
        }
        let buffered = self.buffers_response();
        let is_error = i32::from(answer.is_error);
        let (mut exchange, stream) = response_exchange(request, answer.response, buffered);
        exchange.header_charge = answer.held;
        exchange.header_charge.carry_over();
        let call = self.store.data_mut();
        call.phase = CallPhase::Response;
        call.begin(exchange);
        let params = (context, is_error);
        let function: ExportGetter<_, _> =
            |it| (&mut it.store, it.handle_response.as_ref().expect("it was found just now"));
        let (mut instance, ()) = self.call_export(function, params, meter, schedule).await?;
        let response = into_response(instance.take_exchange());
        Ok(match stream {
            Some(body) => (instance, Response { body, ..response }),
            None => (instance, response),
        })
    }

    fn find_handle_response(&mut self) -> bool {
        if self.handle_response.is_none()
            && let Some(index) = &self.response_export
        {
            let function = export(&self.instance, &mut self.store, index);
            self.handle_response = function.typed(&self.store).ok().map(Box::new);
        }
        self.handle_response.is_some()
    }

    fn take_exchange(&mut self) -> CoreExchange {
        let call = self.store.data_mut();
        call.end_log();
        call.exchange.take().expect("the exchange was put there for this call")
    }
}

impl DropCost for CoreInstance {
    fn bytes(&self) -> usize {
        self.memory_bytes() + self.store.data().held_bytes()
    }
}

/// Looks up a function that the guest had when it was loaded.
fn export(
    instance: &wasmtime::Instance,
    store: &mut Store<CoreState>,
    export: &ModuleExport,
) -> wasmtime::Func {
    let item = instance.get_module_export(store, export);
    item.and_then(wasmtime::Extern::into_func).expect("its type was checked at load")
}

/// The exchange for `handle_response`, and the body if it bypasses the guest.
fn response_exchange(
    request: Box<Request>,
    response: Response,
    buffered: bool,
) -> (CoreExchange, Option<ResponseBody>) {
    let mut exchange = CoreExchange::new(request, response.headers);
    exchange.status = response.status;
    match response.body {
        ResponseBody::Full(bytes) if buffered => exchange.body.buffered = bytes,
        ResponseBody::WithTrailers(bytes, trailers) if buffered => {
            exchange.body.buffered = bytes;
            exchange.trailers = Some(trailers);
        }
        body => return (exchange, Some(body)),
    }
    (exchange, None)
}

/// The response that a guest has made.
fn into_response(exchange: CoreExchange) -> Response {
    let CoreExchange { request, status, mut headers, body, mut trailers, header_charge, .. } =
        exchange;
    if header_charge.charged() > 0 {
        // They outlive the request, so the room of removed fields is given back.
        compact(&mut headers);
        trailers.as_deref_mut().into_iter().for_each(compact);
        header_charge.drop_with(request.headers);
    }
    let bytes = body.written.map_or(body.buffered, Buffer::into_bytes);
    let body = match trailers {
        None => ResponseBody::Full(bytes),
        Some(trailers) => ResponseBody::WithTrailers(bytes, trailers),
    };
    Response { status, headers, body }
}

//! One sandbox: a store and an instance in it; limits go in, a call runs, its outcome comes out.
//!
//! Owns the call and its deadline. An instance is consumed by a call and comes back only if the
//! guest ended well, so that one which trapped or overran cannot be used again. Knows nothing of
//! where instances are kept.

use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::HeaderMap;
use wasmtime::{PoolConcurrencyLimitError, Store, TypedFunc};

use super::call::{BUFFER_RESPONSE, Call, Exchange, Fault, Phase};
use super::engine::{Pulse, QUANTUM_TICKS};
use super::startup::{run_start, store};
use super::{Guest, Startup};
use crate::config::Limits;
use crate::message::{Reject, Request, Response, ResponseBody};

/// An instance that is ready for a request.
pub struct Instance {
    guest: Arc<Guest>,
    store: Store<Call>,
    handle_request: TypedFunc<(), i64>,
    handle_response: Option<TypedFunc<(i32, i32), ()>>,
}

/// What a guest made of a request.
pub enum Outcome {
    /// It answered. The map is the request's, for its room to be used again.
    Respond(Response, HeaderMap),
    /// It passed the request on (`next`).
    Next(Box<Next>),
}

/// A request that a guest has passed on.
pub struct Next {
    pub request: Request,
    /// What the guest had set on the response before.
    pub headers: HeaderMap,
    /// Goes back to the guest in `handle_response`.
    pub context: i32,
}

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
    /// [`Reject::NoInstance`] where every slot is taken, [`Reject::Trap`] or
    /// [`Reject::Deadline`] where the start-up code fails.
    pub async fn make(guest: Arc<Guest>, pulse: &Pulse) -> Result<Instance, Reject> {
        let (limits, name) = (guest.limits.clone(), guest.name.clone());
        let running = guest.runs_startup().then(|| pulse.begin());
        let mut meter = Meter::new(&limits, Instant::now());
        let made = meter.run(Self::instantiate(guest)).await;
        drop(running);
        made?.map_err(|error| {
            if error.is::<PoolConcurrencyLimitError>() {
                return Reject::NoInstance;
            }
            tracing::warn!(target: "guest", guest = &*name, "could not start: {}", describe(&error));
            fault_reject(&error)
        })
    }

    /// Makes an instance to see whether it can be made.
    ///
    /// # Errors
    /// A sentence that says why not.
    pub async fn try_make(guest: Arc<Guest>, pulse: &Pulse) -> Result<(), String> {
        let limits = guest.limits.clone();
        let running = pulse.begin();
        let made = Meter::new(&limits, Instant::now()).run(Self::instantiate(guest)).await;
        drop(running);
        match made {
            Ok(Ok(_)) => Ok(()),
            Ok(Err(error)) if error.is::<PoolConcurrencyLimitError>() => Ok(()),
            Ok(Err(error)) => Err(format!("its start-up failed: {}", describe(&error))),
            Err(reject) => Err(format!("its start-up did not end in time ({reject})")),
        }
    }

    /// Makes an instance of a guest that runs nothing at start-up. Does not wait.
    ///
    /// # Errors
    /// As [`Instance::make`].
    pub fn make_now(guest: Arc<Guest>) -> Result<Instance, Reject> {
        let made = pin!(Self::instantiate(guest));
        match made.poll(&mut Context::from_waker(Waker::noop())) {
            Poll::Ready(made) => made.map_err(|error| {
                if error.is::<PoolConcurrencyLimitError>() {
                    return Reject::NoInstance;
                }
                tracing::error!("could not make an instance: {}", describe(&error));
                Reject::NoInstance
            }),
            Poll::Pending => unreachable!("only start-up code can wait, and there is none"),
        }
    }

    async fn instantiate(guest: Arc<Guest>) -> wasmtime::Result<Instance> {
        let call = Call::new(guest.name.clone(), guest.limits.clone(), guest.features);
        let mut store = store(guest.pre.module().engine(), call);
        let instance = guest.pre.instantiate_async(&mut store).await?;
        let exports = &guest.exports;
        let memory = instance.get_module_export(&mut store, &exports.memory);
        store.data_mut().memory = memory.and_then(wasmtime::Extern::into_memory);
        if let Startup::Each { functions, .. } = &guest.startup {
            for function in functions {
                let function = instance.get_module_export(&mut store, function);
                let function = function.and_then(wasmtime::Extern::into_func);
                let function = function.expect("the export was found at load").typed(&store)?;
                run_start(&mut store, &function).await?;
            }
            store.data().end_log();
        }
        let mut function = |export| {
            let function = instance.get_module_export(&mut store, export);
            function.and_then(wasmtime::Extern::into_func).expect("the export was found at load")
        };
        let handle_request = function(&exports.handle_request);
        let handle_response = exports.handle_response.as_ref().map(function);
        Ok(Instance {
            handle_request: handle_request.typed(&store)?,
            handle_response: handle_response.map(|function| function.typed(&store)).transpose()?,
            store,
            guest,
        })
    }

    pub fn guest(&self) -> &Arc<Guest> {
        &self.guest
    }

    /// Lets the guest handle a request. `headers` is an empty map to build the response in.
    ///
    /// # Errors
    /// The instance is gone, and the reject says what the client is told. If the future is
    /// dropped, the call ends and the instance is gone too.
    pub async fn request(
        mut self,
        request: Request,
        headers: HeaderMap,
        meter: &mut Meter<'_>,
        pulse: &Pulse,
    ) -> Result<(Instance, Outcome), Reject> {
        let call = self.store.data_mut();
        call.features = self.guest.features;
        call.phase = Phase::Request;
        call.begin(Exchange::new(request, headers));
        self.store.set_epoch_deadline(QUANTUM_TICKS);
        let running = pulse.begin();
        let result = meter.run(self.handle_request.call_async(&mut self.store, ())).await;
        drop(running);
        let result = self.judge(result)?;
        let next = result as i32;
        let context = (result >> 32) as i32;
        let mut exchange = self.take_exchange();
        if next == 0 {
            let spare = std::mem::take(&mut exchange.request.headers);
            return Ok((self, Outcome::Respond(respond(exchange), spare)));
        }
        let (request, headers) = meter.run(exchange.next_request()).await??;
        Ok((self, Outcome::Next(Box::new(Next { request, headers, context }))))
    }

    /// Whether the guest wants to see the next handler's response.
    pub fn wants_response(&self) -> bool {
        self.handle_response.is_some()
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
        mut self,
        request: Request,
        answer: Answer,
        context: i32,
        meter: &mut Meter<'_>,
        pulse: &Pulse,
    ) -> Result<(Instance, Response), Reject> {
        let Some(handle_response) = self.handle_response.clone() else {
            return Ok((self, answer.response));
        };
        let buffered = self.buffers_response();
        let Answer { response, is_error } = answer;
        let mut exchange = Exchange::new(request, response.headers);
        exchange.status = response.status;
        let mut stream = None;
        match response.body {
            ResponseBody::Full(bytes) if buffered => exchange.body.bytes = bytes.into(),
            ResponseBody::Trailed(bytes, trailers) if buffered => {
                exchange.body.bytes = bytes.into();
                exchange.trailers = *trailers;
            }
            body => stream = Some(body),
        }
        let call = self.store.data_mut();
        call.phase = Phase::Response;
        call.begin(exchange);
        self.store.set_epoch_deadline(QUANTUM_TICKS);
        let running = pulse.begin();
        let arguments = (context, i32::from(is_error));
        let result = meter.run(handle_response.call_async(&mut self.store, arguments)).await;
        drop(running);
        self.judge(result)?;
        let mut exchange = self.take_exchange();
        match stream {
            Some(body) => {
                let (status, headers) = (exchange.status, std::mem::take(&mut exchange.headers));
                Ok((self, Response { status, headers, body }))
            }
            None => Ok((self, respond(exchange))),
        }
    }

    fn take_exchange(&mut self) -> Exchange {
        let call = self.store.data_mut();
        call.end_log();
        call.exchange.take().expect("the exchange was put there for this call")
    }

    /// Sorts out how a call ended; a bad end is logged here, once.
    fn judge<T>(&mut self, result: Result<wasmtime::Result<T>, Reject>) -> Result<T, Reject> {
        let error = match result {
            Ok(Ok(value)) => return Ok(value),
            Ok(Err(error)) => error,
            Err(reject) => {
                self.log_end(format_args!("{reject}"));
                return Err(reject);
            }
        };
        let reject = fault_reject(&error);
        if !matches!(error.downcast_ref(), Some(Fault::Reject(_))) {
            self.log_end(format_args!("{}", describe(&error)));
        }
        Err(reject)
    }

    fn log_end(&self, why: std::fmt::Arguments<'_>) {
        let call = self.store.data();
        call.end_log();
        let request = call.exchange.as_ref().map(|exchange| exchange.request.id);
        let request = request.map(tracing::field::display);
        tracing::warn!(target: "guest", guest = &*self.guest.name, request, "stopped: {why}");
    }
}

/// The response that a guest has built.
fn respond(exchange: Exchange) -> Response {
    let Exchange { status, headers, body, trailers, .. } = exchange;
    let bytes = Bytes::from(body.bytes);
    let body = if trailers.is_empty() {
        ResponseBody::Full(bytes)
    } else {
        ResponseBody::Trailed(bytes, Box::new(trailers))
    };
    Response { status, headers, body }
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

/// Holds a request's calls to the deadline and to the CPU limit.
///
/// A guest yields at every quantum, so it is enough to look at the clock between polls; a call
/// that ends within its first poll costs no look at all.
pub struct Meter<'a> {
    limits: &'a Limits,
    started: Instant,
    /// When the first slice began, until it has run.
    first: Option<Instant>,
    cpu_used: Duration,
}

impl<'a> Meter<'a> {
    pub fn new(limits: &'a Limits, started: Instant) -> Self {
        Meter { limits, started, first: Some(started), cpu_used: Duration::ZERO }
    }

    /// When the response head is due.
    pub fn deadline(&self) -> Instant {
        self.started + self.limits.deadline
    }

    /// Runs a future until it is done, the deadline has passed, or its CPU time is used up.
    pub async fn run<F: Future>(&mut self, future: F) -> Result<F::Output, Reject> {
        let mut future = pin!(future);
        let mut timer: Option<Pin<Box<tokio::time::Sleep>>> = None;
        // A meter's first call begins when the request did; every later slice reads the clock.
        let mut resumed = self.first.take();
        let deadline = self.deadline();
        std::future::poll_fn(move |cx| {
            let begun = resumed.take().unwrap_or_else(Instant::now);
            if let Poll::Ready(output) = future.as_mut().poll(cx) {
                return Poll::Ready(Ok(output));
            }
            let now = Instant::now();
            self.cpu_used += now.saturating_duration_since(begun);
            if self.cpu_used >= self.limits.cpu_max {
                return Poll::Ready(Err(Reject::CpuTime));
            }
            let timer =
                timer.get_or_insert_with(|| Box::pin(tokio::time::sleep_until(deadline.into())));
            match timer.as_mut().poll(cx) {
                Poll::Ready(()) => Poll::Ready(Err(Reject::Deadline)),
                Poll::Pending => Poll::Pending,
            }
        })
        .await
    }
}

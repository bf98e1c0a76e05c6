//! One request handled by a component: the call, its response, which begins while the call still
//! runs, and what the guest does after the response.
//!
//! Owns the order of these.

use std::net::SocketAddr;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use http::uri::Authority;
use http::{HeaderName, HeaderValue, Method, Uri};
use tokio::sync::oneshot;
use tokio::time::timeout;
use wasmtime_wasi_http::Error;

use super::context::InstancePool;
use super::options::{BACKGROUND_TIME_MAX, CallFailure, CallOptions, CallOutcome, CallReturn};
use super::shared_instance::CallSlot;
use crate::guest::component::body::{BodyMonitor, GuestRequestBody, GuestResponseBody};
use crate::guest::component::component_form::ComponentForm;
use crate::guest::component::concurrent::Arrival;
use crate::guest::component::guest_response::GuestResponse;
use crate::guest::component::store_liveness::StoreLiveness;
use crate::guest::engine::guest_info::GuestInfo;
use crate::guest::engine::outcomes::{log_stopped, resolve_outcome};
use crate::guest::instance::component::ComponentInstance;
use crate::guest::instance::guest::Guest;
use crate::guest::instance::sandbox::Instance;
use crate::guest::schedule::{BoxedCall, ByteCounter, Meter};
use crate::guest::services::header;
use crate::message::body_progress::BodyProgress;
use crate::message::{BASE_PATH, Reject, Request, RequestId, Scheme};
use crate::outbound::{CdnLoop, HopLimit};

/// A call that has answered counts as about to end for this long. A request that is refused for
/// want of memory waits for such calls.
const SHORT_BACKGROUND_MAX: Duration = Duration::from_secs(1);

/// The request has a Host header that is no authority.
const INVALID_HOST: Reject =
    Reject::BadHost("the Host header is not one that a component can be handed");

/// What is needed of a request after the guest has taken it.
struct CallMetadata {
    id: RequestId,
    method: Method,
    scheme: Scheme,
    /// Observes its body, if it has one.
    monitor: Option<Arc<BodyMonitor>>,
    /// Tells how the upload of the body gets on.
    progress: Option<Arc<BodyProgress>>,
    /// Counts the bytes of both bodies.
    moved_bytes: ByteCounter,
}

impl CallMetadata {
    fn new(request: &Request) -> Self {
        let (monitor, moved_bytes) =
            ((!request.body.is_end()).then(Arc::default), ByteCounter::default());
        let progress = request.body.progress().cloned();
        let (method, scheme) = (request.method.clone(), request.origin.scheme);
        CallMetadata { id: request.id, method, scheme, monitor, progress, moved_bytes }
    }
}

/// How a request uses an instance.
enum InstanceUse {
    /// It has the instance to itself.
    Exclusive {
        run: Pin<Box<dyn Future<Output = CallOutcome>>>,
        /// See [`ComponentForm::RETURNS_RESPONSE`].
        returns_response: bool,
    },
    /// It shares the instance with other requests.
    Shared(CallSlot),
}

/// How a call has ended, once it has. Dropping the guard drops an instance that nobody took: in the
/// slow lane, if that takes a while.
pub(super) struct OutcomeGuard {
    outcome: Option<CallOutcome>,
    pool: Rc<dyn InstancePool>,
}

impl OutcomeGuard {
    /// Drops the instance if the call has ended. Returns the reject if it ended badly.
    pub(super) fn reject(&mut self) -> Option<Reject> {
        let (instance, reject) = match self.outcome.take()? {
            Ok(instance) => (Some(instance), None),
            Err(broken) => (broken.instance, Some(broken.reject)),
        };
        drop_instance(&*self.pool, instance);
        reject
    }
}

impl Drop for OutcomeGuard {
    fn drop(&mut self) {
        self.reject();
    }
}

/// A request that a component handles.
pub struct ComponentCall {
    call: InstanceUse,
    pub(super) end: OutcomeGuard,
    head: oneshot::Receiver<GuestResponse>,
    pub(super) liveness: StoreLiveness,
    monitor: Option<Arc<BodyMonitor>>,
    pub(super) progress: Option<Arc<BodyProgress>>,
    pub(super) moved_bytes: ByteCounter,
    guest: usize,
    info: Arc<GuestInfo>,
    id: RequestId,
    pub(super) method: Method,
}

impl ComponentCall {
    /// Begins a call in an instance of its own. Poll it through [`response`](super::response).
    ///
    /// # Errors
    /// [`Reject::BadHost`] and the like: the request cannot be handed to a component.
    pub fn begin<R: ComponentForm, K: 'static>(
        mut instance: Box<ComponentInstance<R>>,
        request: Box<Request>,
        options: CallOptions<K>,
    ) -> Result<Self, Reject>
    where
        Instance: From<Box<ComponentInstance<R>>>,
    {
        let metadata = CallMetadata::new(&request);
        let (sender, head) = oneshot::channel();
        let cdn_loop = CdnLoop::of(&request.headers).map_err(|HopLimit| Reject::Loop);
        let handed = cdn_loop.and_then(|cdn_loop| {
            let request = into_http_request(request, &metadata)?;
            instance.open(options.pool.outbound());
            let arrival = Arrival {
                id: metadata.id,
                scheme: metadata.scheme,
                request,
                head: sender,
                cdn_loop,
            };
            instance.accept(arrival).map_err(|_| INVALID_HOST)
        });
        let handed = match handed {
            Ok(handed) => handed,
            Err(reject) => {
                options.pool.schedule().drop_or_defer(instance);
                return Err(reject);
            }
        };
        let (liveness, guest) = (instance.gone(), instance.guest().clone());
        let identity = (guest.id, guest.info.clone());
        let pool = options.pool.clone();
        let called: BoxedCall<CallReturn> = Box::pin(async move {
            let (instance, result) = instance.call(handed).await;
            (Instance::from(instance), result)
        });
        let run =
            Box::pin(drive(called, guest, (metadata.id, metadata.moved_bytes.clone()), options));
        let call = InstanceUse::Exclusive { run, returns_response: R::RETURNS_RESPONSE };
        Ok(Self::new(call, metadata, (head, liveness), (identity, pool)))
    }

    /// Begins a call in a shared instance. Poll it through [`response`](super::response).
    ///
    /// # Errors
    /// As [`ComponentCall::begin`].
    pub fn join<K: 'static>(
        mut slot: CallSlot,
        request: Box<Request>,
        options: CallOptions<K>,
    ) -> Result<Self, Reject> {
        let metadata = CallMetadata::new(&request);
        let (sender, head) = oneshot::channel();
        let Ok(cdn_loop) = CdnLoop::of(&request.headers) else {
            slot.complete();
            return Err(Reject::Loop);
        };
        let arrival = match into_http_request(request, &metadata) {
            Ok(request) => {
                let (id, scheme) = (metadata.id, metadata.scheme);
                Arrival { id, scheme, request, head: sender, cdn_loop }.with_authority().ok()
            }
            Err(_) => None,
        };
        let Some(arrival) = arrival else {
            slot.complete();
            return Err(INVALID_HOST);
        };
        slot.submit(arrival, options.permit)?;
        let (liveness, guest) = (slot.liveness(), slot.guest());
        let identity = (guest.id, guest.info.clone());
        Ok(Self::new(
            InstanceUse::Shared(slot),
            metadata,
            (head, liveness),
            (identity, options.pool),
        ))
    }

    fn new(
        call: InstanceUse,
        metadata: CallMetadata,
        (head, liveness): (oneshot::Receiver<GuestResponse>, StoreLiveness),
        ((guest, info), pool): ((usize, Arc<GuestInfo>), Rc<dyn InstancePool>),
    ) -> Self {
        let CallMetadata { id, method, monitor, progress, moved_bytes, .. } = metadata;
        let end = OutcomeGuard { outcome: None, pool };
        ComponentCall {
            call,
            end,
            head,
            liveness,
            monitor,
            progress,
            moved_bytes,
            guest,
            info,
            id,
            method,
        }
    }

    /// Ready with the head of the response, or with the reason why there will be none.
    pub(super) fn poll_head(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<Result<http::Response<GuestResponseBody>, Reject>> {
        let has_ended = self.poll_call(cx);
        if self.head.is_terminated() {
            return self.poll_end(cx);
        }
        match Pin::new(&mut self.head).poll(cx) {
            // No task is left that could answer.
            Poll::Pending if has_ended => self.poll_end(cx),
            Poll::Pending => Poll::Pending,
            Poll::Ready(Ok(Ok(head))) => Poll::Ready(Ok(head)),
            Poll::Ready(Ok(Err(code))) => {
                self.log(&format!("answered with an error: {code:?}"));
                Poll::Ready(Err(match code {
                    Error::LoopDetected => Reject::Loop,
                    _ => Reject::HandlerError,
                }))
            }
            Poll::Ready(Err(_)) => self.poll_end(cx),
        }
    }

    /// Called when no task is left that could answer. Ready with the reason once it is known.
    fn poll_end(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<Result<http::Response<GuestResponseBody>, Reject>> {
        // When the slow lane ends a call, the sender of the head is dropped first, then the
        // instance. The reason comes last.
        let drops_its_place =
            matches!(self.call, InstanceUse::Exclusive { returns_response: false, .. });
        let is_late = self.liveness.is_dropped() || !drops_its_place;
        if is_late && !self.poll_call(cx) {
            return Poll::Pending;
        }
        Poll::Ready(Err(self.end.reject().unwrap_or_else(|| {
            self.log("it ended, or dropped its response-outparam, without a response");
            Reject::InvalidResponse
        })))
    }

    /// Polls the call. Returns whether it has ended.
    pub(super) fn poll_call(&mut self, cx: &mut Context<'_>) -> bool {
        if self.end.outcome.is_none() {
            let polled = match &mut self.call {
                InstanceUse::Exclusive { run, .. } => run.as_mut().poll(cx),
                InstanceUse::Shared(slot) => slot.poll(cx),
            };
            if let Poll::Ready(ended) = polled {
                self.end.outcome = Some(ended);
            }
        }
        self.end.outcome.is_some()
    }

    pub(super) fn has_ended(&self) -> bool {
        self.end.outcome.is_some()
    }

    /// How often the request's body and the responses to the guest's own requests have been polled.
    /// If a poll of the response's body adds to this count after the guest has ended, the guest has
    /// handed on one of those bodies as its response.
    pub(super) fn body_polls(&self) -> usize {
        self.monitor.as_ref().map_or(0, |monitor| monitor.polls()) + self.liveness.polls()
    }

    /// What the client is told: the fault of the request's own body, if there was one, else
    /// `reject`.
    pub(super) fn root_cause(&self, reject: Reject) -> Reject {
        self.monitor.as_ref().and_then(|monitor| monitor.fault()).unwrap_or(reject)
    }

    pub(super) fn log(&self, why: &str) {
        log_stopped(&self.info, Some(self.id), format_args!("{why}"));
    }

    /// Lets the call go on in the background for a limited time, if it has not ended.
    pub(super) fn detach(self) {
        let ComponentCall { call, mut end, guest, .. } = self;
        let pool = end.pool.clone();
        match end.outcome.take() {
            Some(Ok(instance)) => pool.give_back(instance),
            Some(Err(CallFailure { instance, .. })) => drop_instance(&*pool, instance),
            None => {
                let call = match call {
                    InstanceUse::Exclusive { run, .. } => run,
                    InstanceUse::Shared(slot) => return slot.complete(),
                };
                tokio::task::spawn_local(async move {
                    match finish_in_background(&*pool, guest, call).await {
                        Some(Ok(instance)) => pool.give_back(instance),
                        Some(Err(broken)) => drop_instance(&*pool, broken.instance),
                        None => {}
                    }
                });
            }
        }
    }
}

/// Waits for the end of a call whose response is complete; `None` if it takes too long.
async fn finish_in_background(
    pool: &dyn InstancePool,
    guest: usize,
    mut call: Pin<Box<dyn Future<Output = CallOutcome>>>,
) -> Option<CallOutcome> {
    let mark = pool.schedule().pending_drops().ending_mark(guest);
    if let Ok(ended) = timeout(SHORT_BACKGROUND_MAX, &mut call).await {
        return Some(ended);
    }
    drop(mark);
    timeout(BACKGROUND_TIME_MAX - SHORT_BACKGROUND_MAX, call).await.ok()
}

fn drop_instance(pool: &dyn InstancePool, instance: Option<Instance>) {
    if let Some(instance) = instance {
        pool.schedule().drop_or_defer(instance);
    }
}

/// Runs a call to its end, within its limits, and logs a bad end.
async fn drive<K>(
    call: BoxedCall<CallReturn>,
    guest: Arc<Guest>,
    (id, moved_bytes): (RequestId, ByteCounter),
    options: CallOptions<K>,
) -> CallOutcome {
    let CallOptions { pool, started, waited, permit: _keep } = options;
    let (info, schedule) = (&guest.info, pool.schedule());
    let _active_call = schedule.begin();
    let meter =
        Meter::new(&info.grants.limits, started).without_deadline().with_byte_counter(moved_bytes);
    let mut meter = meter.in_lanes(schedule, guest.id);
    if waited {
        meter.resume();
    }
    let running = schedule.ticker().begin();
    let ended = meter.call(call).await;
    drop(running);
    match ended {
        Ok((instance, result)) => match resolve_outcome(info, Some(id), result) {
            Ok(()) => Ok(instance),
            Err(reject) => Err(CallFailure { reject, instance: Some(instance) }),
        },
        Err(reject) => {
            log_stopped(info, Some(id), format_args!("{reject}"));
            Err(CallFailure { reject, instance: None })
        }
    }
}

/// Builds the request that components get, with the fields that the host adds.
fn into_http_request(
    mut request: Box<Request>,
    metadata: &CallMetadata,
) -> Result<http::Request<GuestRequestBody>, Reject> {
    let mut headers = std::mem::take(&mut request.headers);
    header::host_made(&request, |prefix, name, value| {
        let name = match name {
            "" => Ok(HeaderName::from_static(BASE_PATH)),
            name => HeaderName::from_bytes(format!("{prefix}{name}").as_bytes()),
        };
        if let (Ok(name), Ok(value)) = (name, HeaderValue::from_str(value)) {
            headers.append(name, value);
        }
    });
    let Request { method, uri, body, origin, .. } = *request;
    let has_host = headers.get(http::header::HOST).is_some_and(|host| !host.is_empty());
    let mut parts = http::uri::Parts::default();
    parts.path_and_query = Some(uri);
    if !has_host {
        // HTTP/1.0 without Host: the guest still gets an absolute URI.
        parts.scheme = Some(origin.scheme.into());
        parts.authority = Some(authority(origin.local));
    }
    let (monitor, moved_bytes) = (metadata.monitor.clone(), metadata.moved_bytes.clone());
    let mut standard = http::Request::new(GuestRequestBody { body, monitor, moved_bytes });
    *standard.method_mut() = method;
    *standard.uri_mut() = Uri::from_parts(parts).map_err(|_| Reject::BadPath("not a path"))?;
    *standard.headers_mut() = headers;
    Ok(standard)
}

/// An address as the authority of a URI, without an IPv6 scope id.
fn authority(address: SocketAddr) -> Authority {
    let address = SocketAddr::new(address.ip(), address.port());
    Authority::try_from(address.to_string()).unwrap_or(Authority::from_static("localhost"))
}

//! One request's stay with a component: the call, the response that comes of it while it still
//! runs, and what the guest does afterwards.
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

use super::context::Home;
use super::shared::Seat;
use super::terms::{AFTERWARDS_MAX, Broken, Called, Ended, Terms};
use crate::guest::component::body::{Arriving, Departing, Watch};
use crate::guest::component::concurrent::Arrival;
use crate::guest::component::gone::Gone;
use crate::guest::component::head::Head;
use crate::guest::component::running::Running;
use crate::guest::engine::about::About;
use crate::guest::engine::ends::{judge, log_end};
use crate::guest::instance::component::ComponentInstance;
use crate::guest::instance::guest::Guest;
use crate::guest::instance::sandbox::Instance;
use crate::guest::schedule::{Flow, Meter, Movable};
use crate::guest::services::header;
use crate::message::progress::Progress;
use crate::message::{BASE_PATH, Reject, Request, RequestId, Scheme};
use crate::outbound::{Circle, Trail};

/// How long the end of a call that has answered counts as near: who is told that memory is short
/// waits for it.
const NEAR_MAX: Duration = Duration::from_secs(1);

/// What a component cannot be handed.
const NOT_A_HOST: Reject =
    Reject::BadHost("the Host header is not one that a component can be handed");

/// What is kept of a request.
struct Asked {
    id: RequestId,
    method: Method,
    scheme: Scheme,
    /// What is known of its body, if it has one.
    watch: Option<Arc<Watch>>,
    /// How that gets on.
    progress: Option<Arc<Progress>>,
    /// Counts what passes of its body and of the response's.
    flow: Flow,
}

impl Asked {
    fn new(request: &Request) -> Self {
        let (watch, flow) = ((!request.body.is_end()).then(Arc::default), Flow::default());
        let progress = request.body.progress().cloned();
        let (method, scheme) = (request.method.clone(), request.origin.scheme);
        Asked { id: request.id, method, scheme, watch, progress, flow }
    }
}

/// A request's way through an instance.
enum Call {
    /// It has the instance for itself.
    Alone {
        run: Pin<Box<dyn Future<Output = Ended>>>,
        /// Whether the place for its answer goes with the call alone.
        answers_by_returning: bool,
    },
    /// It is one of several.
    Among(Seat),
}

/// How a call has ended, once it has. An instance that nobody takes is dropped as its pool drops
/// one: that may take a while.
pub(super) struct End {
    ended: Option<Ended>,
    pool: Rc<dyn Home>,
}

impl End {
    /// Lets go of the instance, if the call has ended; why that came to a bad end, if it did.
    pub(super) fn reject(&mut self) -> Option<Reject> {
        let (instance, reject) = match self.ended.take()? {
            Ok(instance) => (Some(instance), None),
            Err(broken) => (broken.instance, Some(broken.reject)),
        };
        dispose(&*self.pool, instance);
        reject
    }
}

impl Drop for End {
    fn drop(&mut self) {
        self.reject();
    }
}

/// A request that a component handles.
pub struct ComponentCall {
    call: Call,
    pub(super) end: End,
    head: oneshot::Receiver<Head>,
    pub(super) gone: Gone,
    watch: Option<Arc<Watch>>,
    pub(super) progress: Option<Arc<Progress>>,
    pub(super) flow: Flow,
    guest: usize,
    about: Arc<About>,
    id: RequestId,
    pub(super) method: Method,
}

impl ComponentCall {
    /// Begins a request; [`response`](super::response) is to follow.
    ///
    /// # Errors
    /// [`Reject::BadHost`] and the like, where the request cannot be handed to a component.
    pub fn begin<R: Running, K: 'static>(
        mut instance: Box<ComponentInstance<R>>,
        request: Box<Request>,
        terms: Terms<K>,
    ) -> Result<Self, Reject>
    where
        Instance: From<Box<ComponentInstance<R>>>,
    {
        let asked = Asked::new(&request);
        let (sender, head) = oneshot::channel();
        let trail = Trail::of(&request.headers).map_err(|Circle| Reject::Loop);
        let handed = trail.and_then(|trail| {
            let request = standard(request, &asked)?;
            instance.open(terms.pool.door());
            let arrival =
                Arrival { id: asked.id, scheme: asked.scheme, request, head: sender, trail };
            instance.accept(arrival).map_err(|_| NOT_A_HOST)
        });
        let handed = match handed {
            Ok(handed) => handed,
            Err(reject) => {
                terms.pool.schedule().dispose(instance);
                return Err(reject);
            }
        };
        let (gone, guest) = (instance.gone(), instance.guest().clone());
        let whose = (guest.id, guest.about.clone());
        let pool = terms.pool.clone();
        let called: Movable<Called> = Box::pin(async move {
            let (instance, result) = instance.call(handed).await;
            (Instance::from(instance), result)
        });
        let run = Box::pin(drive(called, guest, (asked.id, asked.flow.clone()), terms));
        let call = Call::Alone { run, answers_by_returning: R::ANSWERS_BY_RETURNING };
        Ok(Self::new(call, asked, (head, gone), (whose, pool)))
    }

    /// Begins a request in an instance that handles several; [`response`](super::response) is to
    /// follow.
    ///
    /// # Errors
    /// As [`ComponentCall::begin`].
    pub fn join<K: 'static>(
        mut seat: Seat,
        request: Box<Request>,
        terms: Terms<K>,
    ) -> Result<Self, Reject> {
        let asked = Asked::new(&request);
        let (sender, head) = oneshot::channel();
        let Ok(trail) = Trail::of(&request.headers) else {
            seat.done();
            return Err(Reject::Loop);
        };
        let arrival = match standard(request, &asked) {
            Ok(request) => {
                let (id, scheme) = (asked.id, asked.scheme);
                Arrival { id, scheme, request, head: sender, trail }.with_authority().ok()
            }
            Err(_) => None,
        };
        let Some(arrival) = arrival else {
            seat.done();
            return Err(NOT_A_HOST);
        };
        seat.enter(arrival, terms.keep)?;
        let (gone, guest) = (seat.gone(), seat.guest());
        let whose = (guest.id, guest.about.clone());
        Ok(Self::new(Call::Among(seat), asked, (head, gone), (whose, terms.pool)))
    }

    fn new(
        call: Call,
        asked: Asked,
        (head, gone): (oneshot::Receiver<Head>, Gone),
        ((guest, about), pool): ((usize, Arc<About>), Rc<dyn Home>),
    ) -> Self {
        let Asked { id, method, watch, progress, flow, .. } = asked;
        let end = End { ended: None, pool };
        ComponentCall { call, end, head, gone, watch, progress, flow, guest, about, id, method }
    }

    /// Ready with the response's head, or where there will be none.
    pub(super) fn poll_head(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<Result<http::Response<Departing>, Reject>> {
        let has_ended = self.poll_call(cx);
        if self.head.is_terminated() {
            return self.poll_end(cx);
        }
        match Pin::new(&mut self.head).poll(cx) {
            // Nobody is left who could answer.
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

    /// Ready where nobody is left who could answer, with the reason once that is known.
    fn poll_end(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<Result<http::Response<Departing>, Reject>> {
        // The slow lane lets go of the instance, and of the place for its answer before that, and
        // then says why.
        let drops_its_place = matches!(self.call, Call::Alone { answers_by_returning: false, .. });
        let is_late = self.gone.is_gone() || !drops_its_place;
        if is_late && !self.poll_call(cx) {
            return Poll::Pending;
        }
        Poll::Ready(Err(self.end.reject().unwrap_or_else(|| {
            self.log("it ended, or dropped its response-outparam, without a response");
            Reject::InvalidResponse
        })))
    }

    /// Lets the call go on; whether it has ended.
    pub(super) fn poll_call(&mut self, cx: &mut Context<'_>) -> bool {
        if self.end.ended.is_none() {
            let polled = match &mut self.call {
                Call::Alone { run, .. } => run.as_mut().poll(cx),
                Call::Among(seat) => seat.poll(cx),
            };
            if let Poll::Ready(ended) = polled {
                self.end.ended = Some(ended);
            }
        }
        self.end.ended.is_some()
    }

    pub(super) fn has_ended(&self) -> bool {
        self.end.ended.is_some()
    }

    /// How often the request's body, and those that servers send the guest, have been asked for
    /// more. Where the guest has ended and it is the response's that is asked, the guest has handed
    /// on one of these as that.
    pub(super) fn looks(&self) -> usize {
        self.watch.as_ref().map_or(0, |watch| watch.looks()) + self.gone.looks()
    }

    /// What the client is told: if the request's own body was at fault, that.
    pub(super) fn blame(&self, reject: Reject) -> Reject {
        self.watch.as_ref().and_then(|watch| watch.fault()).unwrap_or(reject)
    }

    pub(super) fn log(&self, why: &str) {
        log_end(&self.about, Some(self.id), format_args!("{why}"));
    }

    /// Lets the guest go on for a while without its client, if it has not ended.
    pub(super) fn leave(self) {
        let ComponentCall { call, mut end, guest, .. } = self;
        let pool = end.pool.clone();
        match end.ended.take() {
            Some(Ok(instance)) => pool.give_back(instance),
            Some(Err(Broken { instance, .. })) => dispose(&*pool, instance),
            None => {
                let call = match call {
                    Call::Alone { run, .. } => run,
                    Call::Among(seat) => return seat.done(),
                };
                tokio::task::spawn_local(async move {
                    match afterwards(&*pool, guest, call).await {
                        Some(Ok(instance)) => pool.give_back(instance),
                        Some(Err(broken)) => dispose(&*pool, broken.instance),
                        None => {}
                    }
                });
            }
        }
    }
}

/// The end of a call that has answered, unless it takes too long to come.
async fn afterwards(
    pool: &dyn Home,
    guest: usize,
    mut call: Pin<Box<dyn Future<Output = Ended>>>,
) -> Option<Ended> {
    let mark = pool.schedule().pending_drops().mark_ending(guest);
    if let Ok(ended) = timeout(NEAR_MAX, &mut call).await {
        return Some(ended);
    }
    drop(mark);
    timeout(AFTERWARDS_MAX - NEAR_MAX, call).await.ok()
}

fn dispose(pool: &dyn Home, instance: Option<Instance>) {
    if let Some(instance) = instance {
        pool.schedule().dispose(instance);
    }
}

/// Runs a call to its end.
async fn drive<K>(
    call: Movable<Called>,
    guest: Arc<Guest>,
    (id, flow): (RequestId, Flow),
    terms: Terms<K>,
) -> Ended {
    let Terms { pool, started, waited, keep: _keep } = terms;
    let (about, schedule) = (&guest.about, pool.schedule());
    let _under_way = schedule.begin();
    let meter = Meter::new(&about.grants.limits, started).without_deadline().with_flow(flow);
    let mut meter = meter.in_lanes(schedule, guest.id);
    if waited {
        meter.resume();
    }
    let running = schedule.pulse().begin();
    let ended = meter.call(call).await;
    drop(running);
    match ended {
        Ok((instance, result)) => match judge(about, Some(id), result) {
            Ok(()) => Ok(instance),
            Err(reject) => Err(Broken { reject, instance: Some(instance) }),
        },
        Err(reject) => {
            log_end(about, Some(id), format_args!("{reject}"));
            Err(Broken { reject, instance: None })
        }
    }
}

/// A request as components get it.
fn standard(mut request: Box<Request>, asked: &Asked) -> Result<http::Request<Arriving>, Reject> {
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
        // HTTP/1.0 without a Host: the guest is to have an absolute URI all the same.
        parts.scheme = Some(origin.scheme.into());
        parts.authority = Some(authority(origin.local));
    }
    let (watch, flow) = (asked.watch.clone(), asked.flow.clone());
    let mut standard = http::Request::new(Arriving { body, watch, flow });
    *standard.method_mut() = method;
    *standard.uri_mut() = Uri::from_parts(parts).map_err(|_| Reject::BadPath("not a path"))?;
    *standard.headers_mut() = headers;
    Ok(standard)
}

/// An address as the authority of a URI. One that is of a network card alone is shown without it.
fn authority(address: SocketAddr) -> Authority {
    let address = SocketAddr::new(address.ip(), address.port());
    Authority::try_from(address.to_string()).unwrap_or(Authority::from_static("localhost"))
}

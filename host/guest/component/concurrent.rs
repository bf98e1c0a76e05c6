//! A call of a component of wasi:http 0.3, on an engine that runs several calls of one instance at
//! once.
//!
//! Owns the path of one request through such an instance. Who drives the instance and how many
//! calls it gets is decided elsewhere.

use std::collections::VecDeque;
use std::future::poll_fn;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};

use http::header::HOST;
use http::uri::Authority;
use tokio::sync::oneshot;
use wasmtime::component::Accessor;
use wasmtime::{AsContextMut, Store};
use wasmtime_wasi_http::p3::bindings::Service;
use wasmtime_wasi_http::{FieldMap, WasiHttpView, p3};

use super::body::GuestRequestBody;
use super::guest_response::{GuestResponse, LEFTOVER_BYTES_MAX};
use super::state::ComponentState;
use crate::guest::schedule::QUANTUM_TICKS;
use crate::message::{RequestId, Scheme};
use crate::outbound::CdnLoop;

/// Resources that the host may keep for an instance, with or without requests in it, before another
/// instance replaces it.
const RETAINED_RESOURCES_MAX: usize = 512;
/// An instance is replaced when it has more than this fraction of its memory limit.
const MEMORY_DIVISOR: usize = 2;

/// A request on its way into an instance.
pub struct Arrival {
    /// Names the request in the log.
    pub id: RequestId,
    /// The scheme by which it came.
    pub scheme: Scheme,
    /// The request with its body, as components get it.
    pub request: http::Request<GuestRequestBody>,
    /// Sends the head of the guest's response, or its error.
    pub head: oneshot::Sender<GuestResponse>,
    /// The hops that the request has behind it.
    pub cdn_loop: CdnLoop,
}

impl Arrival {
    /// Gives the request the scheme and the authority that 0.3 has in place of the Host header.
    ///
    /// # Errors
    /// The Host header is no authority.
    pub fn with_authority(mut self) -> wasmtime::Result<Box<Arrival>> {
        let mut uri = std::mem::take(self.request.uri_mut()).into_parts();
        if uri.authority.is_none() {
            let host = self.request.headers().get(HOST).map_or(&[][..], |host| host.as_bytes());
            uri.authority = Some(Authority::try_from(host)?);
            uri.scheme = Some(self.scheme.into());
        }
        *self.request.uri_mut() = http::Uri::from_parts(uri)?;
        Ok(Box::new(self))
    }

    /// Hands the request to the guest and sends off the head of its response. The event loop runs
    /// what the guest does after that.
    ///
    /// # Errors
    /// The guest has trapped: the instance is not to be used again.
    /// The guest has trapped, and the instance is not to be used again.
    pub async fn answer(
        self,
        accessor: &Accessor<ComponentState>,
        service: &Service,
    ) -> wasmtime::Result<()> {
        let Arrival { id, request, head, cdn_loop, .. } = self;
        let handle = service.wasi_http_handler().func_handle();
        // If several calls run, nobody can tell which one prints or sends something.
        let only = has_no_tasks(accessor).then_some(id);
        let (call, sent) = accessor.with(|mut access| {
            let state = access.data_mut();
            state.begin(only);
            state.hooks.set_request(cdn_loop, only);
            let http = state.http();
            let (head, body) = request.into_parts();
            let uri = head.uri.into_parts();
            let headers = FieldMap::new_immutable(http.hooks, head.headers);
            let (request, sent) = p3::Request::new(
                head.method,
                uri.scheme,
                uri.authority,
                uri.path_and_query,
                headers,
                None,
                body,
            );
            let request = http.table.push(request)?;
            wasmtime::error::Ok((handle.start_call_concurrent(&mut access, (request,))?, sent))
        })?;
        let (answer,) = handle.finish_call_concurrent(accessor, call).await?;
        let answer = match answer {
            Ok(response) => Ok(accessor.with(|mut access| {
                let response = access.data_mut().table.delete(response)?;
                response.into_http_with_getter(&mut access, sent, ComponentState::http)
            })?),
            Err(code) => Err(code.into()),
        };
        // The receiver may be gone.
        drop(head.send(answer));
        Ok(())
    }
}

/// Waits until no call of the guest is left, including work after the responses.
pub async fn wait_for_tasks(accessor: &Accessor<ComponentState>) {
    poll_fn(|cx| accessor.poll_no_interesting_tasks(cx)).await;
}

/// Whether no call of the guest is left.
fn has_no_tasks(accessor: &Accessor<ComponentState>) -> bool {
    accessor.poll_no_interesting_tasks(&mut Context::from_waker(Waker::noop())).is_ready()
}

/// Requests for a shared instance. Putting one in wakes nobody: the caller has to poll the
/// instance.
#[derive(Default)]
pub struct Inbox {
    arrivals: Mutex<VecDeque<Box<Arrival>>>,
    is_closed: AtomicBool,
}

impl Inbox {
    /// Puts a request in, behind all others.
    pub fn put(&self, arrival: Box<Arrival>) {
        self.lock().push_back(arrival);
    }

    /// Says that no more requests come.
    pub fn close(&self) {
        self.is_closed.store(true, Ordering::Release);
    }

    /// Whether no more requests come.
    pub fn is_closed(&self) -> bool {
        self.is_closed.load(Ordering::Acquire)
    }

    /// The next request. Pending while there is none, ready with `None` if no more come.
    pub fn take(&self) -> Poll<Option<Box<Arrival>>> {
        let is_closed = self.is_closed();
        match self.lock().pop_front() {
            Some(arrival) => Poll::Ready(Some(arrival)),
            None if is_closed => Poll::Ready(None),
            None => Poll::Pending,
        }
    }

    fn lock(&self) -> MutexGuard<'_, VecDeque<Box<Arrival>>> {
        self.arrivals.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What a shared instance reports about itself.
#[derive(Default)]
pub struct InstanceFlags {
    /// The guest applies backpressure: one more call would only wait.
    is_busy: AtomicBool,
    /// It has grown so much that another instance is to replace it.
    is_spent: AtomicBool,
    /// The guest has work to do, perhaps after its responses.
    is_working: AtomicBool,
}

impl InstanceFlags {
    /// Whether it can start a call at once.
    pub fn is_ready(&self) -> bool {
        !self.is_busy.load(Ordering::Relaxed)
    }

    /// Whether another instance is to replace it.
    pub fn is_spent(&self) -> bool {
        self.is_spent.load(Ordering::Relaxed)
    }

    /// Whether the guest has work to do, perhaps after its responses.
    pub fn is_working(&self) -> bool {
        self.is_working.load(Ordering::Relaxed)
    }

    /// Records that a request was put in: the guest has work from now on. Its own report comes with
    /// its next turn, which may be after the answer.
    pub fn note_request(&self) {
        self.is_working.store(true, Ordering::Relaxed);
    }

    /// Records whether the instance has grown too much: in memory, resources or bytes.
    pub fn note_usage(&self, state: &mut ComponentState) {
        let memory_bytes_max = state.limiter.guest_info.grants.limits.memory_bytes_max;
        let (resources, bytes) = state.leftovers();
        if state.limiter.memory_bytes() > memory_bytes_max / MEMORY_DIVISOR
            || resources > RETAINED_RESOURCES_MAX
            || bytes > LEFTOVER_BYTES_MAX
        {
            self.is_spent.store(true, Ordering::Relaxed);
        }
    }

    /// Records what the guest reports.
    pub fn note_work(&self, is_busy: bool, is_working: bool) {
        self.is_busy.store(is_busy, Ordering::Relaxed);
        self.is_working.store(is_working, Ordering::Relaxed);
    }
}

/// Has a guest handle requests as they arrive, several at once, until no more can come and the
/// guest has ended.
///
/// # Errors
/// The guest has trapped: the instance is not to be used again.
/// The guest has trapped, and the instance is not to be used again.
pub async fn serve_concurrent(
    store: &mut Store<ComponentState>,
    service: &Service,
    inbox: &Inbox,
    flags: &InstanceFlags,
) -> wasmtime::Result<()> {
    let attended = store.run_concurrent(async |accessor| {
        let handle = *service.wasi_http_handler().func_handle().func();
        let mut calls = PendingCalls::default();
        poll_fn(|cx| {
            // The time since the last poll was not the guest's, so it gets a whole quantum.
            accessor.with(|mut access| {
                access.as_context_mut().set_epoch_deadline(QUANTUM_TICKS);
            });
            loop {
                if calls.poll(cx)? {
                    accessor.with(|mut access| flags.note_usage(access.data_mut()));
                }
                match inbox.take() {
                    Poll::Ready(Some(arrival)) => {
                        calls.0.push(Box::pin(arrival.answer(accessor, service)));
                    }
                    Poll::Ready(None) if calls.0.is_empty() => {
                        return accessor.poll_no_interesting_tasks(cx).map(Ok);
                    }
                    _ => break,
                }
            }
            let is_busy = accessor.poll_ready_for_concurrent_call(handle, cx).is_pending();
            let is_working = accessor.poll_no_interesting_tasks(cx).is_pending();
            flags.note_work(is_busy, is_working);
            Poll::Pending
        })
        .await
    });
    attended.await.flatten()
}

/// Calls whose response has no head yet.
#[derive(Default)]
struct PendingCalls<'a>(Vec<Pin<Box<dyn Future<Output = wasmtime::Result<()>> + Send + 'a>>>);

impl PendingCalls<'_> {
    /// Polls each of them. Returns whether one has ended.
    ///
    /// # Errors
    /// The guest has trapped.
    fn poll(&mut self, cx: &mut Context<'_>) -> wasmtime::Result<bool> {
        let (mut at, before) = (0, self.0.len());
        while at < self.0.len() {
            match self.0[at].as_mut().poll(cx) {
                Poll::Ready(result) => {
                    drop(self.0.swap_remove(at));
                    result?;
                }
                Poll::Pending => at += 1,
            }
        }
        Ok(self.0.len() < before)
    }
}

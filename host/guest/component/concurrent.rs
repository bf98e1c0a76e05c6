//! A call of a component of wasi:http 0.3, on an engine where calls run beside each other.
//!
//! Owns the way of one request through such an instance, from its resource to the response's. Who
//! drives the instance, and how many calls it has at once, is decided elsewhere.

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

/// Resources that an instance may have the host keep, with requests in it or not, before another
/// takes its place.
const RETAINED_RESOURCES_MAX: usize = 512;
/// The part of the memory that it may have, before another takes its place.
const MEMORY_DIVISOR: usize = 2;

/// A request on its way into an instance.
pub struct Arrival {
    pub id: RequestId,
    /// How it has come.
    pub scheme: Scheme,
    pub request: http::Request<GuestRequestBody>,
    /// Is told what the guest answers.
    pub head: oneshot::Sender<GuestResponse>,
    /// The way that it has come.
    pub cdn_loop: CdnLoop,
}

impl Arrival {
    /// Gives the request the scheme and the authority that 0.3 has beside the path, where 0.2 has
    /// the Host header.
    ///
    /// # Errors
    /// That is no authority.
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

    /// Has the guest handle the request, up to its response's head. What it does afterwards is left
    /// to the event loop.
    ///
    /// # Errors
    /// The guest has trapped, and the instance is not to be used again.
    pub async fn answer(
        self,
        accessor: &Accessor<ComponentState>,
        service: &Service,
    ) -> wasmtime::Result<()> {
        let Arrival { id, request, head, cdn_loop, .. } = self;
        let handle = service.wasi_http_handler().func_handle();
        // What is printed or sent by one of several calls may be any one's.
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
        // Nobody may be waiting for it any more.
        drop(head.send(answer));
        Ok(())
    }
}

/// Waits until no call of the guest is left, with what they do after their responses.
pub async fn wait_for_tasks(accessor: &Accessor<ComponentState>) {
    poll_fn(|cx| accessor.poll_no_interesting_tasks(cx)).await;
}

/// Whether there is none now.
fn has_no_tasks(accessor: &Accessor<ComponentState>) -> bool {
    accessor.poll_no_interesting_tasks(&mut Context::from_waker(Waker::noop())).is_ready()
}

/// Where requests wait for an instance that handles several of them. It does not say that there are
/// some: whoever puts one in has the instance look.
#[derive(Default)]
pub struct Inbox {
    arrivals: Mutex<VecDeque<Box<Arrival>>>,
    is_closed: AtomicBool,
}

impl Inbox {
    pub fn put(&self, arrival: Box<Arrival>) {
        self.lock().push_back(arrival);
    }

    /// Says that no more come.
    pub fn close(&self) {
        self.is_closed.store(true, Ordering::Release);
    }

    pub fn is_closed(&self) -> bool {
        self.is_closed.load(Ordering::Acquire)
    }

    /// The next one; ready with none where no more come.
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

/// What an instance with several requests says about itself.
#[derive(Default)]
pub struct InstanceFlags {
    /// It would only put more requests in line.
    is_busy: AtomicBool,
    /// It has grown so much that another is to take its place.
    is_spent: AtomicBool,
    /// The guest is at something, be it behind a response.
    is_working: AtomicBool,
}

impl InstanceFlags {
    pub fn is_ready(&self) -> bool {
        !self.is_busy.load(Ordering::Relaxed)
    }

    pub fn is_spent(&self) -> bool {
        self.is_spent.load(Ordering::Relaxed)
    }

    pub fn is_working(&self) -> bool {
        self.is_working.load(Ordering::Relaxed)
    }

    /// Takes note of a request that is put in: the guest is at something from now on, and will not
    /// say so before it has taken a turn, which may outlast the answer.
    pub fn note_request(&self) {
        self.is_working.store(true, Ordering::Relaxed);
    }

    /// Takes note of what a request, or a part of it, has left behind.
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

    /// Takes note of what the guest is at.
    pub fn note_work(&self, is_busy: bool, is_working: bool) {
        self.is_busy.store(is_busy, Ordering::Relaxed);
        self.is_working.store(is_working, Ordering::Relaxed);
    }
}

/// Has a guest handle requests as they arrive, beside each other, until no more can come and the
/// guest has ended.
///
/// # Errors
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
            // Time has passed since the guest ran last, and it was not the guest's.
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

/// Calls whose responses have not begun.
#[derive(Default)]
struct PendingCalls<'a>(Vec<Pin<Box<dyn Future<Output = wasmtime::Result<()>> + Send + 'a>>>);

impl PendingCalls<'_> {
    /// Lets each of them go on; whether one has ended.
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

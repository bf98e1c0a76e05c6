//! A component's sandbox: a store and an instance in it.
//!
//! Owns how an instance is made, called and reset. A call consumes the instance, and gives it back
//! if the guest ended well.

use std::sync::Arc;

use tokio::sync::oneshot;
use wasmtime::component::Resource;
use wasmtime::{Global, Memory, Store, TypedFunc};
use wasmtime_wasi_http::p2::bindings::Proxy;
use wasmtime_wasi_http::p2::bindings::http::types;
use wasmtime_wasi_http::p2::types::{HostIncomingRequest, HostResponseOutparam};
use wasmtime_wasi_http::p3::bindings::Service;
use wasmtime_wasi_http::{Error, WasiHttpView};

use super::body::Arriving;
use super::code::{FlatCode, Pre};
use super::concurrent::{Arrival, Inbox, Marks, attend, rest};
use super::flat::turns::{self, Arrivals, Turns};
use super::gone::Gone;
use super::head::{Head, LEFT_BYTES_MAX};
use super::state::State;
use crate::guest::Guest;
use crate::guest::engine::QUANTUM_TICKS;
use crate::guest::limiter::PrepaidStacks;
use crate::guest::reset::{Baseline, RESETS_MAX};
use crate::guest::schedule::{Bulky, Movable};
use crate::guest::slots::STACKS_PER_SLOT;
use crate::message::{RequestId, Scheme};
use crate::outbound::{Door, Trail};

/// Resources that an instance may leave behind, under reuse, before another takes its place.
const LEFT_MAX: usize = 256;

/// A component that is ready for a request.
pub struct ComponentInstance {
    guest: Arc<Guest>,
    store: Store<State>,
    body: Body,
    resets: u32,
}

/// What there is in the store.
enum Body {
    Whole(Proxy),
    Concurrent(Service),
    Flat(Flat),
}

/// A flattened component's module.
struct Flat {
    memory: Memory,
    handle: Handle,
    /// Its mutable globals, where it can be reset.
    globals: Box<[Global]>,
}

/// How it is called.
enum Handle {
    /// With a request, and the place for its response: 0.2.
    Once(TypedFunc<(u32, u32), ()>),
    /// 0.3.
    Turns(Turns),
}

/// A call that has ended, with the instance.
pub type Called = (Box<ComponentInstance>, wasmtime::Result<()>);

/// What a call begins with: the request, and what its response is to be given to.
pub enum Handed {
    Resources(Resource<HostIncomingRequest>, Resource<HostResponseOutparam>),
    Handles(u32, u32),
    Arrival(Box<Arrival>),
}

impl ComponentInstance {
    pub async fn instantiate(guest: Arc<Guest>) -> wasmtime::Result<Box<ComponentInstance>> {
        let code = guest.component();
        let mut store = State::store(code.pre.engine(), guest.about.clone());
        let stacks = if code.has_many_stacks() { STACKS_PER_SLOT } else { 1 };
        store.data_mut().limiter.charge_instance(guest.cost(), stacks as usize)?;
        if code.has_many_stacks() {
            store.call_hook(|mut store, hook| store.data_mut().limiter.note_call(hook));
        }
        if !code.has_start {
            // Filling the memory is code, too, but bounded: it need not yield.
            store.set_epoch_deadline(u64::MAX / 2);
        }
        let body = match &code.pre {
            Pre::Whole(pre) => Body::Whole(pre.instantiate_async(&mut store).await?),
            Pre::Concurrent(pre) => Body::Concurrent(pre.instantiate_async(&mut store).await?),
            Pre::Flat(flat) => Body::Flat(Flat::instantiate(flat, &mut store).await?),
        };
        Ok(Box::new(ComponentInstance { guest, store, body, resets: 0 }))
    }

    pub fn guest(&self) -> &Arc<Guest> {
        &self.guest
    }

    /// Bytes of its memories, as large as they have become.
    pub fn memory_bytes(&self) -> usize {
        self.store.data().limiter.memory_bytes()
    }

    /// Where it is counted how many of its stacks its requests are charged.
    pub fn prepaid_stacks(&self) -> PrepaidStacks {
        self.store.data().limiter.prepaid_stacks()
    }

    /// Tells when it is gone.
    pub fn gone(&self) -> Gone {
        self.store.data().gone.clone()
    }

    /// Writes out what the guest has said without ending the line.
    pub fn end_log(&self) {
        self.store.data().end_log();
    }

    /// Whether it has left too much behind to serve more requests.
    pub fn is_spent(&mut self) -> bool {
        let state = self.store.data_mut();
        let (resources, bytes) = state.left();
        // Where a call ends, so do its requests.
        resources > LEFT_MAX || bytes > LEFT_BYTES_MAX || state.hooks.has_open()
    }

    /// The state in which it was made, where it can be read.
    pub fn baseline(&mut self) -> Option<Baseline> {
        let Body::Flat(flat) = &self.body else { return None };
        Some(Baseline::read(&mut self.store, flat.memory, &flat.globals))
    }

    /// Puts an instance that ended well back into the state in which it was made.
    ///
    /// # Errors
    /// The instance is gone; a new one of this guest has to be made instead.
    pub fn reset(mut self: Box<Self>, is_warm: bool) -> Result<Box<Self>, Arc<Guest>> {
        self.resets += 1;
        let restored = match (&self.body, self.guest.component().baseline()) {
            (Body::Flat(flat), Some(baseline)) if self.resets < RESETS_MAX => {
                baseline.restore(&mut self.store, flat.memory, &flat.globals, is_warm)
            }
            _ => false,
        };
        if !restored {
            return Err(self.guest);
        }
        self.store.data_mut().forget();
        Ok(self)
    }

    /// Lets the guest's own requests out.
    pub fn open(&mut self, door: &Door) {
        self.store.data_mut().hooks.open(door);
    }

    /// Takes up a request, which has come by this trail; `head` is told what the guest answers.
    ///
    /// # Errors
    /// The request cannot be handed to the guest.
    pub fn accept(
        &mut self,
        (id, trail): (RequestId, Trail),
        (scheme, request): (Scheme, http::Request<Arriving>),
        head: oneshot::Sender<Head>,
    ) -> wasmtime::Result<Handed> {
        if self.is_concurrent() {
            let arrival = Arrival::new((id, trail), (scheme, request), head);
            let arrival = arrival.ok_or_else(|| wasmtime::format_err!("the host is no authority"));
            return Ok(Handed::Arrival(arrival?));
        }
        let state = self.store.data_mut();
        state.begin(Some(id));
        state.hooks.follow(trail, Some(id));
        let mut http = state.http();
        let scheme = match scheme {
            Scheme::Http => types::Scheme::Http,
            Scheme::Https => types::Scheme::Https,
        };
        let request = http.new_incoming_request(scheme, request)?;
        let outparam = http.new_response_outparam_from_callback(move |answer| {
            // Nobody may be waiting for it any more.
            drop(head.send(answer.map_err(Error::from)));
        })?;
        Ok(match self.body {
            Body::Whole(_) | Body::Concurrent(_) => Handed::Resources(request, outparam),
            Body::Flat(_) => {
                let handles = &mut state.canon.handles;
                Handed::Handles(handles.put(request)?, handles.put(outparam)?)
            }
        })
    }

    /// Calls the guest's `handle`. The call may move to another thread while it runs.
    pub fn call(mut self: Box<Self>, handed: Handed) -> Movable<Called> {
        self.store.set_epoch_deadline(QUANTUM_TICKS);
        Box::pin(async move {
            let result = match (&self.body, handed) {
                (Body::Whole(proxy), Handed::Resources(request, outparam)) => {
                    let handler = proxy.wasi_http_incoming_handler();
                    handler.call_handle(&mut self.store, request, outparam).await
                }
                (Body::Concurrent(service), Handed::Arrival(arrival)) => {
                    let call = self.store.run_concurrent(async |accessor| {
                        arrival.answer(accessor, service).await?;
                        rest(accessor).await;
                        Ok(())
                    });
                    call.await.flatten()
                }
                (Body::Flat(Flat { handle, .. }), handed) => match (handle, handed) {
                    (Handle::Once(handle), Handed::Handles(request, outparam)) => {
                        handle.call_async(&mut self.store, (request, outparam)).await
                    }
                    (Handle::Turns(turns), Handed::Arrival(arrival)) => {
                        let arrivals = Arrivals::One(Some(arrival));
                        turns::attend(&mut self.store, turns, arrivals).await
                    }
                    _ => unreachable!("a request is handed over as the instance wants it"),
                },
                _ => unreachable!("a request is handed over as the instance wants it"),
            };
            (self, result)
        })
    }
}

impl ComponentInstance {
    /// Whether it is to be given requests beside each other.
    pub fn is_shared(&self) -> bool {
        self.guest.is_shared()
    }

    /// Whether it can handle requests beside each other.
    pub fn is_concurrent(&self) -> bool {
        self.guest.component().is_concurrent()
    }

    /// Has the guest handle requests as they arrive, beside each other.
    pub fn attend(mut self: Box<Self>, inbox: Arc<Inbox>, marks: Arc<Marks>) -> Movable<Called> {
        Box::pin(async move {
            let result = match &self.body {
                Body::Concurrent(service) => attend(&mut self.store, service, &inbox, &marks).await,
                Body::Flat(Flat { handle: Handle::Turns(turns), .. }) => {
                    let arrivals = Arrivals::Many(inbox, marks);
                    turns::attend(&mut self.store, turns, arrivals).await
                }
                _ => unreachable!("only such an instance is given several requests"),
            };
            (self, result)
        })
    }
}

impl Flat {
    async fn instantiate(code: &FlatCode, store: &mut Store<State>) -> wasmtime::Result<Flat> {
        let instance = code.pre.instantiate_async(&mut *store).await?;
        let mut export = |export| instance.get_module_export(&mut *store, export);
        let memory = export(&code.memory).and_then(wasmtime::Extern::into_memory);
        let handle = export(&code.handle).and_then(wasmtime::Extern::into_func);
        let global = |it| export(it).and_then(wasmtime::Extern::into_global);
        let globals: Option<Box<[Global]>> = code.globals.iter().map(global).collect();
        let (Some(memory), Some(handle), Some(globals)) = (memory, handle, globals) else {
            wasmtime::bail!("an export is not what it was at load");
        };
        let handle = match &code.callback {
            None => Handle::Once(handle.typed(&*store)?),
            Some(callback) => {
                let callback = export(callback).and_then(wasmtime::Extern::into_func);
                let Some(callback) = callback else {
                    wasmtime::bail!("an export is not what it was at load");
                };
                let (handle, callback) = (handle.typed(&*store)?, callback.typed(&*store)?);
                Handle::Turns(Turns { memory, handle, callback })
            }
        };
        store.data_mut().canon.memory = Some(memory);
        Ok(Flat { memory, handle, globals })
    }
}

impl Bulky for ComponentInstance {
    fn bytes(&self) -> usize {
        self.memory_bytes() + self.store.data().held_bytes()
    }
}

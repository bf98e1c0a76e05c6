//! A component's sandbox: a store and an instance in it.
//!
//! Owns how an instance is made and called. A call consumes the instance, and gives it back if the
//! guest ended well.

use std::sync::Arc;

use tokio::sync::oneshot;
use wasmtime::Store;
use wasmtime::component::Resource;
use wasmtime_wasi_http::WasiHttpView;
use wasmtime_wasi_http::p2::bindings::Proxy;
use wasmtime_wasi_http::p2::bindings::http::types::{ErrorCode, Scheme};
use wasmtime_wasi_http::p2::types::{HostIncomingRequest, HostResponseOutparam};

use super::body::Arriving;
use super::{State, body};
use crate::guest::Guest;
use crate::guest::engine::QUANTUM_TICKS;
use crate::guest::lane::Movable;
use crate::message::RequestId;

/// A component that is ready for a request.
pub struct ComponentInstance {
    guest: Arc<Guest>,
    store: Store<State>,
    proxy: Proxy,
}

/// What a guest answers with: a response whose body is still to come, or an error of its own.
pub type Head = Result<http::Response<body::Departing>, ErrorCode>;

/// A call that has ended, with the instance.
pub type Called = (Box<ComponentInstance>, wasmtime::Result<()>);

/// The resources that a call begins with.
pub struct Handed {
    request: Resource<HostIncomingRequest>,
    outparam: Resource<HostResponseOutparam>,
}

impl ComponentInstance {
    pub async fn instantiate(guest: Arc<Guest>) -> wasmtime::Result<Box<ComponentInstance>> {
        let code = guest.component();
        let mut store = State::store(code.pre.engine(), guest.about.clone());
        if !code.has_start {
            // Filling the memory is code, too, but bounded: it need not yield.
            store.set_epoch_deadline(u64::MAX / 2);
        }
        let proxy = code.pre.instantiate_async(&mut store).await?;
        Ok(Box::new(ComponentInstance { guest, store, proxy }))
    }

    pub fn guest(&self) -> &Arc<Guest> {
        &self.guest
    }

    /// Bytes of its memories, as large as they have become.
    pub fn memory_bytes(&self) -> usize {
        self.store.data().limiter.memory_bytes()
    }

    /// Writes out what the guest has said without ending the line.
    pub fn end_log(&self) {
        self.store.data().end_log();
    }

    /// Takes up a request; `head` is told what the guest answers.
    ///
    /// # Errors
    /// The request cannot be handed to the guest.
    pub fn accept(
        &mut self,
        id: RequestId,
        request: http::Request<Arriving>,
        head: oneshot::Sender<Head>,
    ) -> wasmtime::Result<Handed> {
        let state = self.store.data_mut();
        state.begin(id);
        let mut http = state.http();
        let request = http.new_incoming_request(Scheme::Http, request)?;
        let outparam = http.new_response_outparam(head)?;
        Ok(Handed { request, outparam })
    }

    /// Calls the guest's `handle`. The call may move to another thread while it runs.
    pub fn call(mut self: Box<Self>, handed: Handed) -> Movable<Called> {
        self.store.set_epoch_deadline(QUANTUM_TICKS);
        Box::pin(async move {
            let Handed { request, outparam } = handed;
            let handler = self.proxy.wasi_http_incoming_handler();
            let result = handler.call_handle(&mut self.store, request, outparam).await;
            (self, result)
        })
    }
}

//! Components that are run as they are, by wasmtime's own implementation of the component model.

use std::sync::Arc;

use wasmtime::component::Resource;
use wasmtime::{Engine, Store};
use wasmtime_wasi_http::p2::bindings::{Proxy, ProxyPre};
use wasmtime_wasi_http::p2::types::{HostIncomingRequest, HostResponseOutparam};
use wasmtime_wasi_http::p3::bindings::{Service, ServicePre};

use super::concurrent::{Arrival, Inbox, Marks, attend, rest};
use super::incoming::incoming;
use super::running::{Concurrent, Running};
use super::state::State;

/// It exports `wasi:http/incoming-handler@0.2.x`.
impl Running for Proxy {
    type Pre = ProxyPre<State>;
    type Handed = (Resource<HostIncomingRequest>, Resource<HostResponseOutparam>);
    const ANSWERS_BY_RETURNING: bool = false;

    fn engine(pre: &Self::Pre) -> &Engine {
        pre.engine()
    }

    async fn make(pre: &Self::Pre, store: &mut Store<State>) -> wasmtime::Result<Self> {
        pre.instantiate_async(store).await
    }

    fn accept(state: &mut State, arrival: Arrival) -> wasmtime::Result<Self::Handed> {
        incoming(state, arrival)
    }

    async fn call(
        &self,
        store: &mut Store<State>,
        (request, outparam): Self::Handed,
    ) -> wasmtime::Result<()> {
        self.wasi_http_incoming_handler().call_handle(store, request, outparam).await
    }
}

/// It exports `wasi:http/handler@0.3.x`.
impl Running for Service {
    type Pre = ServicePre<State>;
    type Handed = Box<Arrival>;
    const HAS_MANY_STACKS: bool = true;
    const ANSWERS_BY_RETURNING: bool = true;

    fn engine(pre: &Self::Pre) -> &Engine {
        pre.engine()
    }

    async fn make(pre: &Self::Pre, store: &mut Store<State>) -> wasmtime::Result<Self> {
        pre.instantiate_async(store).await
    }

    fn accept(_state: &mut State, arrival: Arrival) -> wasmtime::Result<Self::Handed> {
        arrival.with_authority()
    }

    async fn call(&self, store: &mut Store<State>, arrival: Self::Handed) -> wasmtime::Result<()> {
        let call = store.run_concurrent(async |accessor| {
            arrival.answer(accessor, self).await?;
            rest(accessor).await;
            Ok(())
        });
        call.await.flatten()
    }
}

impl Concurrent for Service {
    async fn attend(
        &self,
        store: &mut Store<State>,
        inbox: Arc<Inbox>,
        marks: Arc<Marks>,
    ) -> wasmtime::Result<()> {
        attend(store, self, &inbox, &marks).await
    }
}

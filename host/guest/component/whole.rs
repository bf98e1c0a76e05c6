//! Components that run as they are, in wasmtime's own implementation of the component model.

use std::sync::Arc;

use wasmtime::component::Resource;
use wasmtime::{Engine, Store};
use wasmtime_wasi_http::p2::bindings::{Proxy, ProxyPre};
use wasmtime_wasi_http::p2::types::{HostIncomingRequest, HostResponseOutparam};
use wasmtime_wasi_http::p3::bindings::{Service, ServicePre};

use super::component_form::{ComponentForm, Concurrent};
use super::concurrent::{Arrival, Inbox, InstanceFlags, serve_concurrent, wait_for_tasks};
use super::incoming::incoming;
use super::state::ComponentState;

/// A component that exports `wasi:http/incoming-handler@0.2.x`.
impl ComponentForm for Proxy {
    type Pre = ProxyPre<ComponentState>;
    type Handed = (Resource<HostIncomingRequest>, Resource<HostResponseOutparam>);
    const RETURNS_RESPONSE: bool = false;

    fn engine(pre: &Self::Pre) -> &Engine {
        pre.engine()
    }

    async fn make(pre: &Self::Pre, store: &mut Store<ComponentState>) -> wasmtime::Result<Self> {
        pre.instantiate_async(store).await
    }

    fn accept(state: &mut ComponentState, arrival: Arrival) -> wasmtime::Result<Self::Handed> {
        incoming(state, arrival)
    }

    async fn call(
        &self,
        store: &mut Store<ComponentState>,
        (request, outparam): Self::Handed,
    ) -> wasmtime::Result<()> {
        self.wasi_http_incoming_handler().call_handle(store, request, outparam).await
    }
}

/// A component that exports `wasi:http/handler@0.3.x`.
impl ComponentForm for Service {
    type Pre = ServicePre<ComponentState>;
    type Handed = Box<Arrival>;
    const HAS_MANY_STACKS: bool = true;
    const RETURNS_RESPONSE: bool = true;

    fn engine(pre: &Self::Pre) -> &Engine {
        pre.engine()
    }

    async fn make(pre: &Self::Pre, store: &mut Store<ComponentState>) -> wasmtime::Result<Self> {
        pre.instantiate_async(store).await
    }

    fn accept(_state: &mut ComponentState, arrival: Arrival) -> wasmtime::Result<Self::Handed> {
        arrival.with_authority()
    }

    async fn call(
        &self,
        store: &mut Store<ComponentState>,
        arrival: Self::Handed,
    ) -> wasmtime::Result<()> {
        let call = store.run_concurrent(async |accessor| {
            arrival.answer(accessor, self).await?;
            wait_for_tasks(accessor).await;
            Ok(())
        });
        call.await.flatten()
    }
}

impl Concurrent for Service {
    async fn serve(
        &self,
        store: &mut Store<ComponentState>,
        inbox: Arc<Inbox>,
        flags: Arc<InstanceFlags>,
    ) -> wasmtime::Result<()> {
        serve_concurrent(store, self, &inbox, &flags).await
    }
}

//! Flat components: components that run as their one core module.

use std::sync::Arc;

use wasmtime::{
    Engine, Global, InstancePre, Memory, ModuleExport, Store, TypedFunc, WasmParams, WasmResults,
};

use super::event_loop::{ArrivalSource, CallbackExports, run_event_loop};
use crate::guest::component::component_form::{ComponentForm, Concurrent};
use crate::guest::component::concurrent::{Arrival, Inbox, InstanceFlags};
use crate::guest::component::incoming::incoming;
use crate::guest::component::state::ComponentState;

/// The linked module and its exports. `C` is the callback's export, if there is one.
pub struct FlatPre<C> {
    /// What instances are made from: code with all imports resolved.
    pub pre: InstancePre<ComponentState>,
    /// The module's memory.
    pub memory: ModuleExport,
    /// The handler of requests.
    pub handle: ModuleExport,
    /// The callback of 0.3, or nothing.
    pub callback: C,
    /// The mutable globals, if instances can be reset.
    pub globals: Vec<ModuleExport>,
}

/// A flat component in its store. `H` are the functions by which it is called.
pub struct FlatComponent<H> {
    memory: Memory,
    handle: H,
    /// The mutable globals, if the instance can be reset.
    globals: Box<[Global]>,
}

/// The handler of 0.2: takes the handles of the request and of the outparam for its response.
pub type SyncExport = TypedFunc<(u32, u32), ()>;

/// wasi:http 0.2.
impl ComponentForm for FlatComponent<SyncExport> {
    type Pre = FlatPre<()>;
    type Handed = (u32, u32);
    const RETURNS_RESPONSE: bool = false;

    fn engine(code: &Self::Pre) -> &Engine {
        code.pre.module().engine()
    }

    async fn make(code: &Self::Pre, store: &mut Store<ComponentState>) -> wasmtime::Result<Self> {
        let found = InstantiatedModule::make(code, store).await?;
        let handle = found.function(store, &code.handle)?;
        Ok(found.with(handle))
    }

    fn accept(state: &mut ComponentState, arrival: Arrival) -> wasmtime::Result<Self::Handed> {
        let (request, outparam) = incoming(state, arrival)?;
        let handles = &mut state.canon.handles;
        Ok((handles.put(request)?, handles.put(outparam)?))
    }

    async fn call(
        &self,
        store: &mut Store<ComponentState>,
        handed: Self::Handed,
    ) -> wasmtime::Result<()> {
        self.handle.call_async(store, handed).await
    }

    fn mutable_state(&self) -> Option<(Memory, &[Global])> {
        Some((self.memory, &self.globals))
    }
}

/// wasi:http 0.3.
impl ComponentForm for FlatComponent<CallbackExports> {
    type Pre = FlatPre<ModuleExport>;
    type Handed = Box<Arrival>;
    const RETURNS_RESPONSE: bool = true;

    fn engine(code: &Self::Pre) -> &Engine {
        code.pre.module().engine()
    }

    async fn make(code: &Self::Pre, store: &mut Store<ComponentState>) -> wasmtime::Result<Self> {
        let found = InstantiatedModule::make(code, store).await?;
        let handle = found.function(store, &code.handle)?;
        let callback = found.function(store, &code.callback)?;
        let memory = found.memory;
        Ok(found.with(CallbackExports { memory, handle, callback }))
    }

    fn accept(_state: &mut ComponentState, arrival: Arrival) -> wasmtime::Result<Self::Handed> {
        arrival.with_authority()
    }

    async fn call(
        &self,
        store: &mut Store<ComponentState>,
        arrival: Self::Handed,
    ) -> wasmtime::Result<()> {
        run_event_loop(store, &self.handle, ArrivalSource::One(Some(arrival))).await
    }

    fn mutable_state(&self) -> Option<(Memory, &[Global])> {
        Some((self.memory, &self.globals))
    }
}

impl Concurrent for FlatComponent<CallbackExports> {
    async fn serve(
        &self,
        store: &mut Store<ComponentState>,
        inbox: Arc<Inbox>,
        flags: Arc<InstanceFlags>,
    ) -> wasmtime::Result<()> {
        run_event_loop(store, &self.handle, ArrivalSource::Many(inbox, flags)).await
    }
}

/// An instance before its functions have been looked up.
struct InstantiatedModule {
    instance: wasmtime::Instance,
    memory: Memory,
    globals: Box<[Global]>,
}

impl InstantiatedModule {
    async fn make<C>(
        code: &FlatPre<C>,
        store: &mut Store<ComponentState>,
    ) -> wasmtime::Result<InstantiatedModule> {
        let instance = code.pre.instantiate_async(&mut *store).await?;
        let mut export = |export| instance.get_module_export(&mut *store, export);
        let memory = export(&code.memory).and_then(wasmtime::Extern::into_memory);
        let global = |it| export(it).and_then(wasmtime::Extern::into_global);
        let globals: Option<Box<[Global]>> = code.globals.iter().map(global).collect();
        let (Some(memory), Some(globals)) = (memory, globals) else {
            wasmtime::bail!("an export is not what it was at load");
        };
        store.data_mut().canon.memory = Some(memory);
        Ok(InstantiatedModule { instance, memory, globals })
    }

    fn function<P: WasmParams, R: WasmResults>(
        &self,
        store: &mut Store<ComponentState>,
        export: &ModuleExport,
    ) -> wasmtime::Result<TypedFunc<P, R>> {
        let export = self.instance.get_module_export(&mut *store, export);
        match export.and_then(wasmtime::Extern::into_func) {
            Some(function) => function.typed(&*store),
            None => wasmtime::bail!("an export is not what it was at load"),
        }
    }

    fn with<H>(self, handle: H) -> FlatComponent<H> {
        let InstantiatedModule { memory, globals, .. } = self;
        FlatComponent { memory, handle, globals }
    }
}

//! Components that are run as their one module.

use std::sync::Arc;

use wasmtime::{
    Engine, Global, InstancePre, Memory, ModuleExport, Store, TypedFunc, WasmParams, WasmResults,
};

use super::event_loop::{ArrivalSource, CallbackExports, run_event_loop};
use crate::guest::component::component_form::{ComponentForm, Concurrent};
use crate::guest::component::concurrent::{Arrival, Inbox, InstanceFlags};
use crate::guest::component::incoming::incoming;
use crate::guest::component::state::ComponentState;

/// The code of such a module, and its exports. `C` is where its callback is, if it has one.
pub struct FlatPre<C> {
    pub pre: InstancePre<ComponentState>,
    pub memory: ModuleExport,
    pub handle: ModuleExport,
    pub callback: C,
    /// Mutable globals, where its instances can be reset.
    pub globals: Vec<ModuleExport>,
}

/// Such a module in its store, called by `H`.
pub struct FlatComponent<H> {
    memory: Memory,
    handle: H,
    /// Its mutable globals, where it can be reset.
    globals: Box<[Global]>,
}

/// A call with a request, and the place for its response.
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

/// A module of which the functions are still to be found.
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

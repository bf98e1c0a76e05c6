//! From a compiled module to a [`Guest`]: what a guest may import, and where its exports are.
//!
//! Owns the linkers, one per engine. Compilers and the serving host both use them, so that both
//! judge alike.

#[cfg(test)]
mod tests;

use std::sync::Arc;

use anyhow::Result;
use guesthouse_module::flatten::MEMORY;
use guesthouse_module::reset;
use wasmtime::{InstancePre, Linker, Module, ModuleExport, component};
use wasmtime_wasi_http::p2::bindings::ProxyPre;
use wasmtime_wasi_http::p3::bindings::ServicePre;

use super::cache;
use super::cache::ArtifactMetadata;
use crate::grants::Grants;
use crate::guest::component as components;
use crate::guest::component::{ComponentCode, ComponentState, FlatPre};
use crate::guest::core;
use crate::guest::core::CoreState;
use crate::guest::core::poll;
use crate::guest::core::{CoreCode, Exports, Startup};
use crate::guest::engine::budget::Budget;
use crate::guest::engine::class::{Class, small_index};
use crate::guest::engine::engines::Engines;
use crate::guest::engine::form::Form;
use crate::guest::engine::guest_info::GuestInfo;
use crate::guest::engine::load_failure::LoadFailure;
use crate::guest::engine::slot_quota::SlotQuota;
use crate::guest::engine::slots::{CONCURRENT_ENGINE, ENGINES, LARGE_ENGINE};
use crate::guest::instance::guest::Guest;

/// The linkers with everything that guests may import, for each engine.
pub struct Linkers {
    /// For the small engines and the large one. Those of components also have the concurrent one.
    core: Vec<Linker<CoreState>>,
    components: Vec<component::Linker<ComponentState>>,
    flat: Vec<Linker<ComponentState>>,
    memory: Budget,
    /// Share out the slots of each engine, by its number.
    slot_quotas: [Arc<SlotQuota>; ENGINES],
}

/// The handler whose code is linked.
pub struct GuestSpec<'a> {
    /// The handler's number, by which every worker's pool knows it.
    pub id: usize,
    /// The handler's name: its file's path below the handler folder, without extension.
    pub name: &'a str,
    /// What the handler may use.
    pub grants: &'a Arc<Grants>,
}

impl GuestSpec<'_> {
    /// The info of a new guest, charged to `memory`.
    pub fn about(&self, memory: &Budget) -> Arc<GuestInfo> {
        GuestInfo::new(self.name, self.grants, memory)
    }
}

impl Linkers {
    /// Makes the linkers of all engines.
    ///
    /// # Errors
    /// wasmtime refuses a definition.
    pub fn new(engines: &Engines) -> Result<Self> {
        let all = || engines.small.iter().chain([&engines.large]);
        Ok(Linkers {
            core: all().map(linker).collect::<Result<_>>()?,
            components: all()
                .map(components::linker)
                .chain([components::concurrent_linker(&engines.concurrent)])
                .collect::<Result<_>>()?,
            flat: all().map(components::flat_linker).collect::<Result<_>>()?,
            memory: engines.memory.clone(),
            slot_quotas: std::array::from_fn(|index| {
                SlotQuota::new(index, engines.slots.of_engine(index))
            }),
        })
    }

    /// Links a guest's code. Runs none of it.
    ///
    /// # Errors
    /// Imports or exports do not fit, or the kernel is short of something.
    pub fn link(
        &self,
        spec: &GuestSpec<'_>,
        metadata: &ArtifactMetadata,
        code: &cache::CompiledCode,
    ) -> Result<Guest, LoadFailure> {
        let index = match metadata.class {
            Class::Small => small_index(metadata.memory_bytes),
            Class::Large => LARGE_ENGINE,
            Class::Concurrent => CONCURRENT_ENGINE,
        };
        let has_start = metadata.startup_each.is_some();
        let whole = |component| self.components[index].instantiate_pre(component);
        let flat =
            |module| self.flat[index].instantiate_pre(module).map_err(|it| link_failure(&it));
        let code = match code {
            Form::Core(module) => Form::Core(link_core(&self.core[index], metadata, module)?),
            Form::Whole02(component) => {
                let pre =
                    whole(component).and_then(ProxyPre::new).map_err(|it| link_failure(&it))?;
                Form::Whole02(ComponentCode { pre, has_start })
            }
            Form::Whole03(component) => {
                let pre =
                    whole(component).and_then(ServicePre::new).map_err(|it| link_failure(&it))?;
                Form::Whole03(ComponentCode { pre, has_start })
            }
            Form::Flat02((module, handle)) => {
                let pre = link_flat(flat(module)?, metadata, handle, ())?;
                Form::Flat02(ComponentCode { pre, has_start })
            }
            Form::Flat03((module, (handle, callback))) => {
                let callback = export(module, callback)?;
                let pre = link_flat(flat(module)?, metadata, handle, callback)?;
                Form::Flat03(ComponentCode { pre, has_start })
            }
        };
        Ok(Guest {
            id: spec.id,
            engine: index,
            info: spec.about(&self.memory),
            record_bytes: metadata.record_bytes,
            slots: metadata.slots,
            slot_quota: self.slot_quotas[index].clone(),
            code,
            baseline: None,
            retired: false.into(),
            _charge: None,
            _reservation: None,
            _freed: None,
        })
    }
}

fn link_core(
    linker: &Linker<CoreState>,
    metadata: &ArtifactMetadata,
    module: &Module,
) -> Result<CoreCode, LoadFailure> {
    let pre = linker.instantiate_pre(module).map_err(|error| link_failure(&error))?;
    let startup = match &metadata.startup_each {
        None => Startup::Done,
        Some(why) => {
            let functions = metadata.startup_functions.iter().map(|name| export(module, name));
            let functions: Result<_, _> = functions.collect();
            Startup::Each { functions: functions?, why: why.clone() }
        }
    };
    let exports = Exports {
        memory: export(module, "memory")?,
        handle_request: export(module, "handle_request")?,
        handle_response: module.get_export_index("handle_response"),
        globals: globals(module, metadata)?,
    };
    Ok(CoreCode { pre, exports, features: metadata.features, startup })
}

fn link_flat<C>(
    pre: InstancePre<ComponentState>,
    metadata: &ArtifactMetadata,
    handle: &str,
    callback: C,
) -> Result<FlatPre<C>, LoadFailure> {
    let module = pre.module();
    let (memory, handle) = (export(module, MEMORY)?, export(module, handle)?);
    let globals = globals(module, metadata)?;
    Ok(FlatPre { pre, memory, handle, callback, globals })
}

fn export(module: &Module, name: &str) -> Result<ModuleExport, LoadFailure> {
    let export = module.get_export_index(name);
    export.ok_or_else(|| LoadFailure::of_file(format!("export {name} has gone missing")))
}

/// The mutable globals that were exported for resets.
fn globals(module: &Module, metadata: &ArtifactMetadata) -> Result<Vec<ModuleExport>, LoadFailure> {
    let names = (0..metadata.reset_globals.unwrap_or(0)).map(reset::export_name);
    names.map(|name| export(module, &name)).collect()
}

fn link_failure(error: &wasmtime::Error) -> LoadFailure {
    LoadFailure::of_engine("its imports or exports do not fit", error)
}

/// A linker with everything that a core guest may import.
pub fn linker(engine: &wasmtime::Engine) -> Result<Linker<CoreState>> {
    let mut linker = Linker::new(engine);
    core::add_to_linker(&mut linker)?;
    wasmtime_wasi::p1::add_to_linker_async(&mut linker, CoreState::wasi)?;
    poll::add_to_linker(&mut linker)?;
    Ok(linker)
}

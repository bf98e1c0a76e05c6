//! From a compiled module to a [`Guest`]: what a guest may import, and where its exports are.
//!
//! Owns the linkers, one per engine. Used where guests are compiled and where they are served, so
//! that both judge alike.

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

/// Everything that guests may import, for each engine.
pub struct Linkers {
    /// For the small engines, then for the large one; of components, then for the concurrent one.
    core: Vec<Linker<CoreState>>,
    components: Vec<component::Linker<ComponentState>>,
    flat: Vec<Linker<ComponentState>>,
    memory: Budget,
    /// Who has the slots of each engine, by its number.
    tenants: [Arc<SlotQuota>; ENGINES],
}

/// Whose module is linked.
pub struct GuestSpec<'a> {
    /// The guest's place in the pools of every worker.
    pub id: usize,
    pub name: &'a str,
    pub grants: &'a Arc<Grants>,
}

impl GuestSpec<'_> {
    pub fn about(&self, memory: &Budget) -> Arc<GuestInfo> {
        GuestInfo::new(self.name, self.grants, memory)
    }
}

impl Linkers {
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
            tenants: std::array::from_fn(|index| {
                SlotQuota::new(index, engines.slots.of_engine(index))
            }),
        })
    }

    /// Links a guest's code. Runs nothing of it.
    ///
    /// # Errors
    /// Imports or exports are not as they were when it was judged, or the kernel is short of
    /// something.
    pub fn link(
        &self,
        spec: &GuestSpec<'_>,
        facts: &ArtifactMetadata,
        code: &cache::CompiledCode,
    ) -> Result<Guest, LoadFailure> {
        let index = match facts.class {
            Class::Small => small_index(facts.memory_bytes),
            Class::Large => LARGE_ENGINE,
            Class::Concurrent => CONCURRENT_ENGINE,
        };
        let has_start = facts.startup_each.is_some();
        let whole = |component| self.components[index].instantiate_pre(component);
        let flat =
            |module| self.flat[index].instantiate_pre(module).map_err(|it| link_failure(&it));
        let code = match code {
            Form::Core(module) => Form::Core(link_core(&self.core[index], facts, module)?),
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
                let pre = link_flat(flat(module)?, facts, handle, ())?;
                Form::Flat02(ComponentCode { pre, has_start })
            }
            Form::Flat03((module, (handle, callback))) => {
                let callback = export(module, callback)?;
                let pre = link_flat(flat(module)?, facts, handle, callback)?;
                Form::Flat03(ComponentCode { pre, has_start })
            }
        };
        Ok(Guest {
            id: spec.id,
            engine: index,
            info: spec.about(&self.memory),
            record_bytes: facts.record_bytes,
            slots: facts.slots,
            slot_quota: self.tenants[index].clone(),
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
    facts: &ArtifactMetadata,
    module: &Module,
) -> Result<CoreCode, LoadFailure> {
    let pre = linker.instantiate_pre(module).map_err(|error| link_failure(&error))?;
    let startup = match &facts.startup_each {
        None => Startup::Done,
        Some(why) => {
            let functions = facts.startup_functions.iter().map(|name| export(module, name));
            let functions: Result<_, _> = functions.collect();
            Startup::Each { functions: functions?, why: why.clone() }
        }
    };
    let exports = Exports {
        memory: export(module, "memory")?,
        handle_request: export(module, "handle_request")?,
        handle_response: module.get_export_index("handle_response"),
        globals: globals(module, facts)?,
    };
    Ok(CoreCode { pre, exports, features: facts.features, startup })
}

fn link_flat<C>(
    pre: InstancePre<ComponentState>,
    facts: &ArtifactMetadata,
    handle: &str,
    callback: C,
) -> Result<FlatPre<C>, LoadFailure> {
    let module = pre.module();
    let (memory, handle) = (export(module, MEMORY)?, export(module, handle)?);
    let globals = globals(module, facts)?;
    Ok(FlatPre { pre, memory, handle, callback, globals })
}

fn export(module: &Module, name: &str) -> Result<ModuleExport, LoadFailure> {
    let export = module.get_export_index(name);
    export.ok_or_else(|| LoadFailure::of_file(format!("export {name} has gone missing")))
}

/// The mutable globals that were exported for resets.
fn globals(module: &Module, facts: &ArtifactMetadata) -> Result<Vec<ModuleExport>, LoadFailure> {
    let names = (0..facts.reset_globals.unwrap_or(0)).map(reset::export_name);
    names.map(|name| export(module, &name)).collect()
}

fn link_failure(error: &wasmtime::Error) -> LoadFailure {
    LoadFailure::of_engine("its imports or exports do not fit", error)
}

/// A linker with everything a core guest may import.
pub fn linker(engine: &wasmtime::Engine) -> Result<Linker<CoreState>> {
    let mut linker = Linker::new(engine);
    core::add_to_linker(&mut linker)?;
    wasmtime_wasi::p1::add_to_linker_async(&mut linker, CoreState::wasi)?;
    poll::add_to_linker(&mut linker)?;
    Ok(linker)
}

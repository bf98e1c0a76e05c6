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

use super::about::About;
use super::budget::Budget;
use super::cache::{self, Facts, Kind};
use super::class::{Class, small_index};
use super::component::{self as components, ComponentCode, FlatCode, Pre, State};
use super::core::Call;
use super::core::{CoreCode, Exports, Startup};
use super::engine::Engines;
use super::failure::Failure;
use super::slots::{CONCURRENT_ENGINE, ENGINES, LARGE_ENGINE};
use super::tenants::Tenants;
use super::{Code, Guest, core, poll};
use crate::grants::Grants;

/// Everything that guests may import, for each engine.
pub struct Linkers {
    /// For the small engines, then for the large one; of components, then for the concurrent one.
    core: Vec<Linker<Call>>,
    components: Vec<component::Linker<State>>,
    flat: Vec<Linker<State>>,
    memory: Budget,
    /// Who has the slots of each engine, by its number.
    tenants: [Arc<Tenants>; ENGINES],
}

/// Whose module is linked.
pub struct Identity<'a> {
    /// The guest's place in the pools of every worker.
    pub id: usize,
    pub name: &'a str,
    pub grants: &'a Arc<Grants>,
}

impl Identity<'_> {
    pub fn about(&self, memory: &Budget) -> Arc<About> {
        About::new(self.name, self.grants, memory)
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
                Tenants::new(index, engines.slots.of_engine(index))
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
        whose: &Identity<'_>,
        facts: &Facts,
        code: &cache::Code,
    ) -> Result<Guest, Failure> {
        let index = match facts.class {
            Class::Small => small_index(facts.memory_bytes),
            Class::Large => LARGE_ENGINE,
            Class::Concurrent => CONCURRENT_ENGINE,
        };
        let code = match (code, &facts.kind) {
            (cache::Code::Core(module), Kind::Flat { handle, callback }) => {
                let pre = self.flat[index].instantiate_pre(module);
                let pre = pre.map_err(|error| misfit(&error))?;
                let exports = (handle.as_str(), callback.as_deref());
                Code::Component(link_flat(pre, facts, module, exports)?)
            }
            (cache::Code::Core(module), _) => {
                Code::Core(link_core(&self.core[index], facts, module)?)
            }
            (cache::Code::Component(component), kind) => {
                let pre = self.components[index].instantiate_pre(component);
                let pre = pre.and_then(|pre| Pre::of(pre, kind)).map_err(|error| misfit(&error))?;
                Code::Component(ComponentCode { pre, has_start: facts.startup_each.is_some() })
            }
        };
        Ok(Guest {
            id: whose.id,
            engine: index,
            about: whose.about(&self.memory),
            record_bytes: facts.record_bytes,
            slots: facts.slots,
            tenants: self.tenants[index].clone(),
            code,
            retired: false.into(),
            _charge: None,
            _held: None,
            _freed: None,
        })
    }
}

fn link_core(linker: &Linker<Call>, facts: &Facts, module: &Module) -> Result<CoreCode, Failure> {
    let pre = linker.instantiate_pre(module).map_err(|error| misfit(&error))?;
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
    Ok(CoreCode { pre, exports, features: facts.features, startup, baseline: None })
}

fn link_flat(
    pre: InstancePre<State>,
    facts: &Facts,
    module: &Module,
    (handle, callback): (&str, Option<&str>),
) -> Result<ComponentCode, Failure> {
    let flat = FlatCode {
        memory: export(module, MEMORY)?,
        handle: export(module, handle)?,
        callback: callback.map(|callback| export(module, callback)).transpose()?,
        globals: globals(module, facts)?,
        baseline: None,
        pre,
    };
    Ok(ComponentCode { pre: Pre::Flat(flat), has_start: false })
}

fn export(module: &Module, name: &str) -> Result<ModuleExport, Failure> {
    let export = module.get_export_index(name);
    export.ok_or_else(|| Failure::of_file(format!("export {name} has gone missing")))
}

/// The mutable globals that were exported for resets.
fn globals(module: &Module, facts: &Facts) -> Result<Vec<ModuleExport>, Failure> {
    let names = (0..facts.reset_globals.unwrap_or(0)).map(reset::export_name);
    names.map(|name| export(module, &name)).collect()
}

fn misfit(error: &wasmtime::Error) -> Failure {
    Failure::of_engine("its imports or exports do not fit", error)
}

/// A linker with everything a core guest may import.
pub fn linker(engine: &wasmtime::Engine) -> Result<Linker<Call>> {
    let mut linker = Linker::new(engine);
    core::add_to_linker(&mut linker)?;
    wasmtime_wasi::p1::add_to_linker_async(&mut linker, Call::wasi)?;
    poll::add_to_linker(&mut linker)?;
    Ok(linker)
}

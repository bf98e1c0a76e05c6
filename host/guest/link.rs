//! From a compiled module to a [`Guest`]: what a guest may import, and where its exports are.
//!
//! Owns the linkers, one per engine. Used where guests are compiled and where they are served, so
//! that both judge alike.

use std::sync::Arc;

use anyhow::Result;
use wasmtime::{Linker, Module, Store};

use super::budget::Budget;
use super::cache::Facts;
use super::call::Call;
use super::engine::{Class, Engines, small_index};
use super::imports::Offer;
use super::load::Reason;
use super::{About, Exports, Guest, Startup, core, reset, startup};
use crate::config::{Isolation, Limits};

/// Everything that guests may import, for each engine.
pub struct Linkers {
    small: Vec<Linker<Call>>,
    large: Linker<Call>,
    memory: Budget,
}

/// Whose module is linked.
pub struct Identity<'a> {
    /// The guest's place in the pools of every worker.
    pub id: usize,
    pub name: &'a str,
    pub isolation: Isolation,
    pub limits: &'a Limits,
}

impl Identity<'_> {
    pub fn about(&self, memory: &Budget) -> Arc<About> {
        About::new(self.name, self.limits, memory)
    }
}

impl Linkers {
    pub fn new(engines: &Engines) -> Result<Self> {
        let small: Result<_> = engines.small.iter().map(linker).collect();
        let (large, memory) = (linker(&engines.large)?, engines.memory.clone());
        Ok(Linkers { small: small?, large, memory })
    }

    /// The types of all that a guest may import.
    pub fn offer(&self) -> Offer {
        offer(&self.large)
    }

    /// Links a module. Runs nothing of it.
    ///
    /// # Errors
    /// A sentence, where imports or exports are not as they were when it was judged.
    pub fn link(
        &self,
        whose: &Identity<'_>,
        facts: &Facts,
        module: &Module,
    ) -> Result<Guest, Reason> {
        let linker = match facts.class {
            Class::Small => &self.small[small_index(facts.memory_bytes)],
            Class::Large => &self.large,
        };
        let pre = linker
            .instantiate_pre(module)
            .map_err(|error| format!("its imports do not fit: {error:#}"))?;
        let export = |name: &str| {
            module.get_export_index(name).ok_or_else(|| format!("export {name} has gone missing"))
        };
        let startup = match &facts.startup_each {
            None => Startup::Done,
            Some(why) => {
                let functions = facts.startup_functions.iter().map(|name| export(name));
                let functions: Result<_, _> = functions.collect();
                Startup::Each { functions: functions?, why: why.clone() }
            }
        };
        let globals = (0..facts.reset_globals.unwrap_or(0)).map(reset::export_name);
        let globals: Result<_, _> = globals.map(|name| export(&name)).collect();
        Ok(Guest {
            id: whose.id,
            isolation: whose.isolation,
            about: whose.about(&self.memory),
            exports: Exports {
                memory: export("memory")?,
                handle_request: export("handle_request")?,
                handle_response: module.get_export_index("handle_response"),
                globals: globals?,
            },
            features: facts.features,
            startup,
            baseline: None,
            retired: false.into(),
            _charge: None,
            pre,
        })
    }
}

/// A linker with everything a core guest may import.
pub fn linker(engine: &wasmtime::Engine) -> Result<Linker<Call>> {
    let mut linker = Linker::new(engine);
    core::add_to_linker(&mut linker)?;
    wasmtime_wasi::p1::add_to_linker_async(&mut linker, Call::wasi)?;
    Ok(linker)
}

/// The types of all that a linker has.
fn offer(linker: &Linker<Call>) -> Offer {
    let mut store = Store::new(linker.engine(), Call::new(startup::nobody(), 0));
    let functions: Vec<_> = linker
        .iter(&mut store)
        .filter_map(|(module, name, item)| {
            Some((module.to_owned(), name.to_owned(), item.into_func()?))
        })
        .collect();
    functions
        .into_iter()
        .map(|(module, name, function)| {
            let ty = function.ty(&store);
            let list = |types: Vec<String>| types.join(", ");
            let params = list(ty.params().map(|ty| ty.to_string()).collect());
            let results = list(ty.results().map(|ty| ty.to_string()).collect());
            let text = match results.as_str() {
                "" => format!("({params})"),
                results => format!("({params}) -> {results}"),
            };
            ((module, name), text)
        })
        .collect()
}

//! Flattening: extracts the one core module of a component, so that the host can run the module
//! alone. Toolchains make such components from a program in one language.
//!
//! The component maps each import of its module to a function of an interface. It also says how
//! values are passed: in the module's memory, allocated by the module's `cabi_realloc`. If all of
//! that has the usual form, the module can run without the component, with host functions that
//! implement the canonical ABI (`flat.rs` of the host). A flat instance costs a fraction of a
//! component's.
//!
//! Owns the proof that the module alone behaves like the component. A component without that proof
//! is not flattened, and the error says why.

mod builtin;
mod graph;
mod http_types;
mod proof;
mod realloc_plan;
mod shim;
#[cfg(test)]
mod tests;

use wasm_encoder::{EntityType, ImportSection, Module as Encoder, RawSection};
use wasmparser::{Parser, Payload, TypeRef};

use graph::{CoreFunc, CoreInstance, ODD, read};
pub use proof::MEMORY;
use proof::{Proof, Target};
pub use realloc_plan::{REALLOC_DONE, REALLOC_IMPORT};

use super::component::WasiHttpVersion;
use super::imports::Escape;

/// The core module of a flat component. Its imports are renamed to the modules and functions of
/// the host's table of interfaces, which have no version but `@0.3`.
#[derive(Debug)]
pub struct FlatModule {
    /// The rewritten module.
    pub wasm: Vec<u8>,
    /// The name of the export that handles requests.
    pub handle: String,
    /// The name of the export that receives events (0.3 only): the callback of the component
    /// model's asynchronous ABI.
    pub callback: Option<String>,
}

/// Extracts the one core module of a component, if it can be proven to behave like the component.
/// `bytes` has to be a valid component. `version` is the one that it is served by. `escape` is
/// applied to names from the component that are shown in the error.
///
/// # Errors
/// Why the proof does not hold: what the component has that a flat one may not have.
pub fn flatten(
    bytes: &[u8],
    version: WasiHttpVersion,
    escape: Escape,
) -> Result<FlatModule, String> {
    let graph = read(bytes)?;
    let (lifted, options) = graph.handler(match version {
        WasiHttpVersion::Http02 => "wasi:http/incoming-handler@0.2.",
        WasiHttpVersion::Http03 => "wasi:http/handler@0.3.",
    })?;
    let export = |index: u32| match graph.core_funcs.get(index as usize) {
        Some(CoreFunc::Export(instance, name)) => Ok((*instance, *name)),
        _ => Err("its handler is not a function of a core module"),
    };
    let (main, handle) = export(lifted)?;
    let callback = match (version, options.is_async, options.callback) {
        (WasiHttpVersion::Http02, false, None) => None,
        (WasiHttpVersion::Http03, true, Some(callback)) => {
            let (instance, name) = export(callback)?;
            (instance == main).then_some(()).ok_or(ODD)?;
            Some(name.to_owned())
        }
        (WasiHttpVersion::Http02, ..) => return Err("its handler of 0.2 is asynchronous".into()),
        (WasiHttpVersion::Http03, ..) => {
            return Err("its handler is not lifted with a callback".into());
        }
    };
    let Some(CoreInstance::Of(module, args)) = graph.core_instances.get(main as usize) else {
        return Err(ODD.into());
    };
    let mut proof = Proof::new(&graph, main, escape);
    proof.check_count()?;
    proof.check(options)?;
    let wasm = *graph.modules.get(*module as usize).ok_or(ODD)?;
    let targets = proof.targets(wasm, args)?;
    proof.nothing_else_runs()?;
    let wasm = rename(wasm, &targets)?;
    let needs: Vec<bool> = targets.iter().map(|target| target.function.needs_realloc).collect();
    let wasm = realloc_plan::add_trampolines(&wasm, proof.realloc, &needs)?;
    Ok(FlatModule { wasm, handle: handle.to_owned(), callback })
}

/// Rewrites the import section: each import gets the module and the name of its target.
fn rename(wasm: &[u8], targets: &[Target]) -> Result<Vec<u8>, String> {
    let mut encoder = Encoder::new();
    for payload in Parser::new(0).parse_all(wasm) {
        let payload = payload.map_err(|_| ODD)?;
        if let Payload::ImportSection(section) = &payload {
            let mut imports = ImportSection::new();
            for (import, target) in section.clone().into_imports().zip(targets) {
                let TypeRef::Func(ty) = import.map_err(|_| ODD)?.ty else {
                    return Err(ODD.into());
                };
                imports.import(target.module, &target.name(), EntityType::Function(ty));
            }
            encoder.section(&imports);
        } else if let Some((id, range)) = payload.as_section() {
            encoder.section(&RawSection { id, data: wasm.get(range).ok_or(ODD)? });
        }
    }
    Ok(encoder.finish())
}

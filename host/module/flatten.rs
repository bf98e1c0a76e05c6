//! Components that are nothing but one core module: what toolchains make of a program in one
//! language.
//!
//! Such a component says, for each import of its module, which function of which interface it
//! stands for, and how values pass: in the module's memory, made room for by its `cabi_realloc`.
//! Where all of that is in the canonical form, the module can be run on its own, with host
//! functions that follow the canonical ABI (`flat.rs`); that costs a fraction of a component's
//! instance. Owns the proof that it is so. What is not proven stays a component, and why is said.

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

/// A component's one module, its imports renamed to interfaces without versions.
#[derive(Debug)]
pub struct FlatModule {
    pub wasm: Vec<u8>,
    /// The export that handles requests.
    pub handle: String,
    /// The export that is told what is new, of 0.3.
    pub callback: Option<String>,
}

/// The module of a component that has no other, if that can be proven. `bytes` are a valid
/// component that is to be served as `spoken`; `escape` shows the names that it has.
///
/// # Errors
/// Why it is not proven, in words that tell what the component has.
pub fn flatten(
    bytes: &[u8],
    spoken: WasiHttpVersion,
    escape: Escape,
) -> Result<FlatModule, String> {
    let graph = read(bytes)?;
    let (lifted, options) = graph.handler(match spoken {
        WasiHttpVersion::Http02 => "wasi:http/incoming-handler@0.2.",
        WasiHttpVersion::Http03 => "wasi:http/handler@0.3.",
    })?;
    let export = |index: u32| match graph.core_funcs.get(index as usize) {
        Some(CoreFunc::Export(instance, name)) => Ok((*instance, *name)),
        _ => Err("its handler is not a function of a core module"),
    };
    let (main, handle) = export(lifted)?;
    let callback = match (spoken, options.is_async, options.callback) {
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

/// The module with its imports named after what they stand for.
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

//! The proof that the host can reset instances of a module to their initial state, and the exports
//! that a reset needs.
//!
//! Owns the proof. The state of a core instance is its memories, its globals, its tables, and which
//! of its segments were dropped (WebAssembly core specification, 4.2). A module qualifies if
//!
//! * it has one memory that is not large, which a reset can restore;
//! * every mutable global is a number, which a reset can set;
//! * its code has no instruction that changes a table or drops a segment.
//!
//! At run time the host still has to check that the memory has not grown.
//!
//! The loader rewrites the module after this proof (`interrupt.rs`). The proof still holds, because
//! the added code is empty loops, functions, and writes to the memory in pieces: no instruction of
//! it changes a global, table or segment. What else is rewritten are references to imports in
//! element segments and in initial values of globals.

#[cfg(test)]
mod tests;

use wasm_encoder::{ExportKind, ExportSection, Module as Encoder, RawSection};
use wasmparser::{Encoding, Operator, Parser, Payload, TypeRef, ValType};

/// The largest memory that can be reset. 2 MiB holds the 1 MiB stack that Rust gives a module, and
/// one system call can find the written pages in that range.
pub const MEMORY_BYTES_MAX: u64 = 2 * 1024 * 1024;
/// The version of the proof below. It is part of every cache key, so that a stricter proof does not
/// trust the results of an older one. Raise it with every change of the proof.
pub const PROOF_VERSION: u32 = 3;
/// The most mutable globals of a module that qualifies. Compilers make one to three.
const GLOBALS_MAX: usize = 16;
/// Prefix of the exports by which the host reaches a module's mutable globals.
const EXPORT_PREFIX: &str = "guesthouse:global:";

/// A module whose instances can be reset, with its mutable globals exported.
pub struct Resettable {
    /// The rewritten module.
    pub wasm: Vec<u8>,
    /// The number of its mutable globals. Each has an export named by [`export_name`].
    pub globals: usize,
}

/// The export name of mutable global number `index`, counted among the mutable globals.
pub fn export_name(index: usize) -> String {
    format!("{EXPORT_PREFIX}{index}")
}

/// Exports the mutable globals of a module, so that its instances can be reset. `None` if the proof
/// does not hold. The module has to be valid, and none of its exports may be called at start-up.
pub fn qualify(wasm: &[u8], memory_bytes: u64, memories: usize) -> Option<Resettable> {
    if memories != 1 || memory_bytes > MEMORY_BYTES_MAX {
        return None;
    }
    let mut encoder = Encoder::new();
    let mut mutable = Vec::new();
    let mut has_exports = false;
    for payload in Parser::new(0).parse_all(wasm) {
        let payload = payload.ok()?;
        match &payload {
            Payload::Version { encoding: Encoding::Component, .. }
            | Payload::StartSection { .. } => return None,
            // Imported state does not belong to the instance.
            Payload::ImportSection(section) => {
                for import in section.clone().into_imports() {
                    let TypeRef::Func(_) = import.ok()?.ty else { return None };
                }
            }
            Payload::GlobalSection(section) => {
                for (index, global) in section.clone().into_iter().enumerate() {
                    let ty = global.ok()?.ty;
                    if ty.mutable && !is_number(ty.content_type) {
                        return None;
                    }
                    if ty.mutable {
                        mutable.push(u32::try_from(index).ok()?);
                    }
                }
            }
            Payload::CodeSectionEntry(body) => {
                let mut operators = body.get_operators_reader().ok()?;
                while !operators.eof() {
                    if keeps_state(&operators.read().ok()?) {
                        return None;
                    }
                }
            }
            _ => {}
        }
        if let Payload::ExportSection(section) = &payload {
            has_exports = true;
            encoder.section(&exports(section, &mutable)?);
        } else if let Some((id, range)) = payload.as_section() {
            encoder.section(&RawSection { id, data: wasm.get(range)? });
        }
    }
    let globals = mutable.len();
    let are_shown = has_exports || globals == 0;
    (are_shown && globals <= GLOBALS_MAX).then(|| Resettable { wasm: encoder.finish(), globals })
}

fn is_number(ty: ValType) -> bool {
    matches!(ty, ValType::I32 | ValType::I64 | ValType::F32 | ValType::F64 | ValType::V128)
}

/// Whether an instruction changes state that cannot be reset: it changes a table or drops a
/// segment.
fn keeps_state(operator: &Operator<'_>) -> bool {
    matches!(
        operator,
        Operator::TableSet { .. }
            | Operator::TableGrow { .. }
            | Operator::TableFill { .. }
            | Operator::TableCopy { .. }
            | Operator::TableInit { .. }
            | Operator::ElemDrop { .. }
            | Operator::DataDrop { .. }
    )
}

/// The module's exports, and one more for each mutable global. `None` if the module has an export
/// with the prefix, or one of a kind that is not served.
fn exports(
    section: &wasmparser::ExportSectionReader<'_>,
    mutable: &[u32],
) -> Option<ExportSection> {
    let mut exports = ExportSection::new();
    for export in section.clone() {
        let export = export.ok()?;
        if export.name.starts_with(EXPORT_PREFIX) {
            return None;
        }
        let kind = match export.kind {
            wasmparser::ExternalKind::Func => ExportKind::Func,
            wasmparser::ExternalKind::Table => ExportKind::Table,
            wasmparser::ExternalKind::Memory => ExportKind::Memory,
            wasmparser::ExternalKind::Global => ExportKind::Global,
            wasmparser::ExternalKind::Tag | wasmparser::ExternalKind::FuncExact => return None,
        };
        exports.export(export.name, kind, export.index);
    }
    for (number, index) in mutable.iter().enumerate() {
        exports.export(&export_name(number), ExportKind::Global, *index);
    }
    Some(exports)
}

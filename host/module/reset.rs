//! The proof that instances of a module can be brought back to the state in which they are made,
//! and what is added to the module for that.
//!
//! Owns the proof. The state of a core instance is its memories, its globals, its tables, and which
//! of its segments were dropped (WebAssembly core specification, 4.2). A module qualifies if it
//! has one memory, not large, which can be written anew; if every mutable global is a number, which
//! can be set anew; and if its code holds no instruction that changes a table or drops a segment.
//! What is left is to see that the memory has not grown.
//!
//! What the loader adds behind this proof (`interrupt.rs`) keeps it: empty loops, functions, and
//! writes to the memory in pieces. No global, no table and no segment is added or changed by code.

#[cfg(test)]
mod tests;

use wasm_encoder::{ExportKind, ExportSection, Module as Encoder, RawSection};
use wasmparser::{Encoding, Operator, Parser, Payload, TypeRef, ValType};

/// Memories up to this size can be reset: 2 MiB holds the 1 MiB stack that Rust gives a module, and
/// is what one question to the kernel covers.
pub const MEMORY_BYTES_MAX: u64 = 2 * 1024 * 1024;
/// The version of the proof below. It is part of every cache key: a stricter proof must not
/// trust the verdicts of an older one, so whoever changes it raises this.
pub const PROOF_VERSION: u32 = 3;
/// Mutable globals that are set anew; compilers make one to three.
const GLOBALS_MAX: usize = 16;
/// Prefix of the exports by which the host reaches a module's mutable globals.
const EXPORT_PREFIX: &str = "guesthouse:global:";

/// A module whose instances can be reset, with its mutable globals exported.
pub struct Resettable {
    pub wasm: Vec<u8>,
    /// How many exports of [`export_name`] there are.
    pub globals: usize,
}

/// The name under which the host finds mutable global number `index`.
pub fn export_name(index: usize) -> String {
    format!("{EXPORT_PREFIX}{index}")
}

/// Rewrites a module so that its instances can be reset; `None` if the proof does not hold. The
/// module is valid, and none of its exports runs at start-up.
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
            // State that is imported is not an instance's own.
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

/// Whether an instruction changes what cannot be reset: a table, or whether a segment is there.
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

/// The module's exports, and one for each mutable global. `None` if a name is taken.
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

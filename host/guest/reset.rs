//! Bringing a used instance back to the state in which it was made, where that is provably the
//! same as making a new one, and cheaper.
//!
//! Owns the proof. The state of a core instance is its memories, its globals, its tables, and which
//! of its segments were dropped (WebAssembly core specification, 4.2). A module qualifies if it
//! has one small memory, which can be written anew; if every mutable global is a number, which can
//! be set anew; and if its code holds no instruction that changes a table or drops a segment. What
//! is left is to see that the memory has not grown. Everything else is renewed in full.

use wasm_encoder::{ExportKind, ExportSection, Module as Encoder, RawSection};
use wasmparser::{Operator, Parser, Payload, ValType};
use wasmtime::{Global, Memory, Store, Val};

use super::call::Call;

/// Memories up to this size are written anew. Measured: filling 128 KiB takes 0.7 us, making a new
/// instance 2.9 us, and the fill grows with the size.
pub const MEMORY_BYTES_MAX: u64 = 128 * 1024;
/// The version of the proof below. It is part of every cache key: a stricter proof must not
/// trust the verdicts of an older one, so whoever changes it raises this.
pub const PROOF_VERSION: u32 = 1;
/// Mutable globals that are set anew; compilers make one to three.
const GLOBALS_MAX: usize = 16;
/// After so many resets an instance is renewed in full, so that nothing on the host's side can
/// pile up behind it.
pub const RESETS_MAX: u32 = 4096;
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
/// module is valid, imports only functions, and runs nothing at start-up.
pub fn qualify(wasm: &[u8], memory_bytes: u64, memories: usize) -> Option<Resettable> {
    if memories != 1 || memory_bytes > MEMORY_BYTES_MAX {
        return None;
    }
    let mut encoder = Encoder::new();
    let mut mutable = Vec::new();
    for payload in Parser::new(0).parse_all(wasm) {
        let payload = payload.ok()?;
        match &payload {
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
            encoder.section(&exports(section, &mutable)?);
        } else if let Some((id, range)) = payload.as_section() {
            encoder.section(&RawSection { id, data: wasm.get(range)? });
        }
    }
    let globals = mutable.len();
    (globals <= GLOBALS_MAX).then(|| Resettable { wasm: encoder.finish(), globals })
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

/// The state in which every instance of one guest is made.
pub struct Baseline {
    memory_bytes: usize,
    /// The parts of the memory that are not zero, with where they begin, in order.
    parts: Vec<(usize, Box<[u8]>)>,
    globals: Vec<Val>,
}

/// Zeros between two parts that are worth keeping them apart.
const GAP_BYTES_MIN: usize = 256;

impl Baseline {
    /// Reads the state of an instance that was made just now.
    pub fn read(store: &mut Store<Call>, memory: Memory, globals: &[Global]) -> Self {
        let globals = globals.iter().map(|global| global.get(&mut *store)).collect();
        let bytes = memory.data(&*store);
        Baseline { memory_bytes: bytes.len(), parts: parts(bytes), globals }
    }

    /// Puts an instance of the same guest back into this state. `false` if its memory has grown:
    /// then it has to be renewed.
    pub fn restore(&self, store: &mut Store<Call>, memory: Memory, globals: &[Global]) -> bool {
        let bytes = memory.data_mut(&mut *store);
        if bytes.len() != self.memory_bytes {
            return false;
        }
        let mut end = 0;
        for (start, part) in &self.parts {
            bytes[end..*start].fill(0);
            end = start + part.len();
            bytes[*start..end].copy_from_slice(part);
        }
        bytes[end..].fill(0);
        globals
            .iter()
            .zip(&self.globals)
            .all(|(global, value)| global.set(&mut *store, *value).is_ok())
    }
}

/// The parts of a memory that are not zero.
fn parts(bytes: &[u8]) -> Vec<(usize, Box<[u8]>)> {
    let mut parts = Vec::new();
    let mut at = 0;
    while let Some(start) = bytes[at..].iter().position(|byte| *byte != 0).map(|skip| at + skip) {
        let mut end = start;
        let mut zeros = 0;
        for (index, byte) in bytes.iter().enumerate().skip(start) {
            if *byte != 0 {
                end = index + 1;
                zeros = 0;
            } else {
                zeros += 1;
                if zeros >= GAP_BYTES_MIN {
                    break;
                }
            }
        }
        parts.push((start, bytes[start..end].into()));
        at = end;
    }
    parts
}

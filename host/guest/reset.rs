//! Bringing a used instance back to the state in which it was made, where that is provably the
//! same as making a new one, and cheaper.
//!
//! Owns the proof. The state of a core instance is its memories, its globals, its tables, and which
//! of its segments were dropped (WebAssembly core specification, 4.2). A module qualifies if it
//! has one memory, not large, which can be written anew; if every mutable global is a number, which
//! can be set anew; and if its code holds no instruction that changes a table or drops a segment.
//! What is left is to see that the memory has not grown. Everything else is renewed in full.
//!
//! What the loader adds behind this proof (`interrupt.rs`) keeps it: empty loops, functions, and
//! writes to the memory in pieces. No global, no table and no segment is added or changed by code.

use wasm_encoder::{ExportKind, ExportSection, Module as Encoder, RawSection};
use wasmparser::{Operator, Parser, Payload, ValType};
use wasmtime::{Global, Memory, Store, Val};

use super::pages;

/// Memories up to this size can be reset: 2 MiB holds the 1 MiB stack that Rust gives a module, and
/// is what one question to the kernel covers.
pub const MEMORY_BYTES_MAX: u64 = 2 * 1024 * 1024;
/// Memories up to this size are filled without asking which of their pages were written to, where
/// they are likely to be in a cache. Measured: filling 128 KiB takes 0.7 us there and 6 us or more
/// from memory; to ask takes about 1 us.
const FILL_BYTES_MAX: usize = 128 * 1024;
/// The version of the proof below. It is part of every cache key: a stricter proof must not
/// trust the verdicts of an older one, so whoever changes it raises this.
pub const PROOF_VERSION: u32 = 2;
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
    pub fn read<T: 'static>(store: &mut Store<T>, memory: Memory, globals: &[Global]) -> Self {
        let globals = globals.iter().map(|global| global.get(&mut *store)).collect();
        let bytes = memory.data_mut(&mut *store);
        let memory_bytes = bytes.len();
        let mut parts = Vec::new();
        // Pages that were never written to are not read, either: that would map them.
        let base = bytes.as_ptr() as usize;
        let told = pages::for_each_touched(bytes, |page| {
            add_parts(&mut parts, page.as_ptr() as usize - base, page);
        });
        if !told {
            parts.clear();
            add_parts(&mut parts, 0, bytes);
        }
        Baseline { memory_bytes, parts, globals }
    }

    /// Memory that it takes.
    pub fn bytes(&self) -> usize {
        self.parts.iter().map(|(_, part)| part.len()).sum()
    }

    /// Puts an instance of the same guest back into this state. `is_warm` says that it was used so
    /// recently that its memory is likely to be in a cache. `false` if its memory has grown, or
    /// cannot be told from the state: then it has to be renewed.
    pub fn restore<T: 'static>(
        &self,
        store: &mut Store<T>,
        memory: Memory,
        globals: &[Global],
        is_warm: bool,
    ) -> bool {
        let bytes = memory.data_mut(&mut *store);
        if bytes.len() != self.memory_bytes {
            return false;
        }
        let can_fill = bytes.len() <= FILL_BYTES_MAX;
        let restored = !(can_fill && is_warm) && self.fill_touched(bytes);
        if !restored && !can_fill {
            return false;
        }
        if !restored {
            self.fill(bytes, 0);
        }
        globals
            .iter()
            .zip(&self.globals)
            .all(|(global, value)| global.set(&mut *store, *value).is_ok())
    }

    /// Writes the pages of a memory that may have been written to. `false` where that is not known.
    fn fill_touched(&self, bytes: &mut [u8]) -> bool {
        let base = bytes.as_ptr() as usize;
        pages::for_each_touched(bytes, |page| {
            let offset = page.as_ptr() as usize - base;
            self.fill(page, offset);
        })
    }

    /// Writes a part of a memory, which lies at `offset` in it.
    fn fill(&self, bytes: &mut [u8], offset: usize) {
        let end = offset + bytes.len();
        let first = self.parts.partition_point(|(start, part)| start + part.len() <= offset);
        let mut at = offset;
        for (start, part) in self.parts[first..].iter().take_while(|(start, _)| *start < end) {
            let (from, to) = ((*start).max(offset), (start + part.len()).min(end));
            bytes[at - offset..from - offset].fill(0);
            bytes[from - offset..to - offset].copy_from_slice(&part[from - start..to - start]);
            at = to;
        }
        bytes[at - offset..].fill(0);
    }
}

/// Adds the parts of `bytes`, which lie at `offset` in their memory, that are not zero.
fn add_parts(parts: &mut Vec<(usize, Box<[u8]>)>, offset: usize, bytes: &[u8]) {
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
        parts.push((offset + start, bytes[start..end].into()));
        at = end;
    }
}

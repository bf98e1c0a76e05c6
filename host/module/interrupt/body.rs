//! Rewrites the body of one function. Only the instructions that change are encoded anew; all
//! other bytes are copied.
//!
//! Owns where epoch checks and calls of added functions are put.

use wasm_encoder::{BlockType, InstructionSink};
use wasmparser::{BinaryReader, FunctionBody, Operator};

use super::added_functions::{AddedFunction, AddedFunctions};
use super::base::{PIECE_BYTES, Result, damaged, write_u32};
use super::offsets::OffsetMap;
use super::path_cost::{PathCost, UNITS_OF_ACCESS};
use super::plan::Plan;

/// The engine's limits on a function: its bytes, and its locals with the parameters.
const BODY_BYTES_MAX: usize = 7_654_321;
const LOCALS_MAX: u32 = 50_000;
/// Bytes of a bulk instruction that cost one unit, so that a page costs as much as an access.
const BYTES_PER_UNIT: u32 = 1024;

/// A rewritten function body.
pub struct Rewritten {
    pub bytes: Vec<u8>,
    /// Maps offsets from the first of these bytes on.
    pub offsets: OffsetMap,
    /// Whether anything was added or replaced.
    pub is_changed: bool,
}

/// Rewrites the body of one function of the module `wasm`. `index` counts the functions that the
/// module defines.
pub fn rewrite(
    plan: &Plan,
    helpers: &mut AddedFunctions<'_>,
    (wasm, body): (&[u8], &FunctionBody<'_>),
    index: usize,
) -> Result<Rewritten> {
    let ty = plan.ty(plan.defined[index]);
    let mut locals = body.get_locals_reader().map_err(damaged)?;
    let groups = locals.get_count();
    let mut count = ty.params().len() as u32;
    for _ in 0..groups {
        count = count.saturating_add(locals.read().map_err(damaged)?.0);
    }
    let start = body.get_binary_reader_for_operators().map_err(damaged)?.original_position();
    let mut writer = Writer {
        wasm,
        helpers,
        imports: plan.imports.len() as u32,
        out: Vec::with_capacity(body.range().len()),
        offsets: OffsetMap::default(),
        copied: start,
        path: PathCost::new(plan.deep[index]),
        local: (count < LOCALS_MAX - 1).then_some(count),
        uses_local: false,
        is_changed: false,
    };
    writer.write_all(body)?;
    writer.copy(body.range().end);
    let Writer { out, offsets: code, uses_local, is_changed, .. } = writer;
    let mut bytes = Vec::with_capacity(out.len() + 8);
    if uses_local {
        let declared = body.get_locals_reader().map_err(damaged)?;
        let declared = declared.get_binary_reader().original_position();
        write_u32(&mut bytes, groups as usize + 1);
        bytes.extend_from_slice(wasm.get(declared..start).unwrap_or_default());
        // One more local of type i32.
        bytes.extend_from_slice(&[1, 0x7f]);
    } else {
        bytes.extend_from_slice(wasm.get(body.range().start..start).unwrap_or_default());
    }
    let mut offsets = OffsetMap::default();
    offsets.append(&code, bytes.len());
    bytes.extend_from_slice(&out);
    if bytes.len() > BODY_BYTES_MAX {
        return Err(format!(
            "a function of {} bytes is too long to be interrupted: split it",
            body.range().len()
        ));
    }
    Ok(Rewritten { bytes, offsets, is_changed })
}

/// Whether an instruction only marks the begin or end of a block, and has no machine code.
fn is_structure(operator: &Operator<'_>) -> bool {
    matches!(operator, Operator::Block { .. } | Operator::End)
}

struct Writer<'a, 'b> {
    wasm: &'a [u8],
    helpers: &'a mut AddedFunctions<'b>,
    imports: u32,
    out: Vec<u8>,
    offsets: OffsetMap,
    /// The offset up to which the original has been copied.
    copied: usize,
    path: PathCost,
    /// The index of an additional local, if the function has room for one.
    local: Option<u32>,
    uses_local: bool,
    is_changed: bool,
}

impl Writer<'_, '_> {
    fn write_all(&mut self, body: &FunctionBody<'_>) -> Result<()> {
        let mut operators = body.get_operators_reader().map_err(damaged)?;
        let mut known = None;
        while !operators.eof() {
            let (operator, start) = operators.read_with_offset().map_err(damaged)?;
            let range = start..operators.original_position();
            self.operator(&operator, range, known);
            known = match operator {
                Operator::I32Const { value } => Some(value as u32),
                _ => None,
            };
        }
        Ok(())
    }

    /// Writes one instruction. `known` is the number on top of the stack, if a constant was the
    /// instruction before.
    fn operator(
        &mut self,
        operator: &Operator<'_>,
        range: std::ops::Range<usize>,
        known: Option<u32>,
    ) {
        let bulk = match *operator {
            Operator::MemoryFill { mem } => Some(AddedFunction::Fill(mem)),
            Operator::MemoryCopy { dst_mem, src_mem } => {
                Some(AddedFunction::Copy(dst_mem, src_mem))
            }
            Operator::MemoryInit { data_index, mem } => Some(AddedFunction::Init(mem, data_index)),
            _ => None,
        };
        let is_access = bulk.is_some() || self.is_access(range.start);
        let units = match bulk {
            Some(_) => 1 + known.unwrap_or(PIECE_BYTES).min(PIECE_BYTES) / BYTES_PER_UNIT,
            None if is_access => UNITS_OF_ACCESS,
            None if is_structure(operator) => 0,
            None => 1,
        };
        if self.path.is_too_long_for(self.path.cost_of(units, is_access)) {
            self.insert_epoch_check(range.start, range.start);
        }
        let units = self.path.cost_of(units, is_access);
        let is_small = known.is_some_and(|bytes| bytes <= PIECE_BYTES);
        match (bulk, operator) {
            (Some(helper), _) if !is_small => self.bulk(helper, range.clone()),
            (_, Operator::Call { function_index }) if self.is_import(*function_index) => {
                self.call(*function_index, range.clone(), |code, callee| {
                    code.call(callee);
                });
            }
            (_, Operator::ReturnCall { function_index }) if self.is_import(*function_index) => {
                let write = |code: &mut InstructionSink<'_>, to| {
                    code.return_call(to);
                };
                self.call(*function_index, range.clone(), write);
            }
            (_, Operator::RefFunc { function_index }) if self.is_import(*function_index) => {
                let reference_target = self.helpers.reference_target(*function_index);
                self.replace(range.clone(), |code| {
                    code.ref_func(reference_target);
                });
            }
            _ => {}
        }
        self.path.step(operator, units);
        if self.is_host(operator) && self.path.is_reachable() {
            self.insert_epoch_check(range.end, range.start);
        }
    }

    fn is_import(&self, function: u32) -> bool {
        function < self.imports
    }

    /// Whether the instruction at `start` is a load or a store (core specification, 5.4.7 and
    /// 5.4.9).
    fn is_access(&self, start: usize) -> bool {
        const VECTOR: u8 = 0xfd;
        match self.wasm.get(start..).unwrap_or_default() {
            [0x28..=0x3e, ..] => true,
            // LEB128 allows more bytes than the number needs.
            [VECTOR, number @ ..] => {
                let number = BinaryReader::new(number, start + 1).read_var_u32();
                number.is_ok_and(|number| matches!(number, 0..=11 | 84..=93))
            }
            _ => false,
        }
    }

    /// Whether an instruction calls into the host or the engine for work that may take long.
    fn is_host(&self, operator: &Operator<'_>) -> bool {
        match operator {
            Operator::Call { function_index } => self.is_import(*function_index),
            Operator::MemoryGrow { .. }
            | Operator::TableGrow { .. }
            | Operator::TableFill { .. }
            | Operator::TableCopy { .. }
            | Operator::TableInit { .. } => true,
            _ => false,
        }
    }

    /// Inserts an epoch check at `at`, which counts as code of the instruction at `old`.
    fn insert_epoch_check(&mut self, at: usize, old: usize) {
        self.insert(at, old, |code| {
            code.loop_(BlockType::Empty).end();
        });
        self.path.reset_cost();
    }

    fn call(
        &mut self,
        import: u32,
        range: std::ops::Range<usize>,
        write: impl FnOnce(&mut InstructionSink<'_>, u32),
    ) {
        let callee = self.helpers.callee(import);
        if callee != import {
            self.replace(range, |code| write(code, callee));
        }
    }

    /// Writes a bulk instruction: lengths over one piece go to the added function.
    fn bulk(&mut self, helper: AddedFunction, range: std::ops::Range<usize>) {
        let callee = self.helpers.index(helper);
        let Some(local) = self.local else {
            return self.replace(range, |code| {
                code.call(callee);
            });
        };
        self.uses_local = true;
        let block = self.helpers.block_type();
        self.insert(range.start, range.start, |code| {
            code.local_tee(local).i32_const(PIECE_BYTES as i32).i32_gt_u();
            code.if_(block).local_get(local).call(callee);
            code.else_().local_get(local);
        });
        self.insert(range.end, range.start, |code| {
            code.end();
        });
    }

    /// Copies the original up to the offset `end`.
    fn copy(&mut self, end: usize) {
        if end > self.copied {
            self.offsets.copied(self.out.len(), self.copied);
            self.out.extend_from_slice(self.wasm.get(self.copied..end).unwrap_or_default());
            self.copied = end;
        }
    }

    /// Inserts instructions at `at`, which count as code of the instruction at `old`.
    fn insert(&mut self, at: usize, old: usize, write: impl FnOnce(&mut InstructionSink<'_>)) {
        self.copy(at);
        self.offsets.added(self.out.len(), old);
        write(&mut InstructionSink::new(&mut self.out));
        self.is_changed = true;
    }

    fn replace(
        &mut self,
        range: std::ops::Range<usize>,
        write: impl FnOnce(&mut InstructionSink<'_>),
    ) {
        self.insert(range.start, range.start, write);
        self.copied = range.end;
    }
}

//! The functions that are added to a module. They come after all others, so that the indices of the
//! module's own functions stay the same.
//!
//! Owns their code.

use std::collections::BTreeMap;

use wasm_encoder::reencode::{Reencode, utils};
use wasm_encoder::{
    BlockType, ElementSection, Encode, ExportSection, Function, GlobalSection, InstructionSink,
    NameMap, NameSection, TableSection, ValType,
};
use wasmparser::{BinaryReader, Payload};

use super::base::{PIECE_BYTES, Result, write_u32};
use super::plan::Plan;

/// What an added function does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum AddedFunction {
    /// `memory.fill` of this memory, in pieces.
    Fill(u32),
    /// `memory.copy` to the first memory from the second, in pieces.
    Copy(u32, u32),
    /// `memory.init` of this memory from this segment, in pieces.
    Init(u32, u32),
    /// Calls this import once for each piece of a range.
    Divide(u32),
    /// Calls this import. References to the import in tables, globals and exports are replaced by
    /// the trampoline, so that a call through them enters a function, which has an epoch check.
    Trampoline(u32),
}

/// The added functions of one module.
pub struct AddedFunctions<'a> {
    plan: &'a Plan,
    all: Vec<AddedFunction>,
    indices: BTreeMap<AddedFunction, u32>,
    bodies: Vec<Vec<u8>>,
}

impl<'a> AddedFunctions<'a> {
    /// Adds the trampolines. All other functions are added when they are first asked for.
    pub fn new(plan: &'a Plan) -> Self {
        let (all, indices, bodies) = (Vec::new(), BTreeMap::new(), Vec::new());
        let mut helpers = AddedFunctions { plan, all, indices, bodies };
        for import in &plan.referenced {
            helpers.index(AddedFunction::Trampoline(*import));
        }
        helpers
    }

    /// The index of an added function. The function is added if it is not there yet.
    pub fn index(&mut self, helper: AddedFunction) -> u32 {
        let next = (self.plan.functions() + self.all.len()) as u32;
        *self.indices.entry(helper).or_insert_with(|| {
            self.all.push(helper);
            next
        })
    }

    /// The function to call instead of an import, or the import itself.
    pub fn callee(&mut self, import: u32) -> u32 {
        if self.plan.imports[import as usize].is_divisible {
            return self.index(AddedFunction::Divide(import));
        }
        import
    }

    /// The function that a reference to `function` has to refer to.
    pub fn reference_target(&self, function: u32) -> u32 {
        self.indices.get(&AddedFunction::Trampoline(function)).copied().unwrap_or(function)
    }

    pub fn is_empty(&self) -> bool {
        self.all.is_empty()
    }

    /// The number of added functions.
    pub fn len(&self) -> usize {
        self.all.len()
    }

    /// The type of [`AddedFunction::Fill`], `Copy` and `Init`: three numbers.
    fn bulk_type(&self) -> u32 {
        self.plan.types.len() as u32
    }

    /// The type of a block that takes the first two of these numbers from the stack.
    pub fn block_type(&self) -> BlockType {
        BlockType::FunctionType(self.plan.types.len() as u32 + 1)
    }

    /// Writes the code of the functions. None may be added afterwards.
    pub fn finish(&mut self) {
        let mut done = 0;
        // A trampoline may add another function, which the loop then comes to.
        while let Some(helper) = self.all.get(done).copied() {
            let body = self.body(helper);
            self.bodies.push(body.into_raw_body());
            done += 1;
        }
    }

    /// The entries for the type section.
    pub fn types(&self) -> [Vec<u8>; 2] {
        const I32: u8 = 0x7f;
        const FUNCTION: u8 = 0x60;
        [vec![FUNCTION, 3, I32, I32, I32, 0], vec![FUNCTION, 2, I32, I32, 0]]
    }

    /// The entries for the function section.
    pub fn functions(&self) -> Vec<Vec<u8>> {
        let ty = |helper: &AddedFunction| match *helper {
            AddedFunction::Fill(_) | AddedFunction::Copy(..) | AddedFunction::Init(..) => {
                self.bulk_type()
            }
            AddedFunction::Divide(import) | AddedFunction::Trampoline(import) => {
                self.plan.imports[import as usize].ty
            }
        };
        let entry = |helper| {
            let mut entry = Vec::new();
            write_u32(&mut entry, ty(helper) as usize);
            entry
        };
        self.all.iter().map(entry).collect()
    }

    /// The entries for the code section.
    pub fn bodies(&self) -> &[Vec<u8>] {
        &self.bodies
    }

    /// A custom section with the functions' names, which backtraces show.
    pub fn names(&self) -> Vec<u8> {
        let mut names = NameMap::new();
        for (index, helper) in (self.plan.functions() as u32..).zip(&self.all) {
            names.append(
                index,
                match *helper {
                    AddedFunction::Fill(_) => "memory.fill",
                    AddedFunction::Copy(..) => "memory.copy",
                    AddedFunction::Init(..) => "memory.init",
                    AddedFunction::Divide(import) | AddedFunction::Trampoline(import) => {
                        &self.plan.imports[import as usize].name
                    }
                },
            );
        }
        let mut section = NameSection::new();
        section.functions(&names);
        contents(&section)
    }

    fn body(&mut self, helper: AddedFunction) -> Function {
        match helper {
            AddedFunction::Fill(memory) => fill(memory),
            AddedFunction::Copy(to, from) => copy(to, from),
            AddedFunction::Init(memory, segment) => {
                let bytes = self.plan.segments.get(segment as usize);
                init(memory, segment, bytes.copied().unwrap_or(0))
            }
            AddedFunction::Divide(import) => self.divide(import),
            AddedFunction::Trampoline(import) => {
                let callee = self.callee(import);
                let params = self.plan.ty(self.plan.imports[import as usize].ty).params().len();
                let mut function = Function::new([]);
                let mut code = function.instructions();
                for param in 0..params as u32 {
                    code.local_get(param);
                }
                code.call(callee).end();
                function
            }
        }
    }

    fn divide(&self, import: u32) -> Function {
        let ty = self.plan.ty(self.plan.imports[import as usize].ty);
        let params = ty.params().len() as u32;
        let (pointer, len, error) = (params - 2, params - 1, params);
        let has_error = !ty.results().is_empty();
        let mut function = Function::new(has_error.then_some((1, ValType::I32)));
        let mut code = function.instructions();
        chunk_loop(&mut code, len, |code| {
            for param in 0..len {
                code.local_get(param);
            }
            code.i32_const(PIECE_BYTES as i32).call(import);
            if has_error {
                code.local_tee(error).if_(BlockType::Empty);
                code.local_get(error).return_().end();
            }
            advance(code, pointer);
            shorten(code, len);
        });
        for param in 0..params {
            code.local_get(param);
        }
        code.call(import).end();
        function
    }
}

/// A loop that does `piece` while more than one piece is left. Its header has an epoch check.
fn chunk_loop(
    code: &mut InstructionSink<'_>,
    len: u32,
    piece: impl FnOnce(&mut InstructionSink<'_>),
) {
    code.loop_(BlockType::Empty);
    code.local_get(len).i32_const(PIECE_BYTES as i32).i32_gt_u();
    code.if_(BlockType::Empty);
    piece(code);
    code.br(1).end().end();
}

fn advance(code: &mut InstructionSink<'_>, pointer: u32) {
    code.local_get(pointer).i32_const(PIECE_BYTES as i32).i32_add().local_set(pointer);
}

fn shorten(code: &mut InstructionSink<'_>, len: u32) {
    code.local_get(len).i32_const(PIECE_BYTES as i32).i32_sub().local_set(len);
}

/// Pushes whether the range from `pointer` on is out of the memory's bounds. The length is local 2,
/// and pages have 64 KiB.
fn is_outside(code: &mut InstructionSink<'_>, pointer: u32, memory: u32) {
    code.local_get(pointer).i64_extend_i32_u().local_get(2).i64_extend_i32_u().i64_add();
    code.memory_size(memory).i64_extend_i32_u().i64_const(16).i64_shl();
    code.i64_gt_u();
}

/// If the range is out of bounds, runs the original instruction, which traps before it writes
/// anything.
fn trap(code: &mut InstructionSink<'_>, whole: impl FnOnce(&mut InstructionSink<'_>)) {
    code.if_(BlockType::Empty);
    code.local_get(0).local_get(1).local_get(2);
    whole(code);
    code.unreachable().end();
}

fn fill(memory: u32) -> Function {
    let mut function = Function::new([]);
    let mut code = function.instructions();
    is_outside(&mut code, 0, memory);
    trap(&mut code, |code| {
        code.memory_fill(memory);
    });
    chunk_loop(&mut code, 2, |code| {
        code.local_get(0).local_get(1).i32_const(PIECE_BYTES as i32).memory_fill(memory);
        advance(code, 0);
        shorten(code, 2);
    });
    code.local_get(0).local_get(1).local_get(2).memory_fill(memory).end();
    function
}

fn copy(to: u32, from: u32) -> Function {
    let mut function = Function::new([]);
    let mut code = function.instructions();
    is_outside(&mut code, 0, to);
    is_outside(&mut code, 1, from);
    code.i32_or();
    trap(&mut code, |code| {
        code.memory_copy(to, from);
    });
    if to == from {
        // If the ranges overlap and the target is the later one, the last piece is copied first.
        code.local_get(0).local_get(1).i32_gt_u().if_(BlockType::Empty);
        chunk_loop(&mut code, 2, |code| {
            shorten(code, 2);
            code.local_get(0).local_get(2).i32_add();
            code.local_get(1).local_get(2).i32_add();
            code.i32_const(PIECE_BYTES as i32).memory_copy(to, from);
        });
        code.end();
    }
    chunk_loop(&mut code, 2, |code| {
        code.local_get(0).local_get(1).i32_const(PIECE_BYTES as i32).memory_copy(to, from);
        advance(code, 0);
        advance(code, 1);
        shorten(code, 2);
    });
    code.local_get(0).local_get(1).local_get(2).memory_copy(to, from).end();
    function
}

/// `segment_bytes` is the length before any `data.drop`. A dropped segment is empty, so the first
/// piece traps.
fn init(memory: u32, segment: u32, segment_bytes: u32) -> Function {
    let mut function = Function::new([]);
    let mut code = function.instructions();
    is_outside(&mut code, 0, memory);
    code.local_get(1).i64_extend_i32_u().local_get(2).i64_extend_i32_u().i64_add();
    code.i64_const(i64::from(segment_bytes)).i64_gt_u().i32_or();
    trap(&mut code, |code| {
        code.memory_init(memory, segment);
    });
    chunk_loop(&mut code, 2, |code| {
        code.local_get(0).local_get(1).i32_const(PIECE_BYTES as i32);
        code.memory_init(memory, segment);
        advance(code, 0);
        advance(code, 1);
        shorten(code, 2);
    });
    code.local_get(0).local_get(1).local_get(2).memory_init(memory, segment).end();
    function
}

/// The contents of a section with references to trampolines instead of imports. `None` if the
/// section stays as it is.
pub fn redirected(payload: &Payload<'_>, helpers: &AddedFunctions<'_>) -> Result<Option<Vec<u8>>> {
    if helpers.plan.referenced.is_empty() {
        return Ok(None);
    }
    let mut redirect = Redirect(helpers);
    let done = match payload {
        Payload::ExportSection(section) => {
            let mut exports = ExportSection::new();
            utils::parse_export_section(&mut redirect, &mut exports, section.clone())
                .map(|()| contents(&exports))
        }
        Payload::GlobalSection(section) => {
            let mut globals = GlobalSection::new();
            utils::parse_global_section(&mut redirect, &mut globals, section.clone())
                .map(|()| contents(&globals))
        }
        Payload::TableSection(section) => {
            let mut tables = TableSection::new();
            utils::parse_table_section(&mut redirect, &mut tables, section.clone())
                .map(|()| contents(&tables))
        }
        Payload::ElementSection(section) => {
            let mut elements = ElementSection::new();
            utils::parse_element_section(&mut redirect, &mut elements, section.clone())
                .map(|()| contents(&elements))
        }
        _ => return Ok(None),
    };
    done.map(Some).map_err(|error| format!("could not be made interruptible: {error}"))
}

/// Replaces references to imports by references to their trampolines.
struct Redirect<'a, 'b>(&'a AddedFunctions<'b>);

impl Reencode for Redirect<'_, '_> {
    type Error = std::convert::Infallible;

    fn function_index(
        &mut self,
        function: u32,
    ) -> std::result::Result<u32, wasm_encoder::reencode::Error<Self::Error>> {
        Ok(self.0.reference_target(function))
    }
}

/// The contents of a section, without its length.
fn contents(section: &impl Encode) -> Vec<u8> {
    let mut bytes = Vec::new();
    section.encode(&mut bytes);
    let mut reader = BinaryReader::new(&bytes, 0);
    // The length was just encoded, so it can be read.
    let len = reader.read_var_u32().unwrap_or_default() as usize;
    bytes.split_off(bytes.len() - len)
}

//! Functions that the loader puts into a flattened component's module. Each stands before an import
//! whose result has text or lists in it, and makes the room that the canonical ABI asks for, by the
//! module's own `cabi_realloc`: the import says how much it needs, and is told where that is, until
//! it needs no more.
//!
//! Without them the host would have to call the module for each piece, in the middle of a call of
//! the module's own, which takes a stack of its own each time.

use wasm_encoder::reencode::{self, Reencode, utils};
use wasm_encoder::{
    BlockType, CodeSection, EntityType, Function, FunctionSection, ImportSection,
    Module as Encoder, TypeSection, ValType,
};
use wasmparser::{ExternalKind, FuncType, Parser, Payload, TypeRef};

use super::graph::ODD;

/// The function that takes a place, and says what else is needed.
pub const REALLOC_IMPORT: (&str, &str) = ("guesthouse", "next");
/// What it says when nothing else is.
pub const REALLOC_DONE: i64 = -1;

/// What has to be known of a module before it is written anew.
#[derive(Default)]
struct ReallocPlan {
    types: Vec<FuncType>,
    /// The types of its imports, all functions.
    imports: Vec<u32>,
    /// Which of them get a function before them.
    wrapped: Vec<u32>,
    defined: u32,
    realloc: u32,
}

/// The module with such functions before the imports for which `needs` says so, in their order.
///
/// # Errors
/// It has none to make room with.
pub fn add_trampolines(
    wasm: &[u8],
    realloc: Option<&str>,
    needs: &[bool],
) -> Result<Vec<u8>, String> {
    let (mut plan, found) = ReallocPlan::read(wasm, realloc, needs).ok_or(ODD)?;
    if plan.wrapped.is_empty() {
        return Ok(wasm.to_vec());
    }
    plan.realloc = found.ok_or("its module exports no function that makes room (cabi_realloc)")?;
    let types = plan.types.len();
    plan.imports.iter().all(|ty| (*ty as usize) < types).then_some(()).ok_or(ODD)?;
    let mut encoder = Encoder::new();
    plan.parse_core_module(&mut encoder, Parser::new(0), wasm).map_err(|_| ODD)?;
    Ok(encoder.finish())
}

type Error = reencode::Error<std::convert::Infallible>;

impl ReallocPlan {
    /// What there is in a module, and its function of the name `realloc`.
    fn read(
        wasm: &[u8],
        realloc: Option<&str>,
        needs: &[bool],
    ) -> Option<(ReallocPlan, Option<u32>)> {
        let mut plan = ReallocPlan::default();
        let mut found = None;
        for payload in Parser::new(0).parse_all(wasm) {
            match payload.ok()? {
                Payload::TypeSection(section) => {
                    for ty in section.into_iter_err_on_gc_types() {
                        plan.types.push(ty.ok()?);
                    }
                }
                Payload::ImportSection(section) => {
                    for (index, import) in (0..).zip(section.into_imports()) {
                        let import = import.ok()?;
                        let TypeRef::Func(ty) = import.ty else { return None };
                        plan.imports.push(ty);
                        if needs.get(index as usize) == Some(&true) {
                            plan.wrapped.push(index);
                        }
                    }
                }
                Payload::FunctionSection(section) => plan.defined = section.count(),
                Payload::ExportSection(section) => {
                    for export in section {
                        let export = export.ok()?;
                        if export.kind == ExternalKind::Func && Some(export.name) == realloc {
                            found = Some(export.index);
                        }
                    }
                }
                _ => {}
            }
        }
        Some((plan, found))
    }

    fn imported(&self) -> u32 {
        self.imports.len() as u32
    }

    /// The type of `next`; those of the wide imports are behind it.
    fn next_type(&self) -> u32 {
        self.types.len() as u32
    }

    /// Which of the wide imports one is. They are in their order.
    fn wrapped_index(&self, import: u32) -> Option<usize> {
        self.wrapped.binary_search(&import).ok()
    }

    fn wrapped_type(&self, import: u32) -> &FuncType {
        &self.types[self.imports[import as usize] as usize]
    }

    /// Asks the import, and makes room for as long as it wants some.
    fn function(&mut self, import: u32) -> Result<Function, Error> {
        let params = self.wrapped_type(import).params().len() as u32;
        let realloc = self.function_index(self.realloc)?;
        let wanted = params;
        let mut function = Function::new([(1, ValType::I64)]);
        let mut body = function.instructions();
        for param in 0..params {
            body.local_get(param);
        }
        body.call(import).local_set(wanted);
        body.loop_(BlockType::Empty);
        body.local_get(wanted).i64_const(0).i64_ge_s();
        body.if_(BlockType::Empty);
        // cabi_realloc(0, 0, alignment, length): the one is in the upper half, the other below.
        body.i32_const(0).i32_const(0);
        body.local_get(wanted).i64_const(32).i64_shr_u().i32_wrap_i64();
        body.local_get(wanted).i32_wrap_i64();
        body.call(realloc).call(self.imported()).local_set(wanted);
        body.br(1).end().end().end();
        Ok(function)
    }
}

impl Reencode for ReallocPlan {
    type Error = std::convert::Infallible;

    /// `next` is behind the other imports, the new functions behind all.
    fn function_index(&mut self, function: u32) -> Result<u32, Error> {
        if function >= self.imported() {
            return Ok(function + 1);
        }
        Ok(match self.wrapped_index(function) {
            Some(place) => self.imported() + 1 + self.defined + place as u32,
            None => function,
        })
    }

    fn parse_type_section(
        &mut self,
        types: &mut TypeSection,
        section: wasmparser::TypeSectionReader<'_>,
    ) -> Result<(), Error> {
        utils::parse_type_section(self, types, section)?;
        types.ty().function([ValType::I32], [ValType::I64]);
        for import in self.wrapped.clone() {
            let params = self.val_types(self.wrapped_type(import).params().to_vec())?;
            types.ty().function(params, [ValType::I64]);
        }
        Ok(())
    }

    fn parse_import_section(
        &mut self,
        imports: &mut ImportSection,
        section: wasmparser::ImportSectionReader<'_>,
    ) -> Result<(), Error> {
        for (index, import) in (0..).zip(section.into_imports()) {
            let import = import?;
            let ty = match self.wrapped_index(index) {
                Some(place) => self.next_type() + 1 + place as u32,
                None => self.imports[index as usize],
            };
            imports.import(import.module, import.name, EntityType::Function(ty));
        }
        imports.import(REALLOC_IMPORT.0, REALLOC_IMPORT.1, EntityType::Function(self.next_type()));
        Ok(())
    }

    fn parse_function_section(
        &mut self,
        functions: &mut FunctionSection,
        section: wasmparser::FunctionSectionReader<'_>,
    ) -> Result<(), Error> {
        utils::parse_function_section(self, functions, section)?;
        for import in &self.wrapped {
            functions.function(self.imports[*import as usize]);
        }
        Ok(())
    }

    fn parse_code_section(
        &mut self,
        code: &mut CodeSection,
        section: wasmparser::CodeSectionReader<'_>,
    ) -> Result<(), Error> {
        utils::parse_code_section(self, code, section)?;
        for import in self.wrapped.clone() {
            code.function(&self.function(import)?);
        }
        Ok(())
    }
}

//! Adds trampolines to a flat module: one for each import with text or lists in its result.
//!
//! The canonical ABI allocates such results by the module's own `cabi_realloc`. The trampoline
//! calls the import, which returns the size and alignment of the first allocation. The trampoline
//! then calls `cabi_realloc` and passes the address to the host, which returns the next allocation,
//! until none is left.
//!
//! Without trampolines, the host would call `cabi_realloc` from within a host function, and each
//! such call would need a stack of its own.

use wasm_encoder::reencode::{self, Reencode, utils};
use wasm_encoder::{
    BlockType, CodeSection, EntityType, Function, FunctionSection, ImportSection,
    Module as Encoder, TypeSection, ValType,
};
use wasmparser::{ExternalKind, FuncType, Parser, Payload, TypeRef};

use super::graph::ODD;

/// The module and name of the function that trampolines import: `(i32) -> i64`. It takes the
/// address of an allocation, and returns the next allocation: the alignment in the upper 32 bits,
/// the length in the lower ones.
pub const REALLOC_IMPORT: (&str, &str) = ("guesthouse", "next");
/// The value that says that no allocation is left.
pub const REALLOC_DONE: i64 = -1;

/// What is read of a module before it is rewritten.
#[derive(Default)]
struct ReallocPlan {
    types: Vec<FuncType>,
    /// The types of its imports. All of them are functions.
    imports: Vec<u32>,
    /// The indices of the imports that get a trampoline, in ascending order.
    wrapped: Vec<u32>,
    /// The number of functions that the module defines.
    defined: u32,
    /// The index of `cabi_realloc`.
    realloc: u32,
}

/// Adds a trampoline for each import for which `needs` is true. `needs` has the order of the
/// imports. `realloc` is the export name of the module's `cabi_realloc`.
///
/// # Errors
/// An import needs a trampoline, and the module exports no `cabi_realloc`.
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
    /// Reads a module. Also returns the index of the function that it exports as `realloc`.
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

    /// The index of the type of [`REALLOC_IMPORT`]. The types of the wrapped imports come after it.
    fn next_type(&self) -> u32 {
        self.types.len() as u32
    }

    /// The position of an import among the wrapped ones.
    fn wrapped_index(&self, import: u32) -> Option<usize> {
        self.wrapped.binary_search(&import).ok()
    }

    fn wrapped_type(&self, import: u32) -> &FuncType {
        &self.types[self.imports[import as usize] as usize]
    }

    /// The trampoline of an import: calls it, then allocates for as long as the host asks for more.
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
        // cabi_realloc(0, 0, alignment, length): alignment is the upper half, length the lower.
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

    /// [`REALLOC_IMPORT`] comes after the other imports, and the trampolines come last.
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

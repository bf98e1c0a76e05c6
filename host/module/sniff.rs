//! Tells what a file is by its bytes, and reads a core module's imports, exports and sizes.
//!
//! Owns the kinds of files that a handler folder may have. Compiles and runs nothing.

#[cfg(test)]
mod tests;

use std::sync::Arc;

use super::toolchains;

use wasmparser::{ExternalKind, Parser, Payload, TypeRef, ValType, Validator, WasmFeatures};

/// A core module's imports, exports and sizes.
#[derive(Debug, Default)]
pub struct Module {
    /// All imports, in their order.
    pub imports: Vec<Import>,
    /// All exports, in their order.
    pub exports: Vec<Export>,
    /// Bytes of all its data segments.
    pub data_bytes: usize,
    /// The number of its data segments.
    pub data_segments: usize,
    /// The initial size of the memories that it defines, in bytes.
    pub memory_bytes: u64,
    /// The number of memories that it defines.
    pub memories: usize,
    /// The number of tables that it defines.
    pub tables: usize,
    /// The initial number of elements of its largest table.
    pub table_elements: u64,
    /// Whether it has a start function.
    pub has_start: bool,
}

/// One import of a core module.
#[derive(Debug)]
pub struct Import {
    /// The first of its two names.
    pub module: String,
    /// The second of its two names.
    pub name: String,
    /// The type of a function, such as `(i32, i32) -> i64`. Otherwise `memory`, `table`, `global`
    /// or `tag`. All imports of one type share the text: a module can have a million imports of a
    /// very long type.
    pub ty: Arc<str>,
    /// Whether it is a function.
    pub is_function: bool,
}

/// One export of a core module.
#[derive(Debug)]
pub struct Export {
    /// Its name.
    pub name: String,
    /// Its type, written as that of an import.
    pub ty: Arc<str>,
}

/// The WebAssembly proposals that a guest may use: exactly those that the engines have.
pub fn features() -> WasmFeatures {
    WasmFeatures::WASM2
        | WasmFeatures::MULTI_MEMORY
        | WasmFeatures::TAIL_CALL
        | WasmFeatures::EXTENDED_CONST
        | WasmFeatures::RELAXED_SIMD
}

/// The kind of a binary, by its first eight bytes: `core`, `component` or `unknown`.
pub fn kind(head: &[u8; 8]) -> &'static str {
    match head {
        [0, b'a', b's', b'm', 1, 0, 0, 0] => "core",
        [0, b'a', b's', b'm', _, 0, 1, 0] => "component",
        _ => "unknown",
    }
}

/// Whether the bytes are a component rather than a core module.
pub fn is_component(bytes: &[u8]) -> bool {
    bytes.first_chunk().is_some_and(|head| kind(head) == "component")
}

/// Validates and reads a core module.
///
/// # Errors
/// A sentence that says what the bytes are instead, or what is wrong with them, and what to do.
pub fn read(bytes: &[u8]) -> Result<Module, String> {
    match bytes {
        [] => return Err("the file is empty: was the build interrupted?".into()),
        [0, b'a', b's', b'm', ..] if bytes.len() < 8 => {
            return Err("the file ends within its first 8 bytes: copy it again".into());
        }
        [0, b'a', b's', b'm', ..] => {}
        [0x7f, b'E', b'L', b'F', ..] => return Err(NOT_WASM_ELF.into()),
        _ => return Err(NOT_WASM.into()),
    }
    let mut module = Module::default();
    let mut types: Vec<Arc<str>> = Vec::new();
    let mut functions: Vec<u32> = Vec::new();
    let mut validator = Validator::new_with_features(features());
    for payload in Parser::new(0).parse_all(bytes) {
        let payload = payload.map_err(|error| damaged(&error))?;
        check_imports(&payload)?;
        note(&payload, &mut module, &mut types, &mut functions).map_err(|error| damaged(&error))?;
        if let wasmparser::ValidPayload::Func(function, body) =
            validator.payload(&payload).map_err(|error| damaged(&error))?
        {
            function
                .into_validator(Default::default())
                .validate(&body)
                .map_err(|error| damaged(&error))?;
        }
    }
    Ok(module)
}

const NOT_WASM: &str = "not a WebAssembly file: it does not begin with the bytes 00 61 73 6d. \
     Is it the right file? Text modules need the ending .wat";
const NOT_WASM_ELF: &str = "a native program (ELF), not WebAssembly: \
     build it with --target wasm32-wasip1";

/// The sentence for an error of the parser or the validator: what is wrong, at which byte, and what
/// to do if that is known.
pub fn damaged(error: &wasmparser::BinaryReaderError) -> String {
    let (message, offset) = (error.message(), error.offset());
    if message.contains("unexpected end") {
        return format!("the file is cut off (at byte {offset}): copy it again");
    }
    match toolchains::of_proposal(message) {
        Some(advice) => format!("not served (at byte {offset}): {message}; {advice}"),
        None => format!("not a valid module (at byte {offset}): {message}"),
    }
}

/// Refuses the import groups of the proposal for compact import sections. A reader of single
/// imports, such as the validator, does not notice that they are groups.
///
/// # Errors
/// A sentence that says so.
pub fn check_imports(payload: &Payload<'_>) -> Result<(), String> {
    let Payload::ImportSection(section) = payload else { return Ok(()) };
    for group in section.clone().into_iter_with_offsets() {
        let (offset, group) = group.map_err(|error| damaged(&error))?;
        if !matches!(group, wasmparser::Imports::Single(..)) {
            return Err(format!(
                "not served (at byte {offset}): its imports are written in groups; build it \
                 without the proposal for compact import sections"
            ));
        }
    }
    Ok(())
}

/// Notes the contents of one section. The file's size bounds all counts.
fn note(
    payload: &Payload<'_>,
    module: &mut Module,
    types: &mut Vec<Arc<str>>,
    functions: &mut Vec<u32>,
) -> wasmparser::Result<()> {
    match payload {
        Payload::TypeSection(section) => {
            for ty in section.clone().into_iter_err_on_gc_types() {
                let ty = ty?;
                types.push(function_text(ty.params(), ty.results()).into());
            }
        }
        Payload::ImportSection(section) => note_imports(section, module, types, functions)?,
        Payload::FunctionSection(section) => {
            for index in section.clone() {
                functions.push(index?);
            }
        }
        Payload::MemorySection(section) => {
            for memory in section.clone() {
                module.memories += 1;
                let bytes = memory?.initial.saturating_mul(64 * 1024);
                module.memory_bytes = module.memory_bytes.saturating_add(bytes);
            }
        }
        Payload::TableSection(section) => {
            for table in section.clone() {
                module.tables += 1;
                module.table_elements = module.table_elements.max(table?.ty.initial);
            }
        }
        Payload::DataSection(section) => {
            for data in section.clone() {
                module.data_bytes += data?.data.len();
                module.data_segments += 1;
            }
        }
        Payload::StartSection { .. } => module.has_start = true,
        Payload::ExportSection(section) => note_exports(section, module, types, functions)?,
        _ => {}
    }
    Ok(())
}

fn note_imports(
    section: &wasmparser::ImportSectionReader<'_>,
    module: &mut Module,
    types: &[Arc<str>],
    functions: &mut Vec<u32>,
) -> wasmparser::Result<()> {
    for import in section.clone().into_imports() {
        let import = import?;
        let is_function = matches!(import.ty, TypeRef::Func(_) | TypeRef::FuncExact(_));
        let ty = match import.ty {
            TypeRef::Func(index) | TypeRef::FuncExact(index) => {
                functions.push(index);
                types.get(index as usize).cloned().unwrap_or_else(|| "".into())
            }
            TypeRef::Table(_) => "table".into(),
            TypeRef::Memory(_) => "memory".into(),
            TypeRef::Global(_) => "global".into(),
            TypeRef::Tag(_) => "tag".into(),
        };
        let (from, name) = (import.module.into(), import.name.into());
        module.imports.push(Import { module: from, name, ty, is_function });
    }
    Ok(())
}

fn note_exports(
    section: &wasmparser::ExportSectionReader<'_>,
    module: &mut Module,
    types: &[Arc<str>],
    functions: &[u32],
) -> wasmparser::Result<()> {
    for export in section.clone() {
        let export = export?;
        let ty = match export.kind {
            ExternalKind::Func | ExternalKind::FuncExact => functions
                .get(export.index as usize)
                .and_then(|index| types.get(*index as usize))
                .cloned()
                .unwrap_or_else(|| "".into()),
            ExternalKind::Table => "table".into(),
            ExternalKind::Memory => "memory".into(),
            ExternalKind::Global => "global".into(),
            ExternalKind::Tag => "tag".into(),
        };
        module.exports.push(Export { name: export.name.into(), ty });
    }
    Ok(())
}

fn list(types: &[ValType]) -> String {
    types.iter().map(ValType::to_string).collect::<Vec<_>>().join(", ")
}

/// A function's type as text, such as `(i32, i32) -> i64`.
fn function_text(params: &[ValType], results: &[ValType]) -> String {
    match results {
        [] => format!("({})", list(params)),
        [one] => format!("({}) -> {one}", list(params)),
        more => format!("({}) -> ({})", list(params), list(more)),
    }
}

impl Module {
    /// The export of this name.
    pub fn export(&self, name: &str) -> Option<&Export> {
        self.exports.iter().find(|export| export.name == name)
    }
}

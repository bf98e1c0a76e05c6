//! The small modules and components that toolchains put around a program's module.

use wasmparser::{
    ComponentExternalKind, ComponentTypeRef, ExternalKind, Operator, Parser, Payload, TypeRef,
};

/// Checks that a component exports its one imported function as `handle`, and has no code.
pub fn only_names_types(bytes: &[u8], argument: &str) -> Option<()> {
    let mut functions = Vec::new();
    let mut handle = None;
    for payload in Parser::new(0).parse_all(bytes) {
        match payload.ok()? {
            Payload::Version { .. }
            | Payload::ComponentTypeSection(_)
            | Payload::CustomSection(_)
            | Payload::End(_) => {}
            Payload::ComponentImportSection(section) => {
                for import in section {
                    let import = import.ok()?;
                    match import.ty {
                        ComponentTypeRef::Func(_) => functions.push(import.name.name),
                        ComponentTypeRef::Type(_) => {}
                        _ => return None,
                    }
                }
            }
            Payload::ComponentExportSection(section) => {
                for export in section {
                    let export = export.ok()?;
                    match export.kind {
                        ComponentExternalKind::Func if export.name.name == "handle" => {
                            handle = Some(export.index);
                        }
                        ComponentExternalKind::Type => {}
                        _ => return None,
                    }
                }
            }
            _ => return None,
        }
    }
    (functions == [argument] && handle == Some(0)).then_some(())
}

/// Which entry of its table a shim's function calls with its own arguments.
pub fn shim_slot(wasm: &[u8], name: &str) -> Option<u32> {
    let mut index = None;
    let mut bodies = Vec::new();
    for payload in Parser::new(0).parse_all(wasm) {
        match payload.ok()? {
            Payload::ImportSection(_) | Payload::StartSection { .. } => return None,
            Payload::ElementSection(_) | Payload::GlobalSection(_) => return None,
            Payload::ExportSection(section) => {
                for export in section {
                    let export = export.ok()?;
                    if export.kind == ExternalKind::Func && export.name == name {
                        index = Some(export.index);
                    }
                }
            }
            Payload::CodeSectionEntry(body) => bodies.push(body),
            _ => {}
        }
    }
    let body = bodies.get(index? as usize)?;
    let mut operators = body.get_operators_reader().ok()?.into_iter();
    let mut next_local = 0;
    loop {
        match operators.next()?.ok()? {
            Operator::LocalGet { local_index } if local_index == next_local => next_local += 1,
            Operator::I32Const { value } => {
                let calls = operators.next()?.ok()?;
                let Operator::CallIndirect { table_index: 0, .. } = calls else { return None };
                let ends = matches!(operators.next()?.ok()?, Operator::End);
                return u32::try_from(value).ok().filter(|_| ends);
            }
            _ => return None,
        }
    }
}

/// The name of the import that is put into an entry of the table.
pub fn fixup_import(wasm: &[u8], slot: u32) -> Option<String> {
    let mut functions = Vec::new();
    let mut found = None;
    for payload in Parser::new(0).parse_all(wasm) {
        match payload.ok()? {
            Payload::ImportSection(section) => {
                for import in section.into_imports() {
                    let import = import.ok()?;
                    if let TypeRef::Func(_) = import.ty {
                        functions.push(import.name.to_owned());
                    }
                }
            }
            Payload::ElementSection(section) => {
                if section.count() != 1 || found.is_some() {
                    return None;
                }
                for element in section {
                    found = Some(element_at(&element.ok()?, slot)?);
                }
            }
            Payload::StartSection { .. } | Payload::CodeSectionStart { .. } => return None,
            _ => {}
        }
    }
    functions.get(found? as usize).cloned()
}

/// The function at a place of an active segment that begins at 0.
fn element_at(element: &wasmparser::Element<'_>, slot: u32) -> Option<u32> {
    let wasmparser::ElementKind::Active { table_index: None | Some(0), offset_expr } =
        &element.kind
    else {
        return None;
    };
    let mut offset = offset_expr.get_operators_reader().into_iter();
    let Operator::I32Const { value: 0 } = offset.next()?.ok()? else { return None };
    let wasmparser::ElementItems::Functions(functions) = &element.items else { return None };
    functions.clone().into_iter().nth(slot as usize)?.ok()
}

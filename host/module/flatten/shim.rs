//! Recognises the small modules and components that toolchains put around a program's module: the
//! shim, the fixups module, and the component that names the handler's types.

use std::collections::HashMap;

use wasmparser::{
    ComponentExternalKind, ComponentTypeRef, ExternalKind, FunctionBody, Operator, Parser, Payload,
    TypeRef,
};

/// Checks that a component does no more than export its one imported function, named `argument`,
/// as `handle`.
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

/// For each exported function of a shim, the table entry that the function calls with its own
/// arguments. Other functions are left out. `None` if the module is no shim.
pub fn shim_slots(wasm: &[u8]) -> Option<HashMap<&str, u32>> {
    let mut functions = Vec::new();
    let mut slots = Vec::new();
    for payload in Parser::new(0).parse_all(wasm) {
        match payload.ok()? {
            Payload::ImportSection(_) | Payload::StartSection { .. } => return None,
            Payload::ElementSection(_) | Payload::GlobalSection(_) | Payload::DataSection(_) => {
                return None;
            }
            // With one table, the table that the functions call through is the one that is filled.
            Payload::TableSection(section) if section.count() != 1 => return None,
            Payload::ExportSection(section) => {
                for export in section {
                    let export = export.ok()?;
                    if export.kind == ExternalKind::Func {
                        functions.push((export.name, export.index));
                    }
                }
            }
            Payload::CodeSectionEntry(body) => slots.push(slot(&body)),
            _ => {}
        }
    }
    let known = functions.into_iter().filter_map(|(name, index)| {
        let slot = slots.get(index as usize).copied().flatten();
        slot.map(|slot| (name, slot))
    });
    Some(known.collect())
}

/// The table entry that a function calls, if it does nothing else.
fn slot(body: &FunctionBody<'_>) -> Option<u32> {
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

/// The names of the imports that a fixups module puts into the table, by table entry. `None` if the
/// module does anything else.
pub fn fixup_imports(wasm: &[u8]) -> Option<Vec<Option<&str>>> {
    let (mut functions, mut tables) = (Vec::new(), 0);
    let mut found = None;
    for payload in Parser::new(0).parse_all(wasm) {
        match payload.ok()? {
            Payload::ImportSection(section) => {
                for import in section.into_imports() {
                    let import = import.ok()?;
                    match import.ty {
                        TypeRef::Func(_) => functions.push(import.name),
                        TypeRef::Table(_) => tables += 1,
                        _ => return None,
                    }
                }
            }
            Payload::ElementSection(section) => {
                if section.count() != 1 || found.is_some() {
                    return None;
                }
                for element in section {
                    found = Some(elements(&element.ok()?)?);
                }
            }
            Payload::Version { .. }
            | Payload::TypeSection(_)
            | Payload::CustomSection(_)
            | Payload::End(_) => {}
            _ => return None,
        }
    }
    (tables == 1).then_some(())?;
    let name = |index: u32| functions.get(index as usize).copied();
    Some(found?.into_iter().map(name).collect())
}

/// The functions of an active element segment that begins at 0.
fn elements(element: &wasmparser::Element<'_>) -> Option<Vec<u32>> {
    let wasmparser::ElementKind::Active { table_index: None | Some(0), offset_expr } =
        &element.kind
    else {
        return None;
    };
    let mut offset = offset_expr.get_operators_reader().into_iter();
    let Operator::I32Const { value: 0 } = offset.next()?.ok()? else { return None };
    // With extended constants, the expression could go on and add to the 0.
    let Operator::End = offset.next()?.ok()? else { return None };
    let wasmparser::ElementItems::Functions(functions) = &element.items else { return None };
    functions.clone().into_iter().collect::<Result<_, _>>().ok()
}

//! Reads a module's imports, exports and state independently of the crate under test, in the
//! plainest way.

use wasmparser::{
    ElementItems, ExternalKind, FuncType, Instance, Parser, Payload, TypeRef, ValType, Validator,
    WasmFeatures,
};

/// The contents of a module.
#[derive(Default)]
pub struct Facts {
    /// Module, name and type of each.
    pub imports: Vec<(String, String, String)>,
    /// Name, type and index of each.
    pub exports: Vec<(String, String, u32)>,
    /// The initial and the maximum size of each, in pages.
    pub memories: Vec<(u64, Option<u64>)>,
    pub tables: Vec<String>,
    /// The type of each, and whether it is mutable.
    pub globals: Vec<(ValType, bool)>,
    pub elements: usize,
    pub data: Vec<Vec<u8>>,
    pub has_start: bool,
    /// The names of its instructions that change other state than memories and globals.
    pub lasting: Vec<String>,
    /// The globals that its code sets.
    pub set: Vec<u32>,
    /// Whether it imports anything but functions.
    pub imports_state: bool,
    types: Vec<FuncType>,
    function_types: Vec<u32>,
}

/// Whether bytes are valid with these proposals.
pub fn is_valid(bytes: &[u8], features: WasmFeatures) -> bool {
    Validator::new_with_features(features).validate_all(bytes).is_ok()
}

/// The modules of a component. Empty if the component does not instantiate each of them once.
pub fn modules_that_run(bytes: &[u8]) -> wasmparser::Result<Vec<&[u8]>> {
    let (mut modules, mut instances) = (Vec::new(), 0);
    for payload in Parser::new(0).parse_all(bytes) {
        match payload? {
            Payload::ModuleSection { unchecked_range, .. } => {
                modules.extend(bytes.get(unchecked_range));
            }
            Payload::InstanceSection(section) => {
                for instance in section {
                    instances += usize::from(matches!(instance?, Instance::Instantiate { .. }));
                }
            }
            _ => {}
        }
    }
    Ok(if modules.len() == instances { modules } else { Vec::new() })
}

impl Facts {
    /// Reads a valid module.
    pub fn read(bytes: &[u8]) -> wasmparser::Result<Facts> {
        let mut facts = Facts::default();
        for payload in Parser::new(0).parse_all(bytes) {
            facts.note(payload?)?;
        }
        Ok(facts)
    }

    fn note(&mut self, payload: Payload<'_>) -> wasmparser::Result<()> {
        match payload {
            Payload::TypeSection(section) => {
                for ty in section.into_iter_err_on_gc_types() {
                    self.types.push(ty?);
                }
            }
            Payload::ImportSection(section) => {
                for import in section.into_imports() {
                    let import = import?;
                    let ty = match import.ty {
                        TypeRef::Func(ty) | TypeRef::FuncExact(ty) => {
                            self.function_types.push(ty);
                            format!("{:?}", self.types[ty as usize])
                        }
                        other => {
                            self.imports_state = true;
                            format!("{other:?}")
                        }
                    };
                    self.imports.push((import.module.into(), import.name.into(), ty));
                }
            }
            Payload::ExportSection(section) => {
                for export in section {
                    let export = export?;
                    let ty = self.export_type(export.kind, export.index);
                    self.exports.push((export.name.into(), ty, export.index));
                }
            }
            Payload::CodeSectionEntry(body) => {
                for operator in body.get_operators_reader()? {
                    let shown = format!("{:?}", operator?);
                    let name = shown.split(' ').next().unwrap_or_default();
                    self.note_operator(name, &shown);
                }
            }
            payload => self.note_state(payload)?,
        }
        Ok(())
    }

    /// Notes the sections that define state.
    fn note_state(&mut self, payload: Payload<'_>) -> wasmparser::Result<()> {
        match payload {
            Payload::FunctionSection(section) => {
                for ty in section {
                    self.function_types.push(ty?);
                }
            }
            Payload::TableSection(section) => {
                for table in section {
                    self.tables.push(format!("{:?}", table?.ty));
                }
            }
            Payload::MemorySection(section) => {
                for memory in section {
                    let memory = memory?;
                    self.memories.push((memory.initial, memory.maximum));
                }
            }
            Payload::GlobalSection(section) => {
                for global in section {
                    let ty = global?.ty;
                    self.globals.push((ty.content_type, ty.mutable));
                }
            }
            Payload::ElementSection(section) => {
                for element in section {
                    self.elements += match element?.items {
                        ElementItems::Functions(items) => items.count(),
                        ElementItems::Expressions(_, items) => items.count(),
                    } as usize;
                }
            }
            Payload::DataSection(section) => {
                for data in section {
                    self.data.push(data?.data.to_vec());
                }
            }
            Payload::StartSection { .. } => self.has_start = true,
            _ => {}
        }
        Ok(())
    }

    fn export_type(&self, kind: ExternalKind, index: u32) -> String {
        match kind {
            ExternalKind::Func | ExternalKind::FuncExact => {
                let ty = self.function_types[index as usize];
                format!("{:?}", self.types[ty as usize])
            }
            other => format!("{other:?}"),
        }
    }

    /// Sorts instructions by their names, so that new ones of a known family count as well.
    fn note_operator(&mut self, name: &str, shown: &str) {
        let reads = ["TableGet", "TableSize", "GlobalGet", "GlobalSet", "Drop"];
        let changes = ["Table", "Global", "Struct", "Array", "Cont", "Resume", "Suspend", "Switch"];
        let is_known = reads.contains(&name);
        let is_change =
            changes.iter().any(|start| name.starts_with(start)) || name.contains("Drop");
        if is_change && !is_known {
            self.lasting.push(name.to_owned());
        }
        if name == "GlobalSet" {
            let digits: String = shown.chars().filter(char::is_ascii_digit).collect();
            self.set.extend(digits.parse::<u32>().ok());
        }
    }
}

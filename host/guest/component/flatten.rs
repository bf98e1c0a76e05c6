//! Components that are nothing but one core module: what toolchains make of a program in one
//! language.
//!
//! Such a component says, for each import of its module, which function of which interface it
//! stands for, and how values pass: in the module's memory, made room for by its `cabi_realloc`.
//! Where all of that is in the canonical form, the module can be run on its own, with host
//! functions that follow the canonical ABI (`abi.rs`); that costs a fraction of a component's
//! instance. Owns the proof that it is so. What is not proven stays a component.

use std::collections::HashMap;

use wasm_encoder::{EntityType, ImportSection, Module as Encoder, RawSection};
use wasmparser::{
    CanonicalFunction, CanonicalOption, ComponentAlias, ComponentExternalKind, ComponentInstance,
    ComponentTypeRef, ExternalKind, Instance, Operator, Parser, Payload, TypeRef,
};

/// A component's one module, its imports renamed to interfaces without versions.
#[derive(Debug)]
pub struct Flat {
    pub wasm: Vec<u8>,
    /// The export that handles requests.
    pub handle: String,
    /// The export that makes room in its memory, if the host ever has to ask for some.
    pub realloc: Option<String>,
}

/// The one memory that the host reads and writes.
pub const MEMORY: &str = "memory";
/// Prefix of the name under which a resource's handles are dropped.
pub const DROP: &str = "[resource-drop]";

/// Where a core function of the outer component comes from.
#[derive(Clone, Copy)]
enum CoreFunc<'a> {
    /// Its function of this index, for core code to call.
    Lower(u32, Options),
    /// Drops handles of a resource type.
    Drop(u32),
    Export(u32, &'a str),
    Other,
}

/// What values pass through.
#[derive(Clone, Copy, Default)]
struct Options {
    memory: Option<u32>,
    realloc: Option<u32>,
    /// One that is not in the canonical form.
    is_odd: bool,
}

#[derive(Clone)]
enum CoreInstance<'a> {
    Of(u32, Vec<(&'a str, u32)>),
    Exports(Vec<(&'a str, ExternalKind, u32)>),
}

#[derive(Clone)]
enum Func<'a> {
    Export(u32, &'a str),
    Lift(u32, Options),
    Other,
}

#[derive(Clone)]
enum Outer<'a> {
    Import(&'a str),
    Of(u32, Vec<(&'a str, ComponentExternalKind, u32)>),
    Same(u32),
    Other,
}

/// The index spaces of the outer component.
#[derive(Default)]
struct Graph<'a> {
    modules: Vec<&'a [u8]>,
    components: Vec<&'a [u8]>,
    core_instances: Vec<CoreInstance<'a>>,
    core_funcs: Vec<CoreFunc<'a>>,
    core_memories: Vec<(u32, &'a str)>,
    core_tables: Vec<(u32, &'a str)>,
    funcs: Vec<Func<'a>>,
    instances: Vec<Outer<'a>>,
    /// Interface and name, of types that come from instances.
    types: Vec<Option<(u32, &'a str)>>,
    exports: Vec<(&'a str, u32)>,
}

/// What an import of the module stands for.
#[derive(Clone, Debug, PartialEq)]
struct Target {
    interface: String,
    name: String,
}

/// The module of a component that has no other, if that can be proven. `bytes` are a valid
/// component.
pub fn flatten(bytes: &[u8]) -> Option<Flat> {
    let graph = read(bytes)?;
    let (lifted, options) = graph.handler()?;
    let CoreFunc::Export(main, handle) = *graph.core_funcs.get(lifted as usize)? else {
        return None;
    };
    let CoreInstance::Of(module, args) = graph.core_instances.get(main as usize)? else {
        return None;
    };
    let mut proof = Proof { graph: &graph, main, realloc: None };
    proof.check(options)?;
    let wasm = *graph.modules.get(*module as usize)?;
    let targets = proof.targets(wasm, args)?;
    proof.nothing_else_runs()?;
    let realloc = proof.realloc.map(str::to_owned);
    Some(Flat { wasm: rename(wasm, &targets)?, handle: handle.to_owned(), realloc })
}

/// Reads the outer component's index spaces. `None` where it has what no toolchain needs.
fn read(bytes: &[u8]) -> Option<Graph<'_>> {
    let mut graph = Graph::default();
    let mut depth = 0;
    for payload in Parser::new(0).parse_all(bytes) {
        let payload = payload.ok()?;
        match &payload {
            Payload::Version { .. } => depth += 1,
            Payload::End(_) => depth -= 1,
            _ if depth != 1 => {}
            Payload::ModuleSection { unchecked_range, .. } => {
                graph.modules.push(bytes.get(unchecked_range.clone())?);
            }
            Payload::ComponentSection { unchecked_range, .. } => {
                graph.components.push(bytes.get(unchecked_range.clone())?);
            }
            payload => graph.note(payload)?,
        }
    }
    Some(graph)
}

impl<'a> Graph<'a> {
    fn note(&mut self, payload: &Payload<'a>) -> Option<()> {
        match payload {
            Payload::InstanceSection(section) => {
                for instance in section.clone() {
                    self.core_instances.push(match instance.ok()? {
                        Instance::Instantiate { module_index, args } => CoreInstance::Of(
                            module_index,
                            args.iter().map(|arg| (arg.name, arg.index)).collect(),
                        ),
                        Instance::FromExports(exports) => CoreInstance::Exports(
                            exports.iter().map(|it| (it.name, it.kind, it.index)).collect(),
                        ),
                    });
                }
            }
            Payload::ComponentAliasSection(section) => {
                for alias in section.clone() {
                    self.note_alias(&alias.ok()?)?;
                }
            }
            Payload::ComponentCanonicalSection(section) => {
                for function in section.clone() {
                    self.note_function(&function.ok()?);
                }
            }
            Payload::ComponentTypeSection(section) => {
                self.types.extend((0..section.count()).map(|_| None));
            }
            Payload::ComponentInstanceSection(section) => {
                for instance in section.clone() {
                    self.instances.push(match instance.ok()? {
                        ComponentInstance::Instantiate { component_index, args } => Outer::Of(
                            component_index,
                            args.iter().map(|arg| (arg.name, arg.kind, arg.index)).collect(),
                        ),
                        ComponentInstance::FromExports(_) => Outer::Other,
                    });
                }
            }
            Payload::ComponentImportSection(section) => {
                for import in section.clone() {
                    let import = import.ok()?;
                    match import.ty {
                        ComponentTypeRef::Instance(_) => {
                            self.instances.push(Outer::Import(import.name.name));
                        }
                        ComponentTypeRef::Type(_) => self.types.push(None),
                        ComponentTypeRef::Func(_) => self.funcs.push(Func::Other),
                        _ => return None,
                    }
                }
            }
            Payload::ComponentExportSection(section) => {
                for export in section.clone() {
                    let export = export.ok()?;
                    match export.kind {
                        ComponentExternalKind::Instance => {
                            self.exports.push((export.name.name, export.index));
                            self.instances.push(Outer::Same(export.index));
                        }
                        ComponentExternalKind::Func => self.funcs.push(Func::Other),
                        ComponentExternalKind::Type => self.types.push(None),
                        _ => return None,
                    }
                }
            }
            Payload::ComponentStartSection { .. } => return None,
            _ => {}
        }
        Some(())
    }

    fn note_alias(&mut self, alias: &ComponentAlias<'a>) -> Option<()> {
        match *alias {
            ComponentAlias::CoreInstanceExport { kind, instance_index, name } => match kind {
                ExternalKind::Func => self.core_funcs.push(CoreFunc::Export(instance_index, name)),
                ExternalKind::Memory => self.core_memories.push((instance_index, name)),
                ExternalKind::Table => self.core_tables.push((instance_index, name)),
                // Nothing that is proven here looks at these.
                ExternalKind::Global | ExternalKind::Tag | ExternalKind::FuncExact => {}
            },
            ComponentAlias::InstanceExport { kind, instance_index, name } => match kind {
                ComponentExternalKind::Func => self.funcs.push(Func::Export(instance_index, name)),
                ComponentExternalKind::Type => self.types.push(Some((instance_index, name))),
                ComponentExternalKind::Instance => self.instances.push(Outer::Other),
                _ => return None,
            },
            ComponentAlias::Outer { .. } => return None,
        }
        Some(())
    }

    fn note_function(&mut self, function: &CanonicalFunction) {
        match function {
            CanonicalFunction::Lift { core_func_index, options, .. } => {
                self.funcs.push(Func::Lift(*core_func_index, Options::read(options)));
            }
            CanonicalFunction::Lower { func_index, options } => {
                self.core_funcs.push(CoreFunc::Lower(*func_index, Options::read(options)));
            }
            CanonicalFunction::ResourceDrop { resource } => {
                self.core_funcs.push(CoreFunc::Drop(*resource));
            }
            _ => self.core_funcs.push(CoreFunc::Other),
        }
    }

    /// The core function behind the exported handler, and how values pass to it.
    fn handler(&self) -> Option<(u32, Options)> {
        const INTERFACE: &str = "wasi:http/incoming-handler@0.2.";
        let mut exports = self.exports.iter().filter(|(name, _)| name.starts_with(INTERFACE));
        let (Some(&(_, index)), None) = (exports.next(), exports.next()) else { return None };
        let mut index = index;
        while let Outer::Same(same) = self.instances.get(index as usize)? {
            index = *same;
        }
        // Toolchains wrap the function in a component that does no more than name its types.
        let Outer::Of(component, args) = self.instances.get(index as usize)? else { return None };
        let mut functions = args.iter().filter(|arg| arg.1 == ComponentExternalKind::Func);
        let (Some(function), None) = (functions.next(), functions.next()) else { return None };
        only_names_types(self.components.get(*component as usize)?, function.0)?;
        match self.funcs.get(function.2 as usize)? {
            Func::Lift(core, options) => Some((*core, *options)),
            _ => None,
        }
    }
}

impl Options {
    fn read(options: &[CanonicalOption]) -> Self {
        let mut read = Options::default();
        for option in options {
            match option {
                CanonicalOption::UTF8 => {}
                CanonicalOption::Memory(index) => read.memory = Some(*index),
                CanonicalOption::Realloc(index) => read.realloc = Some(*index),
                _ => read.is_odd = true,
            }
        }
        read
    }
}

/// Checks that a component exports its one imported function as `handle`, and has no code.
fn only_names_types(bytes: &[u8], argument: &str) -> Option<()> {
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

/// What is being proven of a component whose handler is in the core instance `main`.
struct Proof<'g, 'a> {
    graph: &'g Graph<'a>,
    main: u32,
    /// The one function that makes room, as far as it has been named.
    realloc: Option<&'a str>,
}

impl<'a> Proof<'_, 'a> {
    /// Checks that values pass through the memory of `main`.
    fn check(&mut self, options: Options) -> Option<()> {
        if options.is_odd {
            return None;
        }
        if let Some(memory) = options.memory
            && *self.graph.core_memories.get(memory as usize)? != (self.main, MEMORY)
        {
            return None;
        }
        if let Some(realloc) = options.realloc {
            let CoreFunc::Export(instance, name) = *self.graph.core_funcs.get(realloc as usize)?
            else {
                return None;
            };
            if instance != self.main || self.realloc.is_some_and(|known| known != name) {
                return None;
            }
            self.realloc = Some(name);
        }
        Some(())
    }

    /// What each import of the module stands for, in their order.
    fn targets(&mut self, wasm: &[u8], args: &[(&'a str, u32)]) -> Option<Vec<Target>> {
        let args: HashMap<&str, u32> = args.iter().copied().collect();
        let mut targets = Vec::new();
        for payload in Parser::new(0).parse_all(wasm) {
            match payload.ok()? {
                Payload::ImportSection(section) => {
                    for import in section.into_imports() {
                        let import = import.ok()?;
                        if !matches!(import.ty, TypeRef::Func(_)) {
                            return None;
                        }
                        let instance = *args.get(import.module)?;
                        let function = self.exported(instance, import.name)?;
                        targets.push(self.target(function)?);
                    }
                }
                // It would run before there is anyone to serve its calls.
                Payload::StartSection { .. } => return None,
                Payload::CodeSectionStart { .. } => break,
                _ => {}
            }
        }
        Some(targets)
    }

    /// The core function that an instance made of exports has under a name.
    fn exported(&self, instance: u32, name: &str) -> Option<u32> {
        let CoreInstance::Exports(exports) = self.graph.core_instances.get(instance as usize)?
        else {
            return None;
        };
        let is_it = |it: &&(&str, ExternalKind, u32)| it.0 == name && it.1 == ExternalKind::Func;
        exports.iter().find(is_it).map(|it| it.2)
    }

    /// What a core function stands for.
    fn target(&mut self, function: u32) -> Option<Target> {
        match *self.graph.core_funcs.get(function as usize)? {
            CoreFunc::Lower(function, options) => {
                self.check(options)?;
                let Func::Export(instance, name) = self.graph.funcs.get(function as usize)? else {
                    return None;
                };
                self.named(*instance, (*name).to_owned())
            }
            CoreFunc::Drop(ty) => {
                let (instance, name) = (*self.graph.types.get(ty as usize)?)?;
                self.named(instance, format!("{DROP}{name}"))
            }
            CoreFunc::Export(shim, name) => {
                let function = self.behind_shim(shim, name)?;
                match self.graph.core_funcs.get(function as usize)? {
                    CoreFunc::Lower(..) | CoreFunc::Drop(_) => self.target(function),
                    _ => None,
                }
            }
            CoreFunc::Other => None,
        }
    }

    fn named(&self, instance: u32, name: String) -> Option<Target> {
        let Outer::Import(interface) = self.graph.instances.get(instance as usize)? else {
            return None;
        };
        let (interface, version) = interface.split_once('@')?;
        let is_02 = version.starts_with("0.2.") && !version.contains('-');
        is_02.then(|| Target { interface: interface.to_owned(), name })
    }

    /// The core function that a shim's function calls. The module's imports have to be there before
    /// its memory is, which the functions behind them need; so a shim stands in for them, whose
    /// table a third module fills.
    fn behind_shim(&self, shim: u32, name: &str) -> Option<u32> {
        let (_, fixups) = self.shim_and_fixups()?;
        if shim != self.shim_and_fixups()?.0 {
            return None;
        }
        let CoreInstance::Of(module, _) = self.graph.core_instances.get(shim as usize)? else {
            return None;
        };
        let slot = shim_slot(self.graph.modules.get(*module as usize)?, name)?;
        let CoreInstance::Of(module, args) = self.graph.core_instances.get(fixups as usize)? else {
            return None;
        };
        let import = fixup_import(self.graph.modules.get(*module as usize)?, slot)?;
        let [("", exports)] = args.as_slice() else { return None };
        self.exported(*exports, &import)
    }

    /// The two core instances that have a module beside `main`: the one that is instantiated
    /// without arguments, and the one that gets its table.
    fn shim_and_fixups(&self) -> Option<(u32, u32)> {
        let mut others = self.instantiated().filter(|index| *index != self.main);
        let (Some(shim), Some(fixups), None) = (others.next(), others.next(), others.next()) else {
            return None;
        };
        let CoreInstance::Of(_, args) = self.graph.core_instances.get(shim as usize)? else {
            return None;
        };
        if !args.is_empty() {
            return None;
        }
        let CoreInstance::Of(_, args) = self.graph.core_instances.get(fixups as usize)? else {
            return None;
        };
        let [("", exports)] = args.as_slice() else { return None };
        let CoreInstance::Exports(exports) = self.graph.core_instances.get(*exports as usize)?
        else {
            return None;
        };
        let table = exports.iter().find(|it| it.1 == ExternalKind::Table)?;
        let (owner, _) = *self.graph.core_tables.get(table.2 as usize)?;
        (owner == shim).then_some((shim, fixups))
    }

    fn instantiated(&self) -> impl Iterator<Item = u32> {
        let all = self.graph.core_instances.iter().enumerate();
        all.filter(|(_, it)| matches!(it, CoreInstance::Of(..))).map(|(index, _)| index as u32)
    }

    /// Checks that no other module is instantiated.
    fn nothing_else_runs(&self) -> Option<()> {
        match self.instantiated().count() {
            1 => Some(()),
            3 => self.shim_and_fixups().map(drop),
            _ => None,
        }
    }
}

/// Which entry of its table a shim's function calls with its own arguments.
fn shim_slot(wasm: &[u8], name: &str) -> Option<u32> {
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
fn fixup_import(wasm: &[u8], slot: u32) -> Option<String> {
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

/// The module with its imports named after what they stand for.
fn rename(wasm: &[u8], targets: &[Target]) -> Option<Vec<u8>> {
    let mut encoder = Encoder::new();
    for payload in Parser::new(0).parse_all(wasm) {
        let payload = payload.ok()?;
        if let Payload::ImportSection(section) = &payload {
            let mut imports = ImportSection::new();
            for (import, target) in section.clone().into_imports().zip(targets) {
                let TypeRef::Func(ty) = import.ok()?.ty else { return None };
                imports.import(&target.interface, &target.name, EntityType::Function(ty));
            }
            encoder.section(&imports);
        } else if let Some((id, range)) = payload.as_section() {
            encoder.section(&RawSection { id, data: wasm.get(range)? });
        }
    }
    Some(encoder.finish())
}

//! The index spaces of a component: each entry, and what defines it.

use wasmparser::{
    CanonicalFunction, ComponentAlias, ComponentExport, ComponentExternalKind, ComponentImport,
    ComponentInstance, ComponentType, ComponentTypeRef, ExternalKind, Instance, Parser, Payload,
};

use super::builtin::{Builtin, Options, Ty};

/// The error for a component that is not linked the way toolchains link it.
pub const ODD: &str = "its parts are not tied to each other as toolchains do it";

/// How a core function of the outer component is defined.
#[derive(Clone, Copy)]
pub enum CoreFunc<'a> {
    /// The component function of this index, lowered for core code to call.
    Lower(u32, Options),
    /// `resource.drop` for the resource type of this index.
    Drop(u32),
    /// An export of the core instance of this index.
    Export(u32, &'a str),
    /// A canonical built-in.
    Builtin(Builtin),
    /// Anything else.
    Other,
}

/// How a core instance of the outer component is defined.
#[derive(Clone)]
pub enum CoreInstance<'a> {
    /// The module of this index, instantiated with instances for its imports, by name.
    Of(u32, Vec<(&'a str, u32)>),
    /// A bundle of core items, with a name, a kind and an index each.
    Exports(Vec<(&'a str, ExternalKind, u32)>),
}

/// How a component function of the outer component is defined.
#[derive(Clone)]
pub enum Func<'a> {
    /// An export of the component instance of this index.
    Export(u32, &'a str),
    /// The core function of this index, lifted.
    Lift(u32, Options),
    /// Anything else.
    Other,
}

/// How a component instance of the outer component is defined.
#[derive(Clone)]
pub enum Outer<'a> {
    /// An import of the outer component, with its name.
    Import(&'a str),
    /// The component of this index, instantiated with arguments: a name, a kind and an index each.
    Of(u32, Vec<(&'a str, ComponentExternalKind, u32)>),
    /// Another index for this instance: exporting an instance makes one.
    Same(u32),
    /// Anything else.
    Other,
}

/// The index spaces of the outer component.
#[derive(Default)]
pub struct Graph<'a> {
    pub modules: Vec<&'a [u8]>,
    pub components: Vec<&'a [u8]>,
    pub core_instances: Vec<CoreInstance<'a>>,
    pub core_funcs: Vec<CoreFunc<'a>>,
    pub core_memories: Vec<(u32, &'a str)>,
    pub core_tables: Vec<(u32, &'a str)>,
    pub funcs: Vec<Func<'a>>,
    pub instances: Vec<Outer<'a>>,
    pub types: Vec<Ty<'a>>,
    pub exports: Vec<(&'a str, u32)>,
}

/// Reads the outer component's index spaces.
///
/// # Errors
/// The component uses a construct that no toolchain needs.
pub fn read(bytes: &[u8]) -> Result<Graph<'_>, String> {
    let mut graph = Graph::default();
    let mut depth = 0;
    for payload in Parser::new(0).parse_all(bytes) {
        let payload = payload.map_err(|_| ODD)?;
        match &payload {
            Payload::Version { .. } => depth += 1,
            Payload::End(_) => depth -= 1,
            _ if depth != 1 => {}
            Payload::ModuleSection { unchecked_range, .. } => {
                graph.modules.push(bytes.get(unchecked_range.clone()).ok_or(ODD)?);
            }
            Payload::ComponentSection { unchecked_range, .. } => {
                graph.components.push(bytes.get(unchecked_range.clone()).ok_or(ODD)?);
            }
            Payload::ComponentStartSection { .. } => {
                return Err("the component has a start function of its own".into());
            }
            payload => graph.note(payload).ok_or(ODD)?,
        }
    }
    Ok(graph)
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
                for ty in section.clone() {
                    self.types.push(match ty.ok()? {
                        ComponentType::Defined(defined) => Ty::of(&defined),
                        _ => Ty::Other,
                    });
                }
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
                    self.note_import(&import.ok()?)?;
                }
            }
            Payload::ComponentExportSection(section) => {
                for export in section.clone() {
                    self.note_export(&export.ok()?)?;
                }
            }
            _ => {}
        }
        Some(())
    }

    fn note_import(&mut self, import: &ComponentImport<'a>) -> Option<()> {
        match import.ty {
            ComponentTypeRef::Instance(_) => self.instances.push(Outer::Import(import.name.name)),
            ComponentTypeRef::Type(_) => self.types.push(Ty::Other),
            ComponentTypeRef::Func(_) => self.funcs.push(Func::Other),
            _ => return None,
        }
        Some(())
    }

    /// An export also adds an entry to the index space of its kind.
    fn note_export(&mut self, export: &ComponentExport<'a>) -> Option<()> {
        match export.kind {
            ComponentExternalKind::Instance => {
                self.exports.push((export.name.name, export.index));
                self.instances.push(Outer::Same(export.index));
            }
            ComponentExternalKind::Func => self.funcs.push(Func::Other),
            ComponentExternalKind::Type => self.types.push(Ty::Other),
            _ => return None,
        }
        Some(())
    }

    fn note_alias(&mut self, alias: &ComponentAlias<'a>) -> Option<()> {
        match *alias {
            ComponentAlias::CoreInstanceExport { kind, instance_index, name } => match kind {
                ExternalKind::Func => self.core_funcs.push(CoreFunc::Export(instance_index, name)),
                ExternalKind::Memory => self.core_memories.push((instance_index, name)),
                ExternalKind::Table => self.core_tables.push((instance_index, name)),
                // The proof does not depend on these.
                ExternalKind::Global | ExternalKind::Tag | ExternalKind::FuncExact => {}
            },
            ComponentAlias::InstanceExport { kind, instance_index, name } => match kind {
                ComponentExternalKind::Func => self.funcs.push(Func::Export(instance_index, name)),
                ComponentExternalKind::Type => self.types.push(Ty::Named(instance_index, name)),
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
            function => {
                let builtin = Builtin::of(function);
                self.core_funcs.push(builtin.map_or(CoreFunc::Other, CoreFunc::Builtin));
            }
        }
    }

    /// The name of the interface, if the instance is imported.
    pub fn import_name(&self, instance: u32) -> Option<&'a str> {
        match self.instances.get(instance as usize)? {
            Outer::Import(name) => Some(name),
            _ => None,
        }
    }

    /// The core function that is lifted as the exported handler, and the options of the lift. The
    /// name of the export begins with `interface`.
    ///
    /// # Errors
    /// There is no such export or more than one, or the handler comes from an inner component that
    /// may have code.
    pub fn handler(&self, interface: &str) -> Result<(u32, Options), String> {
        let mut exports = self.exports.iter().filter(|(name, _)| name.starts_with(interface));
        let (Some(&(_, index)), None) = (exports.next(), exports.next()) else {
            return Err(format!("it does not export one {interface}x"));
        };
        self.lifted_function(index)
            .ok_or_else(|| "its handler is that of a component in it".to_owned())
    }

    fn lifted_function(&self, mut index: u32) -> Option<(u32, Options)> {
        while let Outer::Same(same) = self.instances.get(index as usize)? {
            // Each step goes to an earlier instance, so the loop ends.
            index = Some(*same).filter(|same| *same < index)?;
        }
        // Toolchains wrap the function in a component that only names its types.
        let Outer::Of(component, args) = self.instances.get(index as usize)? else { return None };
        let mut functions = args.iter().filter(|arg| arg.1 == ComponentExternalKind::Func);
        let (Some(function), None) = (functions.next(), functions.next()) else { return None };
        super::shim::only_names_types(self.components.get(*component as usize)?, function.0)?;
        match self.funcs.get(function.2 as usize)? {
            Func::Lift(core, options) => Some((*core, *options)),
            _ => None,
        }
    }
}

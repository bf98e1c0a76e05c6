//! The proof that a component is one core module whose imports are functions of the host.

use std::collections::{BTreeSet, HashMap};

use wasmparser::{ComponentExternalKind, ExternalKind, Import, Parser, Payload, TypeRef};

use super::builtin::{Options, Ty};
use super::graph::{CoreFunc, CoreInstance, Func, Graph, ODD, Outer};
use super::shim::{fixup_imports, shim_slots};
use crate::imports::Escape;
use crate::interfaces::{BUILTINS, DROP, FlatLowering, Function, find};

/// The one memory that the host reads and writes.
pub const MEMORY: &str = "memory";

/// How much of a name is shown.
const NAME_BYTES_MAX: usize = 200;

/// What an import of the module stands for.
pub struct Target {
    /// Under which the flat form imports it.
    pub module: &'static str,
    pub function: &'static Function,
}

impl Target {
    pub fn name(&self) -> String {
        self.function.flat_name()
    }
}

/// What is being proven of a component whose handler is in the core instance `main`.
pub struct Proof<'g, 'a> {
    graph: &'g Graph<'a>,
    main: u32,
    escape: Escape,
    /// The one function that makes room, as far as it has been named.
    pub realloc: Option<&'a str>,
    /// The functions that instances made of exports have, by their names, as far as asked for.
    exported: HashMap<u32, HashMap<&'a str, u32>>,
    /// The shim, once it has been asked for.
    shim: Option<Option<Shim<'a>>>,
}

/// The core instance that stands in for functions which need the module's memory.
struct Shim<'a> {
    instance: u32,
    /// By the name of its function, the core function that this calls.
    functions: HashMap<&'a str, u32>,
}

impl<'g, 'a> Proof<'g, 'a> {
    pub fn new(graph: &'g Graph<'a>, main: u32, escape: Escape) -> Self {
        Proof { graph, main, escape, realloc: None, exported: HashMap::new(), shim: None }
    }

    /// Checks that there are as many core modules as there can be: the one, or with it the two that
    /// tie it to its imports.
    pub fn check_count(&self) -> Result<(), String> {
        match self.instantiated().count() {
            1 | 3 => Ok(()),
            count => Err(format!(
                "it is made of {count} core modules, and not of one with the two that tie it to \
                 its imports"
            )),
        }
    }

    /// Checks that values pass through the memory of `main`.
    pub fn check(&mut self, options: Options) -> Result<(), String> {
        if options.is_odd {
            return Err("its texts are not UTF-8, or a function has an option of its own".into());
        }
        if let Some(memory) = options.memory
            && self.graph.core_memories.get(memory as usize) != Some(&(self.main, MEMORY))
        {
            return Err(format!("values pass through another memory than its module's {MEMORY}"));
        }
        if let Some(realloc) = options.realloc {
            let realloc = self.graph.core_funcs.get(realloc as usize);
            let Some(&CoreFunc::Export(instance, name)) = realloc else {
                return Err(ODD.into());
            };
            if instance != self.main || self.realloc.is_some_and(|known| known != name) {
                return Err("room is made by several functions, or not by its module's".into());
            }
            self.realloc = Some(name);
        }
        Ok(())
    }

    /// What each import of the module stands for, in their order.
    pub fn targets(&mut self, wasm: &[u8], args: &[(&'a str, u32)]) -> Result<Vec<Target>, String> {
        let args: HashMap<&str, u32> = args.iter().copied().collect();
        let mut targets = Vec::new();
        for payload in Parser::new(0).parse_all(wasm) {
            match payload.map_err(|_| ODD)? {
                Payload::ImportSection(section) => {
                    for import in section.into_imports() {
                        let import = import.map_err(|_| ODD)?;
                        if !matches!(import.ty, TypeRef::Func(_)) {
                            return Err("its module imports something else than functions".into());
                        }
                        let instance = args.get(import.module);
                        let function = instance.and_then(|it| self.exported(*it, import.name));
                        let function = function.ok_or_else(|| {
                            format!("its module imports {} of another module", self.shown(&import))
                        })?;
                        targets.push(self.target(function)?.ok_or_else(|| {
                            format!("it imports {}, which the flat form lacks", self.shown(&import))
                        })?);
                    }
                }
                // It would run before there is anyone to serve its calls.
                Payload::StartSection { .. } => {
                    return Err("its module has a start function".into());
                }
                Payload::CodeSectionStart { .. } => break,
                _ => {}
            }
        }
        Ok(targets)
    }

    fn shown(&self, import: &Import<'_>) -> String {
        (self.escape)(format!("{} {}", import.module, import.name).as_bytes(), NAME_BYTES_MAX)
    }

    /// The core function that an instance made of exports has under a name.
    fn exported(&mut self, instance: u32, name: &str) -> Option<u32> {
        let CoreInstance::Exports(exports) = self.graph.core_instances.get(instance as usize)?
        else {
            return None;
        };
        let functions = self.exported.entry(instance).or_insert_with(|| {
            let functions = exports.iter().filter(|it| it.1 == ExternalKind::Func);
            functions.map(|it| (it.0, it.2)).collect()
        });
        functions.get(name).copied()
    }

    /// What a core function stands for; `None` where that is nothing that the host has.
    fn target(&mut self, function: u32) -> Result<Option<Target>, String> {
        let Some(function) = self.graph.core_funcs.get(function as usize) else { return Ok(None) };
        Ok(match *function {
            CoreFunc::Lower(function, options) => {
                self.check(options)?;
                let Some(Func::Export(instance, name)) = self.graph.funcs.get(function as usize)
                else {
                    return Ok(None);
                };
                let how = if options.is_async { FlatLowering::Async } else { FlatLowering::Sync };
                self.named(*instance, name, how)
            }
            CoreFunc::Drop(ty) => match self.graph.types.get(ty as usize) {
                Some(Ty::Named(instance, name)) => {
                    self.named(*instance, &format!("{DROP}{name}"), FlatLowering::Sync)
                }
                _ => None,
            },
            CoreFunc::Builtin(builtin) => {
                self.check(builtin.options())?;
                let name = builtin.host_name(self.graph);
                let function = name.and_then(|name| BUILTINS.function(&name));
                function.map(|function| Target { module: BUILTINS.module, function })
            }
            CoreFunc::Export(shim, name) => {
                let Some(function) = self.behind_shim(shim, name) else { return Ok(None) };
                match self.graph.core_funcs.get(function as usize) {
                    Some(CoreFunc::Lower(..) | CoreFunc::Drop(_) | CoreFunc::Builtin(_)) => {
                        return self.target(function);
                    }
                    _ => None,
                }
            }
            CoreFunc::Other => None,
        })
    }

    /// A function of an interface, if the flat form has it in this way.
    fn named(&self, instance: u32, name: &str, how: FlatLowering) -> Option<Target> {
        let interface = find(self.graph.import_name(instance)?)?;
        let function = interface.function(name).filter(|function| function.flat == how)?;
        Some(Target { module: interface.module, function })
    }

    /// The core function that a shim's function calls. The module's imports have to be there before
    /// its memory is, which the functions behind them need; so a shim stands in for them, whose
    /// table a third module fills.
    fn behind_shim(&mut self, shim: u32, name: &str) -> Option<u32> {
        let known = match self.shim.take() {
            Some(known) => known,
            None => self.read_shim(),
        };
        let functions = known.as_ref().filter(|known| known.instance == shim);
        let function = functions.and_then(|known| known.functions.get(name).copied());
        self.shim = Some(known);
        function
    }

    fn read_shim(&mut self) -> Option<Shim<'a>> {
        let (instance, fixups) = self.shim_and_fixups()?;
        let CoreInstance::Of(module, _) = self.graph.core_instances.get(instance as usize)? else {
            return None;
        };
        let slots = shim_slots(self.graph.modules.get(*module as usize)?)?;
        let CoreInstance::Of(module, args) = self.graph.core_instances.get(fixups as usize)? else {
            return None;
        };
        let imports = fixup_imports(self.graph.modules.get(*module as usize)?)?;
        let [("", exports)] = args.as_slice() else { return None };
        let called = slots.into_iter().filter_map(|(name, slot)| {
            let import = (*imports.get(slot as usize)?)?;
            Some((name, self.exported(*exports, import)?))
        });
        let functions = called.collect();
        Some(Shim { instance, functions })
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

    /// Checks that no other module is instantiated, here or in a component that is.
    pub fn nothing_else_runs(&mut self) -> Result<(), String> {
        let mut seen = BTreeSet::new();
        for instance in &self.graph.instances {
            if let Outer::Of(component, args) = instance {
                let is_code = |kind| {
                    matches!(kind, ComponentExternalKind::Module | ComponentExternalKind::Component)
                };
                if args.iter().any(|arg| is_code(arg.1)) {
                    return Err("a component in it is given code".into());
                }
                if seen.insert(*component) {
                    let component = self.graph.components.get(*component as usize);
                    let nothing = component.and_then(|component| runs_nothing(component));
                    nothing.ok_or("there is code in a component in it")?;
                }
            }
        }
        match self.instantiated().count() {
            1 => Ok(()),
            3 => {
                let shim = self.shim.take().unwrap_or_else(|| self.read_shim());
                Ok(shim.map(drop).ok_or("two core modules beside its own do more than tie it")?)
            }
            _ => self.check_count(),
        }
    }
}

/// Checks that nothing is instantiated in a component, be it its own or from around it.
fn runs_nothing(component: &[u8]) -> Option<()> {
    for payload in Parser::new(0).parse_all(component) {
        if let Payload::InstanceSection(_)
        | Payload::ComponentInstanceSection(_)
        | Payload::ComponentStartSection { .. } = payload.ok()?
        {
            return None;
        }
    }
    Some(())
}

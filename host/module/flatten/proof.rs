//! The proof that a component is one core module, and that each import of this module is a
//! function of the host.

use std::collections::{BTreeSet, HashMap};

use wasmparser::{ComponentExternalKind, ExternalKind, Import, Parser, Payload, TypeRef};

use super::builtin::{Options, Ty};
use super::graph::{CoreFunc, CoreInstance, Func, Graph, ODD, Outer};
use super::shim::{fixup_imports, shim_slots};
use crate::imports::Escape;
use crate::interfaces::{BUILTINS, DROP, FlatLowering, Function, find};

/// The export name of the one memory that the host reads and writes.
pub const MEMORY: &str = "memory";

/// How many bytes of a name are shown in an error.
const NAME_BYTES_MAX: usize = 200;

/// The function of the host that an import of the module is linked to.
pub struct Target {
    /// The module name under which flat modules import the function.
    pub module: &'static str,
    /// Its row in the table of interfaces.
    pub function: &'static Function,
}

impl Target {
    /// The name under which flat modules import the function.
    pub fn name(&self) -> String {
        self.function.flat_name()
    }
}

/// The state of the proof for a component whose handler is in the core instance `main`.
pub struct Proof<'g, 'a> {
    graph: &'g Graph<'a>,
    main: u32,
    escape: Escape,
    /// The name of the module's `cabi_realloc`, once a function with that option was checked.
    pub realloc: Option<&'a str>,
    /// A cache: for each bundle of exports, its core functions by name.
    exported: HashMap<u32, HashMap<&'a str, u32>>,
    /// A cache: the shim, and `Some(None)` if there is none.
    shim: Option<Option<Shim<'a>>>,
}

/// The core instance with the stubs for functions that need the module's memory.
struct Shim<'a> {
    instance: u32,
    /// For the name of each stub, the core function that it calls.
    functions: HashMap<&'a str, u32>,
}

impl<'g, 'a> Proof<'g, 'a> {
    /// Starts with nothing proven.
    pub fn new(graph: &'g Graph<'a>, main: u32, escape: Escape) -> Self {
        Proof { graph, main, escape, realloc: None, exported: HashMap::new(), shim: None }
    }

    /// Checks the number of instantiated core modules: the program's module alone, or with the shim
    /// and the fixups module that connect it with its imports.
    pub fn check_count(&self) -> Result<(), String> {
        match self.instantiated().count() {
            1 | 3 => Ok(()),
            count => Err(format!(
                "it is made of {count} core modules, and not of one with the two that tie it to \
                 its imports"
            )),
        }
    }

    /// Checks that values are passed in the memory of `main`, and allocated by its one realloc.
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

    /// The targets of the module's imports, in the order of the imports.
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
                // It would run before the host can serve its calls.
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

    /// The core function that a bundle of exports has under a name.
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

    /// The target of a core function; `None` if the host has no such function.
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
                let Some(function) = self.shim_callee(shim, name) else { return Ok(None) };
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

    /// The function of an imported interface, if the flat form has it with this lowering.
    fn named(&self, instance: u32, name: &str, how: FlatLowering) -> Option<Target> {
        let interface = find(self.graph.import_name(instance)?)?;
        let function = interface.function(name).filter(|function| function.flat == how)?;
        Some(Target { module: interface.module, function })
    }

    /// The core function that a stub of the shim calls.
    ///
    /// Lowered functions need the module's memory, but the module needs its imports before it has a
    /// memory. So toolchains link the module with a shim: each stub calls its function through a
    /// table, and a third module (the fixups) fills the table once the memory is there.
    fn shim_callee(&mut self, shim: u32, name: &str) -> Option<u32> {
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

    /// The core instances of the shim and of the fixups module. The shim is instantiated without
    /// arguments, and the fixups module gets the shim's table.
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

    /// Checks that no other module is instantiated, neither by the outer component nor by an inner
    /// one that it instantiates.
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

/// Checks that a component instantiates nothing, whether its own modules or those of an outer
/// component.
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

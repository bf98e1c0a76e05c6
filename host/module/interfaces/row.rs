//! The types of the table of interfaces. Its contents are in the files beside this one.

/// An interface of components, or the functions that core modules import under one module name.
#[derive(Debug, PartialEq, Eq)]
pub struct Interface {
    /// The name without the version, such as `wasi:http/types`.
    pub name: &'static str,
    /// The module name under which flat components import the functions. It differs between 0.2 and
    /// 0.3.
    pub module: &'static str,
    /// The versions that the host has.
    pub version: Version,
    /// The functions, and the resource types that can be dropped.
    pub functions: &'static [Function],
}

/// The versions of an interface that the host has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Version {
    /// Imports of core modules, which have no version.
    Core,
    /// Every released version of 0.2.
    V02,
    /// Every released version of 0.3.
    V03,
    /// This draft and no other.
    Draft(&'static str),
    /// Built-ins of the component model, whose names have no version.
    Builtin,
}

/// One function that may be imported, or one resource type that may be dropped.
#[derive(Debug, PartialEq, Eq)]
pub struct Function {
    /// Its name in the interface, such as `[method]fields.get`.
    pub name: &'static str,
    /// The type by which core modules have to import it, such as `(i32, i32) -> i64`. Functions of
    /// components have an empty one, because the interface defines their types.
    pub ty: &'static str,
    /// How flat components can import it.
    pub flat: FlatLowering,
    /// Whether its result may have text or lists in it, which the guest's `cabi_realloc` allocates.
    pub needs_realloc: bool,
    /// The flag that a handler needs for the function to be of use.
    pub grant: Option<&'static str>,
}

/// How flat components can import a function. Whole components can import every function.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FlatLowering {
    /// Not at all: a component that imports the function is not flattened.
    Missing,
    /// By a synchronous lowering: the call returns the result.
    Sync,
    /// By an asynchronous lowering: the caller gets the result later, by an event.
    Async,
}

impl Interface {
    /// An interface of core modules.
    pub const fn core(name: &'static str, functions: &'static [Function]) -> Self {
        Interface { name, module: name, version: Version::Core, functions }
    }

    /// An interface of WASI 0.2. Flat components import it by its own name.
    pub const fn of_02(name: &'static str, functions: &'static [Function]) -> Self {
        Interface { name, module: name, version: Version::V02, functions }
    }

    /// An interface of WASI 0.3. Flat components import it as `module`.
    pub const fn of_03(
        name: &'static str,
        module: &'static str,
        functions: &'static [Function],
    ) -> Self {
        Interface { name, module, version: Version::V03, functions }
    }

    /// The name and version under which the engine's linkers have the interface.
    pub fn linked(&self) -> String {
        format!("{}@{}", self.name, self.version.linked())
    }

    /// The function of this name.
    pub fn function(&self, name: &str) -> Option<&'static Function> {
        self.functions.iter().find(|function| function.name == name)
    }
}

impl Version {
    /// Whether an import of this version is served. `version` is what follows the `@`.
    pub fn fits(self, version: &str) -> bool {
        let is_released = |begin: &str| version.starts_with(begin) && !version.contains('-');
        match self {
            Version::Core | Version::Builtin => false,
            Version::V02 => is_released("0.2."),
            Version::V03 => is_released("0.3."),
            Version::Draft(draft) => version == draft,
        }
    }

    /// The latest of the versions, for messages to users. It is empty where names have no version.
    pub fn latest(self) -> &'static str {
        match self {
            Version::Core | Version::Builtin => "",
            Version::V02 => "0.2.12",
            Version::V03 => "0.3.2",
            Version::Draft(draft) => draft,
        }
    }

    /// The version under which the engine's linkers have the interface. Imports of the other
    /// versions are linked to this one.
    pub fn linked(self) -> &'static str {
        match self {
            Version::V03 => "0.3.0",
            other => other.latest(),
        }
    }
}

const fn row(
    name: &'static str,
    ty: &'static str,
    flat: FlatLowering,
    needs_realloc: bool,
) -> Function {
    Function { name, ty, flat, needs_realloc, grant: None }
}

/// A function of core modules, with its type.
pub const fn core(name: &'static str, ty: &'static str) -> Function {
    row(name, ty, FlatLowering::Missing, false)
}

/// A function that whole and flat components have.
pub const fn both(name: &'static str) -> Function {
    row(name, "", FlatLowering::Sync, false)
}

/// A function that whole and flat components have, and whose result is allocated by the guest.
pub const fn both_realloc(name: &'static str) -> Function {
    row(name, "", FlatLowering::Sync, true)
}

/// A function that whole and flat components have. Flat ones import the asynchronous lowering.
pub const fn both_async(name: &'static str) -> Function {
    row(name, "", FlatLowering::Async, false)
}

/// A function that only whole components have.
pub const fn whole(name: &'static str) -> Function {
    row(name, "", FlatLowering::Missing, false)
}

/// A function that only whole components have, and whose result is allocated by the guest.
pub const fn whole_realloc(name: &'static str) -> Function {
    row(name, "", FlatLowering::Missing, true)
}

/// The prefix under which flat components import an asynchronous lowering.
pub const ASYNC: &str = "[async-lower]";

impl Function {
    /// The name under which flat components import the function, unless they lack it.
    pub fn flat_name(&self) -> String {
        let prefix = if self.flat == FlatLowering::Async { ASYNC } else { "" };
        format!("{prefix}{}", self.name)
    }

    /// The same function, of use only with this flag.
    pub const fn granted(mut self, flag: &'static str) -> Self {
        self.grant = Some(flag);
        self
    }
}

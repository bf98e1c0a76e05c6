//! What a row of the table of interfaces says.
//!
//! Owns the form of the table. What is in it is in the files beside.

/// An interface, or what a core module imports from under one name.
#[derive(Debug, PartialEq, Eq)]
pub struct Interface {
    /// Without its version.
    pub name: &'static str,
    /// The name of the module under which a flat component imports it. It tells the versions apart.
    pub module: &'static str,
    pub version: Version,
    pub functions: &'static [Function],
}

/// The versions of an interface that the host has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Version {
    /// It has none, and core modules alone import it.
    Core,
    /// All of 0.2 that are released.
    V02,
    /// All of 0.3 that are released.
    V03,
    /// This draft and no other.
    Draft(&'static str),
    /// It is the component model's own, which has no version in names.
    Builtin,
}

/// One function that may be imported, or one type of resources that may be dropped.
#[derive(Debug, PartialEq, Eq)]
pub struct Function {
    pub name: &'static str,
    /// What a core module has to import it as. It is empty for functions of components, whose types
    /// are the interface's.
    pub ty: &'static str,
    pub flat: FlatLowering,
    /// Whether its result may have text or lists in it, for which room is made by the guest's own
    /// `cabi_realloc`.
    pub needs_realloc: bool,
    /// The flag without which it gives a guest nothing.
    pub grant: Option<&'static str>,
}

/// How the one module of a component has a function, which the component as a whole always has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FlatLowering {
    Missing,
    /// The caller has its result when it returns.
    Sync,
    /// The caller is told of its result later.
    Async,
}

impl Interface {
    pub const fn core(name: &'static str, functions: &'static [Function]) -> Self {
        Interface { name, module: name, version: Version::Core, functions }
    }

    pub const fn of_02(name: &'static str, functions: &'static [Function]) -> Self {
        Interface { name, module: name, version: Version::V02, functions }
    }

    pub const fn of_03(
        name: &'static str,
        module: &'static str,
        functions: &'static [Function],
    ) -> Self {
        Interface { name, module, version: Version::V03, functions }
    }

    /// The name by which the engine's linkers have it.
    pub fn linked(&self) -> String {
        format!("{}@{}", self.name, self.version.linked())
    }

    /// The function of a name.
    pub fn function(&self, name: &str) -> Option<&'static Function> {
        self.functions.iter().find(|function| function.name == name)
    }
}

impl Version {
    /// Whether an import that names this version is one of these.
    pub fn fits(self, version: &str) -> bool {
        let is_released = |begin: &str| version.starts_with(begin) && !version.contains('-');
        match self {
            Version::Core | Version::Builtin => false,
            Version::V02 => is_released("0.2."),
            Version::V03 => is_released("0.3."),
            Version::Draft(draft) => version == draft,
        }
    }

    /// The latest of them, as users are told.
    pub fn latest(self) -> &'static str {
        match self {
            Version::Core | Version::Builtin => "",
            Version::V02 => "0.2.12",
            Version::V03 => "0.3.2",
            Version::Draft(draft) => draft,
        }
    }

    /// The one under which the engine's linkers have it, which stands for all of them there.
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

/// One that core modules import.
pub const fn core(name: &'static str, ty: &'static str) -> Function {
    row(name, ty, FlatLowering::Missing, false)
}

/// One that components have in both forms.
pub const fn both(name: &'static str) -> Function {
    row(name, "", FlatLowering::Sync, false)
}

/// One that components have in both forms, and that needs room for its result.
pub const fn both_realloc(name: &'static str) -> Function {
    row(name, "", FlatLowering::Sync, true)
}

/// One that components have in both forms, in the flat one without waiting for it.
pub const fn both_async(name: &'static str) -> Function {
    row(name, "", FlatLowering::Async, false)
}

/// One that only whole components have.
pub const fn whole(name: &'static str) -> Function {
    row(name, "", FlatLowering::Missing, false)
}

/// One that only whole components have, and that needs room for its result.
pub const fn whole_realloc(name: &'static str) -> Function {
    row(name, "", FlatLowering::Missing, true)
}

/// What the name of a function begins with that its caller does not wait for.
pub const ASYNC: &str = "[async-lower]";

impl Function {
    /// The name under which the flat form imports it, if it has it.
    pub fn flat_name(&self) -> String {
        let prefix = if self.flat == FlatLowering::Async { ASYNC } else { "" };
        format!("{prefix}{}", self.name)
    }

    pub const fn granted(mut self, flag: &'static str) -> Self {
        self.grant = Some(flag);
        self
    }
}

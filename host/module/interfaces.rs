//! The one table of what guests may import: the http-wasm handler ABI, WASI preview 1, 0.2 and 0.3,
//! and the built-ins of the component model.
//!
//! A guest's imports are judged by this table, and so is whether a component can be flat. The
//! linkers of the host take their names from it, and tests compare them and the guest contract with
//! it. It knows no engine.

mod builtins;
mod files02;
mod files03;
pub mod http02;
pub mod http03;
pub mod modules;
mod row;
#[cfg(test)]
mod tests;
pub mod wasi02;
pub mod wasi03;

pub use builtins::BUILTINS;
pub use row::{ASYNC, FlatLowering, Function, Interface, Version};

/// The prefix of functions that drop a handle. The name of the resource type follows.
pub const DROP: &str = "[resource-drop]";

/// All interfaces that components may import.
pub fn of_components() -> impl Iterator<Item = &'static Interface> {
    [wasi02::ALL, files02::ALL, http02::ALL, wasi03::ALL, files03::ALL, http03::ALL]
        .into_iter()
        .flatten()
}

/// Splits `name@version`. The version is empty if there is none.
pub fn split(name: &str) -> (&str, &str) {
    name.split_once('@').unwrap_or((name, ""))
}

/// The interface that a component imports by this name and version, if the host has it.
pub fn find(name: &str) -> Option<&'static Interface> {
    let (name, version) = split(name);
    of_components().find(|it| it.name == name && it.version.fits(version))
}

/// The function that a core module imports by these names, if the host has it.
pub fn find_core(module: &str, name: &str) -> Option<&'static Function> {
    let interface = modules::ALL.iter().find(|interface| interface.name == module);
    interface.and_then(|interface| interface.function(name))
}

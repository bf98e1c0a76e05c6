//! The one table of what guests may import: of the http-wasm handler ABI, of WASI preview 1, 0.2
//! and 0.3, and of the component model itself.
//!
//! What a file imports is judged by it, the flat form is decided by it, the linkers take their
//! names from it and are compared with it, and the contract shows it. It knows no engine.

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

/// What the name begins with under which a resource's handles are dropped.
pub const DROP: &str = "[resource-drop]";

/// Everything that components may import by an interface's name.
pub fn of_components() -> impl Iterator<Item = &'static Interface> {
    [wasi02::ALL, files02::ALL, http02::ALL, wasi03::ALL, files03::ALL, http03::ALL]
        .into_iter()
        .flatten()
}

/// An interface's name without its version, and the version.
pub fn split(name: &str) -> (&str, &str) {
    name.split_once('@').unwrap_or((name, ""))
}

/// The interface that a component imports by a name with its version.
pub fn find(name: &str) -> Option<&'static Interface> {
    let (name, version) = split(name);
    of_components().find(|it| it.name == name && it.version.fits(version))
}

/// What a core module imports by these names.
pub fn find_core(module: &str, name: &str) -> Option<&'static Function> {
    let interface = modules::ALL.iter().find(|interface| interface.name == module);
    interface.and_then(|interface| interface.function(name))
}

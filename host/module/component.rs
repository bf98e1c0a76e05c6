//! Reads a component's imports, exports and sizes, and judges whether the host can serve it.
//!
//! Owns the hints for interfaces that the host does not have: where they come from and what to do.
//! Compiles and runs nothing.

#[cfg(test)]
mod tests;

use std::collections::HashSet;

use wasmparser::component_types::{ComponentAnyTypeId, ComponentEntityType};
use wasmparser::types::TypesRef;
use wasmparser::{Parser, Payload, Validator, WasmFeatures};

use super::imports::{Rules, judge_memory, judge_table};
use super::interfaces::{Interface, Version, find, of_components, split, wasi02::CONFIG_STORE};
use super::sniff::{self, check_imports, damaged};

/// A component's imports, exports and sizes.
#[derive(Debug, Default)]
pub struct Component {
    /// The names of the imports that the host has to provide, with their versions. Imports that
    /// only name types are left out.
    pub imports: Vec<String>,
    /// The names of all exports, with their versions.
    pub exports: Vec<String>,
    /// Bytes of the data segments of all its modules.
    pub data_bytes: usize,
    /// The initial size of all its memories together, in bytes.
    pub memory_bytes: u64,
    /// The initial number of elements of its largest table.
    pub table_elements: u64,
    /// Whether one of its modules has a start function.
    pub has_start: bool,
}

/// Validates and reads a component.
///
/// # Errors
/// A sentence that says what is wrong with the bytes.
pub fn read(bytes: &[u8]) -> Result<Component, String> {
    let mut component = Component::default();
    let mut validator = Validator::new_with_features(features());
    let (mut depth, mut names) = (0_u32, Vec::new());
    for payload in Parser::new(0).parse_all(bytes) {
        let payload = payload.map_err(|error| damaged(&error))?;
        check_imports(&payload)?;
        match &payload {
            Payload::Version { .. } => depth += 1,
            Payload::End(_) => depth -= 1,
            Payload::ComponentImportSection(section) if depth == 1 => {
                for import in section.clone() {
                    names.push(import.map_err(|error| damaged(&error))?.name.name);
                }
            }
            Payload::ComponentExportSection(section) if depth == 1 => {
                for export in section.clone() {
                    let name = export.map_err(|error| damaged(&error))?.name.name;
                    component.exports.push(name.to_owned());
                }
            }
            payload => note(payload, &mut component).map_err(|error| damaged(&error))?,
        }
        match validator.payload(&payload).map_err(|error| damaged(&error))? {
            wasmparser::ValidPayload::Func(function, body) => {
                let mut function = function.into_validator(Default::default());
                function.validate(&body).map_err(|error| damaged(&error))?;
            }
            wasmparser::ValidPayload::End(types) if depth == 0 => {
                component.imports = needed(types.as_ref(), &names);
            }
            _ => {}
        }
    }
    Ok(component)
}

/// The WebAssembly proposals that a component may use.
pub fn features() -> WasmFeatures {
    sniff::features() | WasmFeatures::COMPONENT_MODEL | WasmFeatures::CM_ASYNC
}

/// Adds up the sizes that one section of an inner module declares.
fn note(payload: &Payload<'_>, component: &mut Component) -> wasmparser::Result<()> {
    match payload {
        Payload::MemorySection(section) => {
            for memory in section.clone() {
                let bytes = memory?.initial.saturating_mul(64 * 1024);
                component.memory_bytes = component.memory_bytes.saturating_add(bytes);
            }
        }
        Payload::TableSection(section) => {
            for table in section.clone() {
                component.table_elements = component.table_elements.max(table?.ty.initial);
            }
        }
        Payload::DataSection(section) => {
            for data in section.clone() {
                component.data_bytes += data?.data.len();
            }
        }
        Payload::StartSection { .. } => component.has_start = true,
        _ => {}
    }
    Ok(())
}

/// The imports that are more than types. A resource counts as needed where it is first imported.
/// Interfaces that use it name it again, and there it is only a type.
fn needed(types: TypesRef<'_>, names: &[&str]) -> Vec<String> {
    let mut known = HashSet::new();
    let mut is_needed = |name: &str| {
        let Some(item) = types.component_item_for_import(name) else { return true };
        let mut is_more = |ty: &ComponentEntityType| match ty {
            ComponentEntityType::Type { created, .. } => match created {
                ComponentAnyTypeId::Resource(id) => known.insert(id.resource()),
                _ => false,
            },
            _ => true,
        };
        match &item.ty {
            // `count` visits every export, so that all resources of the instance are recorded.
            ComponentEntityType::Instance(instance) => {
                types[*instance].exports.values().filter(|item| is_more(&item.ty)).count() > 0
            }
            ty => is_more(ty),
        }
    };
    let needed = names.iter().filter(|name| is_needed(name));
    needed.map(|name| (*name).to_owned()).collect()
}

/// The version of `interface` that the host has and that is nearest to `version`.
fn nearest(interface: &str, version: &str) -> Option<&'static str> {
    let has = || of_components().filter(|it| it.name == interface);
    let is_like = |it: &&Interface| match it.version {
        Version::V02 => version.starts_with("0.2."),
        Version::V03 => version.starts_with("0.3."),
        Version::Core | Version::Draft(_) | Version::Builtin => false,
    };
    let nearest = has().find(is_like).or_else(|| has().last())?;
    Some(nearest.version.latest())
}

/// The version of wasi:http by which a component is served.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WasiHttpVersion {
    /// `wasi:http/incoming-handler@0.2.x`
    Http02,
    /// `wasi:http/handler@0.3.x`
    Http03,
}

impl Component {
    /// Whether it imports any interface of WASI 0.3.
    pub fn needs_03(&self) -> bool {
        self.imports.iter().any(|name| Version::V03.fits(split(name).1))
    }
}

/// Checks a component's exports, imports and sizes. A component that exports the handlers of both
/// versions is served by 0.3.
///
/// # Errors
/// One sentence for each fault: what is wrong, where it comes from and what to do.
pub fn judge(component: &Component, rules: &Rules) -> Result<WasiHttpVersion, String> {
    let mut faults = Vec::new();
    let version = judge_exports(component, rules).unwrap_or_else(|fault| {
        faults.push(fault);
        WasiHttpVersion::Http02
    });
    judge_imports(component, rules, &mut faults);
    judge_memory(component.memory_bytes, rules, &mut faults);
    judge_table(component.table_elements, &mut faults);
    if faults.is_empty() { Ok(version) } else { Err(faults.join("; ")) }
}

fn judge_exports(component: &Component, rules: &Rules) -> Result<WasiHttpVersion, String> {
    let versions = |interface: &str| -> Vec<&str> {
        let exports = component.exports.iter().map(|name| split(name));
        exports.filter(|(name, _)| *name == interface).map(|(_, version)| version).collect()
    };
    let (old, new) = (versions("wasi:http/incoming-handler"), versions("wasi:http/handler"));
    if new.iter().any(|version| Version::V03.fits(version)) {
        return Ok(WasiHttpVersion::Http03);
    }
    if old.iter().any(|version| Version::V02.fits(version)) {
        return Ok(WasiHttpVersion::Http02);
    }
    if let Some(version) = old.first() {
        return Err(format!(
            "speaks wasi:http {version}, from before 0.2.0: rebuild it with its toolchain of today"
        ));
    }
    if let Some(version) = new.first() {
        let why = if version.contains("-rc") { ", a draft of 0.3.0" } else { "" };
        return Err(format!(
            "speaks wasi:http {version}{why}: rebuild it with a toolchain for 0.3.0 (in Rust, the \
             crate wasip3 0.7 or later)"
        ));
    }
    if !versions("wasi:cli/run").is_empty() {
        return Err("a command component (it exports wasi:cli/run): export \
                    wasi:http/incoming-handler instead, with the crate wstd and \
                    #[wstd::http_server] in Rust"
            .into());
    }
    let exports = match component.exports.as_slice() {
        [] => "nothing".to_owned(),
        names => (rules.escape)(names.join(", ").as_bytes(), 200),
    };
    let (old, new) = (Version::V02.latest(), Version::V03.latest());
    Err(format!(
        "not a handler: it exports {exports}, but neither wasi:http/handler@{new} nor \
         wasi:http/incoming-handler@{old}"
    ))
}

fn judge_imports(component: &Component, rules: &Rules, faults: &mut Vec<String>) {
    const SHOWN_MAX: usize = 5;
    let missing: Vec<&String> =
        component.imports.iter().filter(|name| find(name).is_none()).collect();
    for name in missing.iter().take(SHOWN_MAX) {
        let shown = (rules.escape)(name.as_bytes(), 100);
        faults.push(format!("imports {shown}, which the host does not have: {}", origin(name)));
    }
    if let Some(more) = missing.len().checked_sub(SHOWN_MAX).filter(|more| *more > 0) {
        faults.push(format!("and {more} more unknown imports"));
    }
}

/// The hint for an unknown import: where it usually comes from, and what to do.
fn origin(name: &str) -> String {
    let (interface, version) = split(name);
    let (package, _) = interface.split_once('/').unwrap_or((interface, ""));
    if package == "wasi:config" {
        // No version is released, and two drafts are not compatible.
        let (interface, version) = (CONFIG_STORE.name, CONFIG_STORE.version.latest());
        return format!(
            "the nearest is {interface}@{version}; rebuild it with the interface of that version"
        );
    }
    if let Some(nearest) = nearest(interface, version) {
        let why = if version.contains("-rc") { "a draft; " } else { "" };
        return format!(
            "{why}the nearest is {interface}@{nearest}; rebuild it with a toolchain for that"
        );
    }
    if matches!(interface, "wasi:http/handler" | "wasi:http/incoming-handler") {
        return "this is middleware, and the import is the handler behind it: compose the two into \
                one component (wac plug)"
            .into();
    }
    let text = match package.split_once(':').map_or(package, |(namespace, _)| namespace) {
        "wasi" => "an interface of WASI that this host does not offer",
        "fermyon" | "spin" => "from the Spin SDK, for Spin; wasi:http alone runs everywhere",
        "wasmcloud" => "from wasmCloud; wasi:http alone runs everywhere",
        "fastly" => "from the Fastly Compute SDK; wasi:http alone runs everywhere",
        "golem" => "from the Golem SDK; wasi:http alone runs everywhere",
        _ => {
            "of the component's own world; compose it with a component that exports it (wac plug), \
             or leave it out of the world"
        }
    };
    text.into()
}

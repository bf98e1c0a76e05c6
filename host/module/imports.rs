//! Judges whether the host can serve a core module: its imports, exports and sizes.
//!
//! Owns these rules, and the sentences that tell a user which one is broken. Runs nothing.

#[cfg(test)]
mod tests;

use super::interfaces::{find_core, modules};
use super::limits::{MEMORIES_MAX, TABLE_ELEMENTS_MAX, TABLES_MAX};
use super::sniff::{Import, Module};
use super::toolchains;

/// Escapes untrusted text for one line of a log, in about the given number of bytes at most. The
/// host passes its own, so that this crate does not depend on it.
pub type Escape = fn(&[u8], usize) -> String;

/// The rules that depend on the configuration of the host.
pub struct Rules {
    /// The largest initial size of a guest's memories together, in bytes.
    pub memory_bytes_max: u64,
    /// Escapes the names that come from the guest.
    pub escape: Escape,
}

/// Checks a module's imports, exports and sizes.
///
/// # Errors
/// One sentence for each fault: what is wrong, where it comes from and what to do.
pub fn judge(module: &Module, rules: &Rules) -> Result<(), String> {
    let mut faults = Vec::new();
    judge_exports(module, &mut faults);
    judge_imports(module, rules, &mut faults);
    judge_sizes(module, rules, &mut faults);
    if faults.is_empty() { Ok(()) } else { Err(faults.join("; ")) }
}

fn judge_exports(module: &Module, faults: &mut Vec<String>) {
    match module.export("handle_request") {
        None => faults.push(no_handler(module)),
        Some(export) if &*export.ty != "() -> i64" => faults.push(format!(
            "exports handle_request as {}, but the http-wasm ABI has it as () -> i64: \
             low 32 bits next, high 32 bits a context",
            export.ty
        )),
        Some(_) => {}
    }
    if let Some(export) = module.export("handle_response")
        && &*export.ty != "(i32, i32)"
    {
        faults.push(format!(
            "exports handle_response as {}, but the http-wasm ABI has it as (i32, i32)",
            export.ty
        ));
    }
    match module.export("memory") {
        None => faults.push(
            "exports no memory: the host reads and writes through the export `memory`".into(),
        ),
        Some(export) if &*export.ty != "memory" => {
            faults.push(format!("exports `memory` as a {}, not as a memory", export.ty));
        }
        Some(_) => {}
    }
    for name in ["_start", "_initialize"] {
        if let Some(export) = module.export(name)
            && &*export.ty != "()"
        {
            faults.push(format!("exports {name} as {}, but it must be ()", export.ty));
        }
    }
}

fn no_handler(module: &Module) -> String {
    let why = if module.export("_start").is_some() {
        "it is a command (it exports _start only): register a handler with the crate \
         http-wasm-guest, or start from `guesthouse new rust NAME`"
    } else {
        "export handle_request: () -> i64; `guesthouse new wat NAME` shows the smallest handler"
    };
    format!("not a handler: no export handle_request; {why}")
}

fn judge_imports(module: &Module, rules: &Rules, faults: &mut Vec<String>) {
    const SHOWN_MAX: usize = 5;
    let (mut missing, mut unlike) = (0, 0);
    for import in &module.imports {
        match find_core(&import.module, &import.name).map(|function| function.ty) {
            Some(ty) if *ty == *import.ty => {}
            Some(ty) => {
                unlike += 1;
                if unlike <= SHOWN_MAX {
                    faults.push(format!(
                        "imports {}::{} as {}, but the host has it as {ty}",
                        import.module, import.name, import.ty
                    ));
                }
            }
            None => {
                missing += 1;
                if missing <= SHOWN_MAX {
                    let (from, name, ty) = (&import.module, &import.name, &import.ty);
                    faults.push(format!(
                        "imports {}::{} {ty}, which the host does not have: {}",
                        (rules.escape)(from.as_bytes(), 64),
                        (rules.escape)(name.as_bytes(), 64),
                        origin(import)
                    ));
                }
            }
        }
    }
    if missing > SHOWN_MAX {
        faults.push(format!("and {} more unknown imports", missing - SHOWN_MAX));
    }
    if unlike > SHOWN_MAX {
        faults.push(format!("and {} more imports of another type", unlike - SHOWN_MAX));
    }
}

/// The hint for an unknown import: where it usually comes from, and what to do.
fn origin(import: &Import) -> String {
    let Import { module, name, ty, is_function } = import;
    if !is_function {
        return toolchains::of_other(module, name, ty).into();
    }
    if let Some(known) = modules::ALL.iter().find(|known| known.name == module) {
        let names = known.functions.iter().map(|function| function.name);
        let near = names.max_by_key(|known| likeness(known, name)).unwrap_or_default();
        return format!("{module} has no such function; the nearest is {near}");
    }
    toolchains::of_function(module, name, ty).into()
}

/// How alike two names are: the length of their common prefix plus that of their common suffix.
fn likeness(a: &str, b: &str) -> usize {
    let front = a.bytes().zip(b.bytes()).take_while(|(a, b)| a == b).count();
    let back = a.bytes().rev().zip(b.bytes().rev()).take_while(|(a, b)| a == b).count();
    front + back
}

fn judge_sizes(module: &Module, rules: &Rules, faults: &mut Vec<String>) {
    judge_memory(module.memory_bytes, rules, faults);
    if module.memories > MEMORIES_MAX {
        faults
            .push(format!("has {} memories, at most {MEMORIES_MAX} can be held", module.memories));
    }
    if module.tables > TABLES_MAX {
        faults.push(format!("has {} tables, at most {TABLES_MAX} can be held", module.tables));
    }
    judge_table(module.table_elements, faults);
}

/// Checks the initial size of a guest's memories together, in bytes.
pub fn judge_memory(memory_bytes: u64, rules: &Rules, faults: &mut Vec<String>) {
    let memory_bytes_max = rules.memory_bytes_max;
    if memory_bytes > memory_bytes_max {
        faults.push(format!(
            "needs {} KiB of memory to begin with, more than the limit of {} KiB: \
             raise --memory-max",
            memory_bytes >> 10,
            memory_bytes_max >> 10
        ));
    }
}

/// Checks the initial number of elements of a guest's largest table.
pub fn judge_table(elements: u64, faults: &mut Vec<String>) {
    if elements > TABLE_ELEMENTS_MAX as u64 {
        faults.push(format!(
            "has a table of {elements} elements, at most {TABLE_ELEMENTS_MAX} can be held"
        ));
    }
}

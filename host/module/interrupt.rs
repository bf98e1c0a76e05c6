//! Rewrites a module so that it can be interrupted anywhere.
//!
//! The engine interrupts a guest by its epoch, and compiled code checks the epoch only at function
//! entries and loop headers. A guest can run long without either: it calls the host a hundred times
//! in a row, has 700,000 instructions of straight-line code, or fills 128 MiB by one instruction.
//!
//! So this module adds code that has an epoch check: an empty loop after each call of an import and
//! within long straight-line code, and functions that do a large `memory.fill`, `memory.copy` or
//! `memory.init` in pieces.
//!
//! Owns what is added and where. Bytes in, bytes out: it must not know of the engine, and its input
//! is valid.

mod added_functions;
mod base;
mod body;
mod call_graph;
mod offsets;
mod path_cost;
mod plan;

#[cfg(test)]
mod tests;

use wasmparser::{BinaryReader, Parser, Payload};

use added_functions::AddedFunctions;
pub use base::{Divisible, PIECE_BYTES};
use base::{Result, damaged, write_u32};
pub use offsets::OffsetMap;
use plan::Plan;

/// A module that can be interrupted.
#[derive(Debug)]
pub struct Interruptible {
    /// The rewritten module.
    pub wasm: Vec<u8>,
    /// Maps its code offsets to those of the original module.
    pub offsets: OffsetMap,
}

/// How deep components may be nested.
const DEPTH_MAX: usize = 100;
/// The engine's limits on the functions and types of a module.
const FUNCTIONS_MAX: usize = 1_000_000;
const TYPES_MAX: usize = 1_000_000;
/// Section ids in a component.
const CORE_MODULE: u8 = 1;
const COMPONENT: u8 = 4;
/// Section ids in a module.
const TYPES: u8 = 1;
const FUNCTIONS: u8 = 3;
const CODE: u8 = 10;
/// Bytes of the magic number and the version, in modules and components.
const PREAMBLE_BYTES: usize = 8;

/// Rewrites a valid module. Calls of the `divisible` imports with a long range become several
/// calls.
///
/// # Errors
/// A sentence, if the module is so large that nothing can be added to it.
pub fn module(wasm: &[u8], divisible: &[Divisible]) -> Result<Interruptible> {
    let plan = Plan::read(wasm, divisible)?;
    let mut helpers = AddedFunctions::new(&plan);
    let mut bodies = Vec::with_capacity(plan.defined.len());
    let mut is_changed = !plan.referenced.is_empty();
    let mut sections = Vec::new();
    for payload in Parser::new(0).parse_all(wasm) {
        let payload = payload.map_err(damaged)?;
        if let Payload::CodeSectionEntry(body) = &payload {
            let rewritten = body::rewrite(&plan, &mut helpers, (wasm, body), bodies.len())?;
            is_changed |= rewritten.is_changed;
            bodies.push(rewritten);
        } else if let Some((id, range)) = payload.as_section() {
            let contents = match added_functions::redirected(&payload, &helpers)? {
                Some(contents) => contents,
                None => wasm.get(range).unwrap_or_default().to_vec(),
            };
            sections.push((id, contents));
        }
    }
    if !is_changed {
        return Ok(Interruptible { wasm: wasm.to_vec(), offsets: OffsetMap::default() });
    }
    helpers.finish();
    let functions = plan.functions() + helpers.len();
    let types = plan.types.len() + helpers.types().len();
    if !helpers.is_empty() && (functions > FUNCTIONS_MAX || types > TYPES_MAX) {
        return Err(
            "it has so many functions or types that none can be added to it, as it takes to \
                    interrupt it: split it"
                .into(),
        );
    }
    Ok(assemble(sections, &bodies, &helpers))
}

/// Writes the module: its sections, with the additions.
fn assemble(
    mut sections: Vec<(u8, Vec<u8>)>,
    bodies: &[body::Rewritten],
    helpers: &AddedFunctions<'_>,
) -> Interruptible {
    let (code, mut offsets) = code_section(bodies, helpers);
    if !helpers.is_empty() {
        append(&mut sections, TYPES, &helpers.types());
        append(&mut sections, FUNCTIONS, &helpers.functions());
        sections.push((0, helpers.names()));
    }
    *section(&mut sections, CODE) = code;
    let mut wasm = b"\0asm\x01\0\0\0".to_vec();
    for (id, contents) in &sections {
        wasm.push(*id);
        write_u32(&mut wasm, contents.len());
        if *id == CODE {
            offsets.shift(wasm.len());
        }
        wasm.extend_from_slice(contents);
    }
    Interruptible { wasm, offsets }
}

fn code_section(bodies: &[body::Rewritten], helpers: &AddedFunctions<'_>) -> (Vec<u8>, OffsetMap) {
    let mut code = Vec::new();
    let mut offsets = OffsetMap::default();
    write_u32(&mut code, bodies.len() + helpers.bodies().len());
    for body in bodies {
        write_u32(&mut code, body.bytes.len());
        offsets.append(&body.offsets, code.len());
        code.extend_from_slice(&body.bytes);
    }
    for body in helpers.bodies() {
        write_u32(&mut code, body.len());
        offsets.end(code.len());
        code.extend_from_slice(body);
    }
    (code, offsets)
}

/// Adds entries to a section that consists of a count and its entries.
fn append(sections: &mut Vec<(u8, Vec<u8>)>, id: u8, entries: &[Vec<u8>]) {
    let contents = section(sections, id);
    let mut reader = BinaryReader::new(contents, 0);
    let count = reader.read_var_u32().unwrap_or(0) as usize;
    let rest = reader.original_position();
    let mut all = Vec::with_capacity(contents.len() + 5);
    write_u32(&mut all, count + entries.len());
    all.extend_from_slice(contents.get(rest..).unwrap_or_default());
    all.extend(entries.iter().flatten());
    *contents = all;
}

/// The contents of a section. An empty section is inserted if there is none.
fn section(sections: &mut Vec<(u8, Vec<u8>)>, id: u8) -> &mut Vec<u8> {
    let found = sections.iter().position(|section| section.0 == id);
    let at = found.unwrap_or_else(|| {
        let behind = |other: u8| other != 0 && rank(other) > rank(id);
        let at = sections.iter().position(|section| behind(section.0)).unwrap_or(sections.len());
        sections.insert(at, (id, Vec::new()));
        at
    });
    &mut sections[at].1
}

/// Sections are written in ascending order of this number (core specification, 5.5.2).
fn rank(id: u8) -> u8 {
    const TAGS: u8 = 13;
    const DATA_COUNT: u8 = 12;
    match id {
        // Between memories (5) and globals (6); between elements (9) and code.
        TAGS => 11,
        DATA_COUNT => 19,
        id => 2 * id,
    }
}

/// Rewrites every module in a valid component, at any depth.
///
/// # Errors
/// As [`module`].
pub fn component(wasm: &[u8]) -> Result<Vec<u8>> {
    component_at(wasm, 0)
}

fn component_at(wasm: &[u8], depth: usize) -> Result<Vec<u8>> {
    if depth > DEPTH_MAX {
        return Err(format!("components are more than {DEPTH_MAX} deep inside of each other"));
    }
    let mut all = wasm.get(..PREAMBLE_BYTES).unwrap_or_default().to_vec();
    let mut reader = BinaryReader::new(wasm.get(PREAMBLE_BYTES..).unwrap_or_default(), 0);
    while !reader.eof() {
        let id = reader.read_u8().map_err(damaged)?;
        let len = reader.read_var_u32().map_err(damaged)?;
        let contents = reader.read_bytes(len as usize).map_err(damaged)?;
        let rewritten = match id {
            CORE_MODULE => Some(module(contents, &[])?.wasm),
            COMPONENT => Some(component_at(contents, depth + 1)?),
            _ => None,
        };
        let contents = rewritten.as_deref().unwrap_or(contents);
        all.push(id);
        write_u32(&mut all, contents.len());
        all.extend_from_slice(contents);
    }
    Ok(all)
}

//! The properties that have to hold for all inputs: nothing panics, and each result is what its
//! function promises.

use guesthouse_module::component::{self, WasiHttpVersion};
use guesthouse_module::flatten::{self, flatten};
use guesthouse_module::imports::{self, Rules};
use guesthouse_module::interrupt::{self, Divisible};
use guesthouse_module::{records, reset, sniff, text};

use crate::execute;
use crate::facts::{Facts, is_valid, modules_that_run};
use crate::inputs::Input;

/// The most bytes of the reason why a guest is refused.
const REASON_BYTES_MAX: usize = 64 << 10;
/// The largest modules that are run.
const RUN_BYTES_MAX: usize = 64 << 10;

const DIVISIBLE: &[Divisible] = &[
    Divisible { module: "http_handler", name: "write_body" },
    Divisible { module: "wasi_snapshot_preview1", name: "random_get" },
];

/// How many inputs reached each part of the checks.
#[derive(Debug, Default)]
pub struct Coverage {
    pub inputs: u64,
    pub modules: u64,
    pub components: u64,
    pub served: u64,
    pub rewritten: u64,
    pub flattened: u64,
    pub resettable: u64,
    pub run: u64,
}

/// The error says which property does not hold.
pub type Checked = Result<(), String>;

/// Escapes text as the host does: one line of limited length.
fn escape(text: &[u8], bytes_max: usize) -> String {
    let mut shown: String = String::from_utf8_lossy(text).escape_debug().collect();
    let end = (0..=bytes_max.min(shown.len())).rev().find(|at| shown.is_char_boundary(*at));
    shown.truncate(end.unwrap_or(0));
    shown
}

const RULES: Rules = Rules { memory_bytes_max: 64 << 20, escape };

/// Runs all functions of the crate on an input, and checks the results.
///
/// # Errors
/// The property that does not hold.
pub fn check(input: &Input, seen: &mut Coverage) -> Checked {
    seen.inputs += 1;
    if input.is_text {
        return match text::binary(&input.bytes, escape) {
            Ok(bytes) => check_binary(&bytes, seen),
            Err(reason) => check_reason(&reason),
        };
    }
    check_binary(&input.bytes, seen)
}

fn check_binary(bytes: &[u8], seen: &mut Coverage) -> Checked {
    // All of these have to end without a panic, whether the bytes are valid or not.
    let about = sniff::read(bytes);
    let outer = component::read(bytes);
    let size = records::read(bytes);
    let rewritten = interrupt::module(bytes, DIVISIBLE);
    let rewritten_component = interrupt::component(bytes);
    let flats = [WasiHttpVersion::Http02, WasiHttpVersion::Http03]
        .map(|version| (version, flatten(bytes, version, escape)));
    let resettable = reset::qualify(bytes, 1 << 16, 1);
    let reasons = [about.as_ref().err(), outer.as_ref().err(), size.as_ref().err()];
    let refusals = flats.iter().map(|(_, flat)| flat.as_ref().err());
    reasons.into_iter().chain(refusals).flatten().try_for_each(|reason| check_reason(reason))?;

    if is_valid(bytes, sniff::features()) {
        seen.modules += 1;
        let about = about.map_err(|reason| format!("a valid module is refused: {reason}"))?;
        let facts = Facts::read(bytes).map_err(|error| error.to_string())?;
        check_about(&about, &facts)?;
        match imports::judge(&about, &RULES) {
            Ok(()) => seen.served += 1,
            Err(reason) => check_reason(&reason)?,
        }
        let resettable = reset::qualify(bytes, about.memory_bytes, about.memories);
        if let Some(resettable) = resettable {
            seen.resettable += 1;
            check_resettable(&facts, &resettable)?;
        }
        if let Ok(rewritten) = rewritten {
            seen.rewritten += u64::from(rewritten.wasm != bytes);
            check_rewritten(&facts, &rewritten.wasm)?;
            check_offsets(bytes, &rewritten)?;
            if bytes.len() < RUN_BYTES_MAX && rewritten.wasm != bytes {
                seen.run += u64::from(execute::compare(bytes, &rewritten.wasm)?);
            }
        }
    } else {
        ensure(about.is_err(), "a module that is not valid is taken")?;
        drop(resettable);
    }
    if sniff::is_component(bytes) && is_valid(bytes, component::features()) {
        seen.components += 1;
        let outer = outer.map_err(|reason| format!("a valid component is refused: {reason}"))?;
        if let Err(reason) = component::judge(&outer, &RULES) {
            check_reason(&reason)?;
        }
        if let Ok(rewritten) = rewritten_component {
            check_component(&outer, &rewritten)?;
        }
        for (version, flat) in flats {
            if let Ok(flat) = flat {
                seen.flattened += 1;
                check_flat(version, &flat)?;
                check_left_out(bytes)?;
                check_again(&flat.wasm, seen)?;
            }
        }
    }
    Ok(())
}

fn ensure(holds: bool, otherwise: &str) -> Checked {
    if holds { Ok(()) } else { Err(otherwise.into()) }
}

/// Checks that a reason is short enough for a log.
fn check_reason(reason: &str) -> Checked {
    ensure(reason.len() <= REASON_BYTES_MAX, "a reason is too long for a log")
}

fn check_about(about: &sniff::Module, facts: &Facts) -> Checked {
    ensure(about.imports.len() == facts.imports.len(), "imports are miscounted")?;
    ensure(about.exports.len() == facts.exports.len(), "exports are miscounted")?;
    ensure(about.memories == facts.memories.len(), "memories are miscounted")?;
    ensure(about.tables == facts.tables.len(), "tables are miscounted")?;
    ensure(about.has_start == facts.has_start, "a start function is overlooked")?;
    let pages: u64 = facts.memories.iter().map(|memory| memory.0).sum();
    ensure(about.memory_bytes == pages << 16, "memory is miscounted")?;
    let data: usize = facts.data.iter().map(Vec::len).sum();
    ensure(about.data_bytes == data, "data is miscounted")
}

/// A module that can be reset has no instruction whose effect a reset would not undo, and exports
/// all globals that change.
fn check_resettable(facts: &Facts, resettable: &reset::Resettable) -> Checked {
    let lasting = format!("it is said to be resettable, but has {:?}", facts.lasting);
    ensure(facts.lasting.is_empty(), &lasting)?;
    ensure(!facts.has_start && !facts.imports_state, "it is said to be resettable as it begins")?;
    let is_small =
        matches!(facts.memories[..], [(pages, _)] if pages << 16 <= reset::MEMORY_BYTES_MAX);
    ensure(is_small, "its memory cannot be reset")?;
    let mutable: Vec<u32> =
        (0..).zip(&facts.globals).filter(|(_, global)| global.1).map(|(index, _)| index).collect();
    ensure(facts.set.iter().all(|global| mutable.contains(global)), "a global is overlooked")?;
    let is_number =
        |global: &(wasmparser::ValType, bool)| !global.1 || !global.0.is_reference_type();
    ensure(facts.globals.iter().all(is_number), "a reference is taken for a number")?;
    ensure(mutable.len() == resettable.globals, "globals are miscounted")?;
    // With the added exports it may have more than a module can have. The host checks that.
    if !is_valid(&resettable.wasm, sniff::features()) {
        return ensure(facts.exports.len() > 900_000, "a resettable module is not valid");
    }
    let after = Facts::read(&resettable.wasm).map_err(|error| error.to_string())?;
    check_alike(facts, &after)?;
    let (old, added) = after.exports.split_at(facts.exports.len());
    ensure(old == facts.exports, "exports have changed")?;
    let shown = (0..)
        .zip(&mutable)
        .map(|(number, global)| (reset::export_name(number), "Global".to_owned(), *global));
    ensure(shown.eq(added.iter().cloned()), "not every global is exported")?;
    let interruptible = interrupt::module(&resettable.wasm, DIVISIBLE);
    if let Ok(interruptible) = interruptible {
        let after = Facts::read(&interruptible.wasm).map_err(|error| error.to_string())?;
        ensure(after.lasting.is_empty(), "what was added lasts")?;
        ensure(after.set.iter().all(|it| facts.set.contains(it)), "what was added sets globals")?;
    }
    Ok(())
}

/// Checks what no rewriting may change.
fn check_alike(before: &Facts, after: &Facts) -> Checked {
    ensure(before.imports == after.imports, "imports have changed")?;
    ensure(before.memories == after.memories, "memories have changed")?;
    ensure(before.tables == after.tables, "tables have changed")?;
    ensure(before.globals == after.globals, "globals have changed")?;
    ensure(before.data == after.data, "data has changed")?;
    ensure(before.elements == after.elements, "elements have changed")?;
    ensure(before.has_start == after.has_start, "the start function has changed")
}

fn check_rewritten(before: &Facts, wasm: &[u8]) -> Checked {
    ensure(is_valid(wasm, sniff::features()), "a rewritten module is not valid")?;
    let after = Facts::read(wasm).map_err(|error| error.to_string())?;
    check_alike(before, &after)?;
    // Indices may differ: an exported import is replaced by its trampoline.
    let names = |facts: &Facts| -> Vec<(String, String)> {
        facts.exports.iter().map(|it| (it.0.clone(), it.1.clone())).collect()
    };
    ensure(names(before) == names(&after), "exports have changed")
}

/// Every offset in the rewritten module maps to one within the original.
fn check_offsets(bytes: &[u8], rewritten: &interrupt::Interruptible) -> Checked {
    let places = 0..rewritten.wasm.len() + 2;
    let mut originals = places.step_by(7).filter_map(|new| rewritten.offsets.original(new));
    ensure(
        originals.all(|old| old < bytes.len() + 2 || rewritten.wasm == bytes),
        "a place is far off",
    )
}

fn check_component(before: &component::Component, wasm: &[u8]) -> Checked {
    ensure(is_valid(wasm, component::features()), "a rewritten component is not valid")?;
    let after = component::read(wasm)?;
    ensure(before.imports == after.imports, "a component's imports have changed")?;
    ensure(before.exports == after.exports, "a component's exports have changed")?;
    ensure(before.memory_bytes == after.memory_bytes, "a component's memory has changed")
}

fn check_flat(version: WasiHttpVersion, flat: &flatten::FlatModule) -> Checked {
    ensure(is_valid(&flat.wasm, sniff::features()), "a flat module is not valid")?;
    let facts = Facts::read(&flat.wasm).map_err(|error| error.to_string())?;
    ensure(!facts.imports_state && !facts.has_start, "a flat module takes more than functions")?;
    let is_exported =
        |name: &str, kind: &str| facts.exports.iter().any(|it| it.0 == name && it.1.contains(kind));
    ensure(is_exported(&flat.handle, "FuncType"), "a flat module has no handler")?;
    ensure(flat.callback.is_some() == (version == WasiHttpVersion::Http03), "a callback is amiss")?;
    let callback = flat.callback.as_deref();
    let has_callback = callback.is_none_or(|name| is_exported(name, "FuncType"));
    ensure(has_callback, "a flat module has no callback")
}

/// The modules that the flat form leaves out do nothing but fill a table when they are
/// instantiated. A component that has modules it does not instantiate is not checked.
fn check_left_out(bytes: &[u8]) -> Checked {
    let modules = modules_that_run(bytes).map_err(|error| error.to_string())?;
    let does_something = |facts: &&Facts| facts.has_start || !facts.data.is_empty();
    let all: Vec<Facts> = modules.iter().flat_map(|module| Facts::read(module)).collect();
    ensure(all.len() <= 1 || all.len() == 3, "more than a shim is left out")?;
    ensure(all.iter().filter(does_something).count() <= 1, "what is left out does something")
}

/// Checks a flat module like any other.
fn check_again(wasm: &[u8], seen: &mut Coverage) -> Checked {
    let (modules, run) = (seen.modules, seen.run);
    let checked = check_binary(wasm, seen);
    (seen.modules, seen.run) = (modules, run);
    checked
}

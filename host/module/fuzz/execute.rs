//! Runs a module and the rewritten module, and compares the outcomes.

use std::sync::LazyLock;

use wasmtime::{
    Config, Engine, Extern, ExternType, Func, Instance, Module, OptLevel, Store, StoreLimits,
    StoreLimitsBuilder, Trap, Val,
};

/// The most instructions of each call. Rewritten modules need more of them.
const FUEL: u64 = 50_000;
const FUEL_REWRITTEN: u64 = 10 * FUEL;
/// The largest memory: the engine here copies a memory that grows, which takes time.
const MEMORY_BYTES_MAX: usize = 2 << 20;
const TABLE_ELEMENTS_MAX: usize = 10_000;
/// The most calls of each module.
const CALLS_MAX: usize = 12;

static ENGINE: LazyLock<Engine> = LazyLock::new(|| {
    let mut config = Config::new();
    config.consume_fuel(true);
    config.cranelift_opt_level(OptLevel::None);
    config.cranelift_nan_canonicalization(true);
    config.relaxed_simd_deterministic(true);
    config.wasm_multi_memory(true);
    // The fuzzer has little address space.
    config.memory_reservation(0);
    config.memory_reservation_for_growth(0);
    config.memory_guard_size(0);
    config.parallel_compilation(false);
    Engine::new(&config).expect("an engine of settings that do not depend on the machine")
});

/// The outcome of running a module.
#[derive(PartialEq, Eq, Debug)]
enum RunOutcome {
    /// For each call the results, and then the state after it.
    Done(Vec<String>),
    /// The module cannot be run here, or a call did not end in time.
    Unknown,
}

/// Compares two modules that should do the same. Returns whether both could be run.
///
/// # Errors
/// The first difference.
pub fn compare(before: &[u8], after: &[u8]) -> Result<bool, String> {
    let RunOutcome::Done(before) = run(before, FUEL) else { return Ok(false) };
    let RunOutcome::Done(after) = run(after, FUEL_REWRITTEN) else { return Ok(false) };
    match before.iter().zip(&after).find(|(before, after)| before != after) {
        Some((before, after)) => Err(format!("it did {before}, and does {after} when rewritten")),
        None => Ok(true),
    }
}

fn run(wasm: &[u8], fuel: u64) -> RunOutcome {
    let Ok(module) = Module::new(&ENGINE, wasm) else { return RunOutcome::Unknown };
    let limits = StoreLimitsBuilder::new();
    let limits = limits.memory_size(MEMORY_BYTES_MAX).table_elements(TABLE_ELEMENTS_MAX).build();
    let mut store = Store::new(&ENGINE, limits);
    store.limiter(|limits: &mut StoreLimits| limits);
    let Some(imports) = imports(&mut store, &module) else { return RunOutcome::Unknown };
    let mut done = Vec::new();
    store.set_fuel(fuel).expect("the engine counts it");
    let instance = match Instance::new(&mut store, &module, &imports) {
        Ok(instance) => instance,
        Err(error) => {
            return ended(&error).map_or(RunOutcome::Unknown, |end| RunOutcome::Done(vec![end]));
        }
    };
    let functions = module.exports().filter(|export| matches!(export.ty(), ExternType::Func(_)));
    let names: Vec<String> = functions.map(|export| export.name().to_owned()).collect();
    for (number, name) in names.iter().take(CALLS_MAX).enumerate() {
        let Some(function) = instance.get_func(&mut store, name) else { continue };
        match call(&mut store, function, number, fuel) {
            Some(came_to) => done.push(format!("{name}: {came_to}")),
            None => return RunOutcome::Unknown,
        }
        done.push(state(&mut store, &module, instance));
    }
    RunOutcome::Done(done)
}

/// The module's imports, as functions that do nothing. `None` if it imports anything else.
fn imports(store: &mut Store<StoreLimits>, module: &Module) -> Option<Vec<Extern>> {
    let import = |ty: ExternType| {
        let ExternType::Func(ty) = ty else { return None };
        let results: Option<Vec<Val>> = ty.results().map(|ty| Val::default_for_ty(&ty)).collect();
        let results = results?;
        let function = Func::new(&mut *store, ty, move |_, _, out| {
            out.clone_from_slice(&results);
            Ok(())
        });
        Some(Extern::from(function))
    };
    module.imports().map(|it| it.ty()).map(import).collect()
}

/// The results or the trap of a call. `None` if it takes too long.
fn call(
    store: &mut Store<StoreLimits>,
    function: Func,
    number: usize,
    fuel: u64,
) -> Option<String> {
    let ty = function.ty(&*store);
    let arg = |(at, ty): (usize, wasmtime::ValType)| {
        Some(match ty {
            wasmtime::ValType::I32 => Val::I32([0, 1, 65_530, -1, 131_073][(number + at) % 5]),
            wasmtime::ValType::I64 => Val::I64([0, 1, -1, 1 << 40][(number + at) % 4]),
            other => Val::default_for_ty(&other)?,
        })
    };
    let args: Option<Vec<Val>> = ty.params().enumerate().map(arg).collect();
    let mut results = vec![Val::I32(0); ty.results().len()];
    store.set_fuel(fuel).expect("the engine counts it");
    match function.call(&mut *store, &args?, &mut results) {
        Ok(()) => Some(results.iter().map(shown).collect::<Vec<_>>().join(" ")),
        Err(error) => ended(&error),
    }
}

fn shown(value: &Val) -> String {
    match value {
        Val::I32(_) | Val::I64(_) | Val::F32(_) | Val::F64(_) => format!("{value:?}"),
        Val::V128(number) => format!("{:x}", number.as_u128()),
        Val::FuncRef(function) => format!("function {}", function.is_some()),
        _ => "a reference".into(),
    }
}

/// The trap that ended a call. `None` if the rewritten code may end differently.
fn ended(error: &wasmtime::Error) -> Option<String> {
    match error.downcast_ref::<Trap>() {
        // Rewritten functions have stack frames of another size.
        Some(Trap::OutOfFuel | Trap::StackOverflow) | None => None,
        Some(trap) => Some(trap.to_string()),
    }
}

/// The exported part of the state: a checksum of the memories, globals and table sizes.
fn state(store: &mut Store<StoreLimits>, module: &Module, instance: Instance) -> String {
    let mut sum = 0_u64;
    let mut add = |bytes: &[u8]| {
        for word in bytes.chunks(8) {
            let word = word.iter().fold(0_u64, |all, byte| all << 8 | u64::from(*byte));
            sum = (sum.rotate_left(5) ^ word).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        }
    };
    let mut rest = Vec::new();
    for export in module.exports() {
        match instance.get_export(&mut *store, export.name()) {
            Some(Extern::Memory(memory)) => add(memory.data(&*store)),
            Some(Extern::Global(global)) => rest.push(shown(&global.get(&mut *store))),
            Some(Extern::Table(table)) => rest.push(format!("{} elements", table.size(&*store))),
            _ => {}
        }
    }
    format!("memory {sum:x}, {}", rest.join(" "))
}

//! Calls of imports: their arguments, and that an epoch check is between them.

use std::sync::{Arc, Mutex};

use wasmtime::{Config, Engine, Linker, Module, Store, UpdateDeadline};

use super::rewrite;

/// The arguments of all calls, and for each epoch check that stopped the guest, the number of calls
/// before it.
#[derive(Default)]
struct CallLog {
    calls: Vec<(u32, u32)>,
    epoch_checks: Vec<usize>,
}

/// Runs the export `run`. Each call of the host advances the epoch, so that the next epoch check
/// stops the guest.
fn run(wasm: &[u8]) -> (wasmtime::Result<i32>, CallLog) {
    let mut config = Config::new();
    config.epoch_interruption(true);
    let engine = Engine::new(&config).expect("an engine");
    let seen = Arc::new(Mutex::new(CallLog::default()));
    let mut linker = Linker::new(&engine);
    let (log, clock) = (seen.clone(), engine.clone());
    let note = move |ptr: u32, len: u32| {
        log.lock().expect("one thread").calls.push((ptr, len));
        clock.increment_epoch();
        // A call for seven bytes fails.
        i32::from(len == 7)
    };
    let take = note.clone();
    linker.func_wrap("host", "fill", note).expect("a name of its own");
    linker
        .func_wrap("host", "take", move |_: u32, ptr, len| {
            take(ptr, len);
        })
        .expect("a name of its own");
    let mut store = Store::new(&engine, ());
    store.set_epoch_deadline(1);
    let log = seen.clone();
    store.epoch_deadline_callback(move |_| {
        let mut seen = log.lock().expect("one thread");
        let calls = seen.calls.len();
        seen.epoch_checks.push(calls);
        Ok(UpdateDeadline::Continue(1))
    });
    let module = Module::new(&engine, wasm).expect("it compiles");
    let instance = linker.instantiate(&mut store, &module).expect("an instance");
    let function = instance.get_typed_func::<(), i32>(&mut store, "run").expect("its function");
    let result = function.call(&mut store, ());
    drop(store);
    let seen = std::mem::take(&mut *seen.lock().expect("one thread"));
    (result, seen)
}

const IMPORTS: &str = r#"
    (import "host" "fill" (func $fill (param i32 i32) (result i32)))
    (import "host" "take" (func $take (param i32 i32 i32)))
    (memory 1)"#;

/// Checks that an epoch check is between every two calls of the host.
#[track_caller]
fn assert_epoch_checks(body: &str, rest: &str, calls: usize) {
    let text = format!(r#"(module {IMPORTS} (func (export "run") (result i32) {body}) {rest})"#);
    let (before, after) = rewrite(&text);
    let (result, seen) = run(&after.wasm);
    let (expected, unchanged) = run(&before);
    assert_eq!(result.ok(), expected.ok(), "{body}");
    assert_eq!(seen.calls, unchanged.calls, "{body}");
    assert_eq!(seen.calls.len(), calls, "{body}");
    // An epoch check stops the guest at most once for each call.
    assert!(seen.epoch_checks.len() >= calls - 1, "{body}: {:?} of {calls}", seen.epoch_checks);
}

#[test]
fn direct_calls() {
    assert_epoch_checks(
        &format!("{} (i32.const 4)", "(drop (call $fill (i32.const 1) (i32.const 2)))".repeat(20)),
        "",
        20,
    );
    // With other values on the stack, and in an arm of an `if`.
    let body = "(i32.add (call $fill (i32.const 1) (i32.const 2))
        (if (result i32) (call $fill (i32.const 3) (i32.const 4))
          (then (i32.const 1)) (else (call $fill (i32.const 5) (i32.const 7)))))";
    assert_epoch_checks(body, "", 3);
}

#[test]
fn calls_through_tables_and_globals() {
    let table = "(type $fill (func (param i32 i32) (result i32)))
        (table $t 4 funcref) (elem (table $t) (i32.const 0) func $fill)
        (elem (table $t) (i32.const 1) funcref (ref.func $fill))
        (global $g funcref (ref.func $fill)) (elem declare func $fill)";
    let call = |at: u32| {
        format!(
            "(drop (call_indirect $t (type $fill) (i32.const 1) (i32.const 2) (i32.const {at})))"
        )
    };
    let body = format!(
        "(table.set $t (i32.const 2) (global.get $g)) (table.set $t (i32.const 3) (ref.func $fill))
         {} (i32.const 0)",
        [0, 1, 2, 3].map(call).join("").repeat(5)
    );
    assert_epoch_checks(&body, table, 20);
}

#[test]
fn tail_calls() {
    let rest = "(func $f (result i32) (return_call $fill (i32.const 1) (i32.const 2)))";
    assert_epoch_checks(&format!("{} (call $f)", "(drop (call $f))".repeat(9)), rest, 10);
}

#[test]
fn exports_of_imports() {
    let (_, after) = rewrite(&format!(r#"(module {IMPORTS} (export "it" (func $fill)))"#));
    assert!(super::operators(&after.wasm).iter().any(|it| it.1.starts_with("Call")));
}

/// The host gets a long range in pieces, in order, up to the first error.
#[test]
fn long_ranges_are_divided() {
    let body = "(call $take (i32.const 9) (i32.const 5) (i32.const 131079))
        (call $take (i32.const 9) (i32.const 5) (i32.const 65536))
        (call $take (i32.const 9) (i32.const 6) (i32.const 0))
        (call $fill (i32.const 16) (i32.const 65543))";
    let (_, after) =
        rewrite(&format!(r#"(module {IMPORTS} (func (export "run") (result i32) {body}))"#));
    let (result, seen) = run(&after.wasm);
    assert_eq!(result.ok(), Some(1));
    let divided =
        [(5, 65536), (65541, 65536), (131077, 7), (5, 65536), (6, 0), (16, 65536), (65552, 7)];
    assert_eq!(seen.calls, divided);
    assert!(seen.epoch_checks.len() >= divided.len() - 1, "{:?}", seen.epoch_checks);
}

/// A call through a table is divided, too.
#[test]
fn ranges_through_tables_are_divided() {
    let rest = "(type $fill (func (param i32 i32) (result i32)))
        (table $t 1 funcref) (elem (i32.const 0) $fill)";
    let body = "(call_indirect (type $fill) (i32.const 0) (i32.const 100000) (i32.const 0))";
    let (_, after) =
        rewrite(&format!(r#"(module {IMPORTS} {rest} (func (export "run") (result i32) {body}))"#));
    assert_eq!(run(&after.wasm).1.calls, [(0, 65536), (65536, 34464)]);
}

/// Added functions have names, and the module's own functions keep theirs.
#[test]
fn names_stay_right() {
    let body = "(call $inner (i32.const 65530) (i32.const 100000)) (i32.const 0)";
    let rest = "(func $inner (param i32 i32)
        (memory.fill (local.get 0) (i32.const 0) (local.get 1)))";
    let (_, after) = rewrite(&format!(
        r#"(module {IMPORTS} (func $outer (export "run") (result i32) {body}) {rest})"#
    ));
    let error = run(&after.wasm).0.expect_err("it is out of bounds");
    let backtrace = error.downcast_ref::<wasmtime::WasmBacktrace>().expect("a backtrace");
    let names: Vec<_> = backtrace.frames().iter().map(|frame| frame.func_name()).collect();
    assert_eq!(names, [Some("memory.fill"), Some("inner"), Some("outer")]);
    assert!(error.root_cause().to_string().contains("out of bounds memory access"), "{error:#}");
}

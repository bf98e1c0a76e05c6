//! A bulk instruction does the same before and after it is divided, to the byte.

use wasmtime::{Config, Engine, Instance, Module, Store, Val};

use super::{operators, rewrite};

const PIECE: u32 = super::super::PIECE_BYTES;
const PAGES: u32 = 4;
const END: u32 = PAGES * 65536;

/// The outcome of a call: its error, and the memories after it.
#[derive(PartialEq, Eq)]
struct BulkOutcome {
    error: Option<String>,
    memories: Vec<Vec<u8>>,
}

/// Calls `run` with three numbers in a fresh instance.
fn run(engine: &Engine, module: &Module, args: [u32; 3]) -> BulkOutcome {
    let mut store = Store::new(engine, ());
    let instance = Instance::new(&mut store, module, &[]).expect("an instance");
    let function = instance.get_func(&mut store, "run").expect("its function");
    let args = args.map(|arg| Val::I32(arg as i32));
    let error = function.call(&mut store, &args, &mut []).err();
    let error = error.map(|error| error.root_cause().to_string());
    let memories = ["memory", "other"].into_iter().filter_map(|name| {
        let memory = instance.get_memory(&mut store, name)?;
        Some(memory.data(&store).to_vec())
    });
    let memories = memories.collect();
    BulkOutcome { error, memories }
}

/// A module with two memories full of different bytes, a passive segment and an active one.
fn module(body: &str) -> String {
    let bytes: String = (0..END).map(|at| format!("\\{:02x}", (at * 7 + at / 251) % 256)).collect();
    format!(
        r#"(module
          (memory $m (export "memory") {PAGES}) (memory $o (export "other") {PAGES})
          (data $active (memory $m) (i32.const 0) "{bytes}")
          (data $passive "{bytes}")
          (func (export "run") (param $a i32) (param $b i32) (param $c i32) (local i64)
            {body}))"#
    )
}

/// Runs the original and the rewritten module with all combinations of the arguments, and compares
/// the outcomes.
fn compare(body: &str, (a, b, c): (&[u32], &[u32], &[u32])) {
    let (before, after) = rewrite(&module(body));
    assert_ne!(before, after.wasm, "{body}");
    let engine = Engine::new(&Config::new()).expect("an engine");
    let before = Module::new(&engine, before).expect("it compiles");
    let after = Module::new(&engine, after.wasm).expect("it compiles");
    for &a in a {
        for &b in b {
            for &c in c {
                let (want, got) =
                    (run(&engine, &before, [a, b, c]), run(&engine, &after, [a, b, c]));
                assert_eq!(got.error, want.error, "{body} of {a}, {b}, {c}");
                assert!(got == want, "{body} of {a}, {b}, {c} leaves other bytes");
            }
        }
    }
}

const LENGTHS: &[u32] =
    &[0, 1, PIECE - 1, PIECE, PIECE + 1, 2 * PIECE, 3 * PIECE - 5, END, END + 1, u32::MAX];

#[test]
fn fill() {
    let places = &[0, 1, PIECE + 3, END - PIECE, END - 1, END, END + 1, u32::MAX];
    let body = "(memory.fill (local.get $a) (local.get $b) (local.get $c))";
    compare(body, (places, &[0x1aa], LENGTHS));
    compare(
        "(memory.fill $o (local.get $a) (local.get $b) (local.get $c))",
        (&[0, 9], &[3], &[PIECE * 2 + 1, END - 9, END]),
    );
    // A length that is known, and too long.
    let body =
        "(memory.fill (local.get $a) (local.get $b) (i32.const 65537)) (drop (local.get $c))";
    compare(body, (&[0, END - PIECE - 1, END - PIECE], &[7], &[0]));
}

#[test]
fn copy() {
    let places = &[0, 1, 777, PIECE - 1, PIECE, PIECE + 1, 2 * PIECE + 9, END];
    let lengths = &[0, 1, PIECE + 1, 2 * PIECE - 9, 2 * PIECE + 5, 3 * PIECE, END];
    let body = "(memory.copy (local.get $a) (local.get $b) (local.get $c))";
    compare(body, (places, places, lengths));
    let edges = &[END - PIECE - 1, END - PIECE, END - 1, END, u32::MAX];
    compare(body, (edges, edges, &[0, 1, PIECE, PIECE + 1, PIECE + 2]));
    let body = "(memory.copy $o $m (local.get $a) (local.get $b) (local.get $c))";
    compare(body, (&[0, 5, END], &[0, 3, END], &[0, PIECE + 1, END - 5, END]));
}

#[test]
fn init() {
    let body = "(memory.init $m $passive (local.get $a) (local.get $b) (local.get $c))";
    let places = &[0, 1, PIECE + 3, END - PIECE - 1, END - 1, END];
    compare(body, (places, places, &[0, 1, PIECE, PIECE + 1, 2 * PIECE + 7, END]));
    let body = "(memory.init $o $passive (local.get $a) (local.get $b) (local.get $c))";
    compare(body, (&[3], &[5], &[PIECE + 1]));
}

/// A dropped segment has no bytes.
#[test]
fn init_from_a_dropped_segment() {
    let dropped = "(data.drop $passive)
        (memory.init $m $passive (local.get $a) (local.get $b) (local.get $c))";
    let active = "(memory.init $m $active (local.get $a) (local.get $b) (local.get $c))";
    for body in [dropped, active] {
        compare(body, (&[0, END], &[0, 1], &[0, 1, PIECE + 1, END]));
    }
}

/// A function with the most locals that the engine takes gets no additional one.
#[test]
fn a_function_without_room_for_a_local() {
    let body = "(memory.fill (local.get $a) (local.get $b) (local.get $c))";
    let with = |locals: usize| {
        let locals = format!("(local {})", "i32 ".repeat(locals));
        rewrite(&module(body).replace("(local i64)", &locals))
    };
    // The limit of 50,000 includes the three parameters.
    let (_, with_room) = with(49_995);
    let (before, after) = with(49_997);
    assert!(operators(&with_room.wasm)[3].1.starts_with("LocalTee"));
    assert!(operators(&after.wasm)[3].1.starts_with("Call"));
    let engine = Engine::default();
    let [before, after] =
        [before, after.wasm].map(|it| Module::new(&engine, it).expect("compiles"));
    for len in [0, 5, PIECE, PIECE * 2 + 1, END + 1] {
        let args = [0, 6, len];
        assert!(run(&engine, &before, args) == run(&engine, &after, args), "{len}");
    }
}

//! Rewritten modules are valid, behave as before, and have epoch checks where they should.

mod bulk;
mod calls;
mod hostile;

use wasm_encoder::{
    CodeSection, Function, FunctionSection, MemorySection, MemoryType, Module, TypeSection,
};
use wasmparser::{Parser, Payload};

use super::base::Divisible;
use super::{Interruptible, OffsetMap};

/// The imports of these tests whose calls may be divided.
pub const DIVISIBLE: &[Divisible] =
    &[Divisible { module: "host", name: "take" }, Divisible { module: "host", name: "fill" }];

/// A text module as a binary, and the rewritten module. Checks that both are valid.
pub fn rewrite(text: &str) -> (Vec<u8>, Interruptible) {
    let wasm = wat::parse_str(text).unwrap_or_else(|error| panic!("{error}"));
    let rewritten = super::module(&wasm, DIVISIBLE).unwrap_or_else(|error| panic!("{error}"));
    if let Err(error) = crate::sniff::read(&rewritten.wasm) {
        panic!("{error} in the rewritten {text}");
    }
    (wasm, rewritten)
}

/// The instructions of all functions, with their offsets.
pub fn operators(wasm: &[u8]) -> Vec<(usize, String)> {
    let mut all = Vec::new();
    for payload in Parser::new(0).parse_all(wasm) {
        let Payload::CodeSectionEntry(body) = payload.expect("a valid module") else { continue };
        let operators = body.get_operators_reader().expect("a valid function");
        for operator in operators.into_iter_with_offsets() {
            let (operator, offset) = operator.expect("a valid instruction");
            all.push((offset, format!("{operator:?}")));
        }
    }
    all
}

/// The number of added epoch checks, which are empty loops.
pub fn epoch_checks(wasm: &[u8]) -> usize {
    let all = operators(wasm);
    let pairs = all.windows(2);
    pairs.filter(|pair| pair[0].1.starts_with("Loop") && pair[1].1 == "End").count()
}

#[test]
fn what_needs_nothing_stays_as_it_is() {
    let (wasm, rewritten) = rewrite(
        r#"(module (memory 1) (func $f (result i32) (i32.load (i32.const 0)))
            (func (export "g") (loop $l (br_if $l (call $f))))
            (func (memory.fill (i32.const 0) (i32.const 1) (i32.const 65536))))"#,
    );
    assert_eq!(rewritten.wasm, wasm);
    assert_eq!(rewritten.offsets.original(17), Some(17));
}

/// Straight-line code has an epoch check once in so many instructions, along every path.
#[test]
fn long_code_has_epoch_checks() {
    let load = "(drop (i32.load (i32.const 0)))".repeat(2_000);
    let code = |body: &str| {
        epoch_checks(&rewrite(&format!("(module (memory 1) (func (param i32) {body}))")).1.wasm)
    };
    assert_eq!(code(&"nop ".repeat(1_900)), 0);
    assert_eq!(code(&load), 6);
    // Instructions on another path do not count.
    let arms = |body: &str| format!("(if (local.get 0) (then {body}) (else {body}))");
    let short = "nop ".repeat(900);
    assert_eq!(code(&arms(&short)), 0);
    assert_eq!(code(&format!("{short}{}", arms(&short))), 0);
    assert!(code(&format!("{short}{short}{}", arms(&short))) > 0);
}

/// The number of a vector instruction is LEB128, which may have more bytes than it needs.
#[test]
fn an_access_counts_however_it_is_written() {
    let checks_beside = |load: &[u8]| {
        let (mut types, mut functions, mut memories, mut code) = Default::default();
        TypeSection::ty(&mut types).function([], []);
        FunctionSection::function(&mut functions, 0);
        let minimum = 1;
        let memory = MemoryType {
            minimum,
            maximum: None,
            memory64: false,
            shared: false,
            page_size_log2: None,
        };
        MemorySection::memory(&mut memories, memory);
        let mut function = Function::new([]);
        for _ in 0..2_000 {
            function.instructions().i32_const(0);
            function.raw(load.iter().copied());
            function.instructions().drop();
        }
        function.instructions().end();
        CodeSection::function(&mut code, &function);
        let mut module = Module::new();
        module.section(&types).section(&functions).section(&memories).section(&code);
        let rewritten = super::module(&module.finish(), DIVISIBLE);
        epoch_checks(&rewritten.unwrap_or_else(|error| panic!("{error}")).wasm)
    };
    assert_eq!(checks_beside(&[0xfd, 0, 0, 0]), 6);
    assert_eq!(checks_beside(&[0xfd, 0x80, 0, 0, 0]), 6);
    // v128.load32_zero, in the shortest encoding and in a longer one.
    assert_eq!(checks_beside(&[0xfd, 0x5c, 0, 0]), 6);
    assert_eq!(checks_beside(&[0xfd, 0xdc, 0x80, 0, 0, 0]), 6);
}

/// An epoch check in code that is jumped over does not count for the path around it.
#[test]
fn a_path_around_every_check_has_checks_of_its_own() {
    let skipped = format!("(block (br_if 0 (local.get 0)) {})", "nop ".repeat(2_500));
    let shown = "nop ".repeat(1_500);
    let body = format!("{shown}{skipped}").repeat(20);
    let (_, rewritten) = rewrite(&format!("(module (func (param i32) {body}))"));
    // 20 in the code that may be skipped, and one before each of these but the first.
    assert!(epoch_checks(&rewritten.wasm) >= 39, "{}", epoch_checks(&rewritten.wasm));
}

/// Code after a recursive call has an epoch check early: when the recursion unwinds, the code after
/// each call runs without a check between.
#[test]
fn code_after_a_recursive_call_has_epoch_checks() {
    let code = |functions: &str| epoch_checks(&rewrite(&format!("(module {functions})")).1.wasm);
    let (little, much) = ("nop ".repeat(12), "nop ".repeat(20));
    assert_eq!(code(&format!("(func $f (call $f) {little})")), 0);
    assert_eq!(code(&format!("(func $f (call $f) {much})")), 1);
    // The begin and end of a block cost nothing.
    let (most, more) = ("nop ".repeat(16), "nop ".repeat(17));
    let in_blocks = |rest: &str| format!("(func $f (block (block (call $f) {rest}) (block)))");
    assert_eq!((code(&in_blocks(&most)), code(&in_blocks(&more))), (0, 1));
    // Two functions call each other, and the first one also calls a third.
    let three =
        format!("(func $g (call $h) (call $i) {much}) (func $h (call $g)) (func $i {much})");
    assert_eq!(code(&three), 1);
    // A function calls through a table that holds this function.
    let table = "(type $f (func)) (table 1 funcref) (elem (i32.const 0) $f)";
    let call = format!("(func $f (call_indirect (type $f) (i32.const 0)) {much})");
    assert_eq!(code(&format!("{table} {call}")), 1);
    let other = format!("(func $f) (func (call_indirect (type $f) (i32.const 0)) {much})");
    assert_eq!(code(&format!("{table} {other}")), 0);
    // Without a recursion, more code may follow a call.
    assert_eq!(code(&format!("(func (call 1) {much}) (func)")), 0);
    assert_eq!(code(&format!("(func (call 1) {}) (func)", "nop ".repeat(300))), 1);
}

/// Each of many returns may be followed by the first access to a page. That takes 2.5 us, or twice
/// as long across two pages.
#[test]
fn an_access_after_a_recursive_call_has_an_epoch_check() {
    let code = |what: &str| {
        let text = format!("(module (memory 1) (func {what}))");
        epoch_checks(&rewrite(&text).1.wasm)
    };
    let load = "(drop (i32.load (i32.const 0)))";
    assert_eq!(code(&format!("(call 0) {load}")), 1);
    assert_eq!(code(&format!("{load} (call 0)")), 0);
    // One epoch check is enough for the accesses that follow.
    assert_eq!(code(&format!("(call 0) {}", load.repeat(100))), 1);
    assert_eq!(code("(call 0) (memory.fill (i32.const 0) (i32.const 0) (i32.const 9))"), 1);
    // Without a recursion, a few accesses need no check.
    let chain =
        |times| format!("(module (memory 1) (func (call 1) {}) (func))", load.repeat(times));
    let of_chain = |times| epoch_checks(&rewrite(&chain(times)).1.wasm);
    assert_eq!((of_chain(3), of_chain(5)), (0, 1));
}

/// A chain of more than a hundred functions is treated as a recursion.
#[test]
fn code_after_calls_in_a_long_chain_has_epoch_checks() {
    let rest = "nop ".repeat(20);
    let chain = |length: u32| {
        let link = |at: u32| format!("(func $f{at} (call $f{}) {rest})", at + 1);
        let links: String = (0..length).map(link).collect();
        epoch_checks(&rewrite(&format!("(module {links} (func $f{length}))")).1.wasm)
    };
    assert_eq!((chain(80), chain(120)), (0, 120));
}

/// Every instruction of the original is in the map, with its offset in the original.
#[test]
fn offsets_are_exact() {
    let text = r#"(module (import "host" "f" (func $f)) (memory 1)
        (import "host" "take" (func $take (param i32 i32)))
        (func (param i32) (local i64)
          (call $f) (drop (i32.load (local.get 0)))
          (memory.fill (local.get 0) (i32.const 0) (local.get 0))
          (drop (i64.const 77777)) (call $take (i32.const 0) (local.get 0)) unreachable)
        (func (result i32) (call $f) (i32.div_s (i32.const 1) (i32.const 0))))"#
        .replace(
            "(memory 1)\n        (import \"host\" \"take\" (func $take (param i32 i32)))",
            "(import \"host\" \"take\" (func $take (param i32 i32))) (memory 1)",
        );
    let (wasm, rewritten) = rewrite(&text);
    let old = operators(&wasm);
    let new = operators(&rewritten.wasm);
    let mut found = 0;
    for (offset, operator) in &new {
        let Some(original) = rewritten.offsets.original(*offset) else { continue };
        let (_, was) = old.iter().find(|it| it.0 == original).expect("an instruction is there");
        let is_added = was != operator;
        let for_these = ["Call { function_index: 0 }", "Call { function_index: 1 }", "MemoryFill"];
        assert!(!is_added || for_these.iter().any(|it| was.starts_with(it)), "{operator}: {was}");
        found += usize::from(!is_added);
    }
    // All but the divided call, which calls an added function now.
    assert_eq!(found, old.len() - 1);
    assert_eq!(OffsetMap::default().original(3), Some(3));
    assert_eq!(rewritten.offsets.original(rewritten.wasm.len() - 1), None);
}

/// Modules in a component that is in another component are rewritten.
#[test]
fn modules_of_components_are_rewritten() {
    let text = r#"(component (component
        (core module (import "" "f" (func $f)) (func (call $f)))
        (core module (func))))"#;
    let wasm = wat::parse_str(text).expect("a component");
    let rewritten = super::component(&wasm).expect("it can be rewritten");
    wasmparser::Validator::new().validate_all(&rewritten).expect("it is valid");
    assert_eq!(rewritten.len(), wasm.len() + 3);
    assert_eq!(epoch_checks(&rewritten), 1);
}

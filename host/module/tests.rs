//! Test inputs for all files of the crate, most of which no toolchain would make.

use std::time::{Duration, Instant};

use wasm_encoder::Encode as _;

/// A module with at least one entry in most sections.
pub const MODULE: &str = r#"(module
    (import "http_handler" "write_body" (func $write (param i32 i32 i32)))
    (import "wasi_snapshot_preview1" "random_get" (func $random (param i32 i32) (result i32)))
    (type $none (func))
    (global $top (mut i32) (i32.const 1024))
    (global $least i64 (i64.const -1))
    (table 2 funcref)
    (memory (export "memory") 2)
    (elem (i32.const 0) func $write $inner)
    (data (i32.const 8) "hello")
    (data $passive "text")
    (func $inner (param i32) (result i32) (local i64)
      (memory.init $passive (i32.const 0) (i32.const 0) (local.get 0))
      (global.set $top (i32.add (global.get $top) (local.get 0)))
      (block (br_if 0 (local.get 0)) (loop (br_if 1 (local.get 0))))
      (call_indirect (type $none) (i32.const 1))
      (drop (call $random (i32.const 8) (i32.const 9)))
      (global.get $top))
    (func (export "handle_request") (result i64)
      (memory.fill (i32.const 0) (i32.const 1) (call $inner (i32.const 3)))
      (i64.const 0)))"#;

pub const HTTP02: &str = include_str!("fixtures/http02.wat");
pub const HTTP03: &str = include_str!("fixtures/http03.wat");

pub fn wasm(text: &str) -> Vec<u8> {
    wat::parse_str(text).unwrap_or_else(|error| panic!("{error}"))
}

/// Escapes text as the host does: one line of limited length.
pub fn escape(text: &[u8], bytes_max: usize) -> String {
    String::from_utf8_lossy(text).escape_debug().take(bytes_max / 4).collect()
}

/// Calls `read` with binaries that are cut off, changed in one byte, far too large or nested too
/// deep. `read` has to return soon and must not panic.
#[track_caller]
pub fn feed(mut read: impl FnMut(&[u8])) {
    let start = Instant::now();
    for wasm in [wasm(MODULE), wasm(HTTP02), wasm(HTTP03)] {
        for end in 0..wasm.len() {
            read(&wasm[..end]);
        }
        let mut changed = wasm.clone();
        for at in 0..wasm.len() {
            for byte in [0, 0x7f, 0xff, wasm[at].wrapping_add(1)] {
                changed[at] = byte;
                read(&changed);
            }
            changed[at] = wasm[at];
        }
    }
    for id in 0..15 {
        for (head, lead) in [(*b"\0asm\x01\0\0\0", 0), (*b"\0asm\x0d\0\x01\0", 1)] {
            // A section that claims four billion entries and holds a byte or two of them.
            let section = [id, 6 + lead, 0xff, 0xff, 0xff, 0xff, 0x0f, 0x60, 0];
            read(&[&head[..], &section].concat());
        }
    }
    read(&nested_blocks(100_000));
    read(&nested_components(2_000));
    // Enough for a debug build on a busy machine.
    assert!(start.elapsed() < Duration::from_secs(60), "{:?}", start.elapsed());
}

fn leb(number: usize) -> Vec<u8> {
    let mut bytes = Vec::new();
    number.encode(&mut bytes);
    bytes
}

/// A module that has these sections: the id and the contents of each.
pub fn module(sections: &[(u8, Vec<u8>)]) -> Vec<u8> {
    let mut bytes = b"\0asm\x01\0\0\0".to_vec();
    for (id, contents) in sections {
        bytes.push(*id);
        bytes.extend(leb(contents.len()));
        bytes.extend(contents);
    }
    bytes
}

/// The contents of a section that has the same entry `count` times.
pub fn list(count: usize, one: &[u8]) -> Vec<u8> {
    [leb(count), one.repeat(count)].concat()
}

pub fn nested_blocks(depth: usize) -> Vec<u8> {
    let body = [vec![0], [2, 0x40].repeat(depth), vec![0x0b; depth + 1]].concat();
    let code = list(1, &[leb(body.len()), body].concat());
    module(&[(1, list(1, &[0x60, 0, 0])), (3, list(1, &[0])), (10, code)])
}

pub fn nested_components(depth: usize) -> Vec<u8> {
    let head = b"\0asm\x0d\0\x01\0";
    (0..depth).fold(head.to_vec(), |inner, _| [head, &[4][..], &leb(inner.len()), &inner].concat())
}

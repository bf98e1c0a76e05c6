//! Makes modules and components of unusual shapes: very many entries, very large counts, or very
//! deep nesting.

use wasm_encoder::Encode as _;

use crate::random::Random;

const MODULE: &[u8] = b"\0asm\x01\0\0\0";
const COMPONENT: &[u8] = b"\0asm\x0d\0\x01\0";

/// A random shape, and its description.
pub fn make(random: &mut Random) -> (String, Vec<u8>) {
    let count = [10, 1_000, 30_000, 200_000][random.below(4)] + random.below(100);
    let (name, bytes) = if random.one_in(2) { many(random, count) } else { deep(random, count) };
    (format!("{name} ({count})"), bytes)
}

/// A module with very many entries of one kind.
fn many(random: &mut Random, count: usize) -> (&'static str, Vec<u8>) {
    let name;
    let bytes = match random.below(5) {
        0 => {
            name = "types with many parameters, imported many times";
            let params = count.min(1_000);
            let ty = [&[0x60][..], &leb(params), &vec![0x7f; params], &[0]].concat();
            let import = [1, b'a', 0, 0, 0];
            module(&[(1, list(1, &ty)), (2, list(count, &import))])
        }
        1 => {
            name = "many exports of one function";
            let export = |at: usize| {
                let name = at.to_string();
                [&leb(name.len())[..], name.as_bytes(), &[0, 0]].concat()
            };
            let exports: Vec<u8> = (0..count).flat_map(export).collect();
            let exports = [leb(count), exports].concat();
            let code = list(1, &[2, 0, 0x0b]);
            module(&[(1, empty_type()), (3, list(1, &[0])), (7, exports), (10, code)])
        }
        2 => {
            name = "many memories, tables or globals";
            let (id, one): (u8, &[u8]) = *random.pick(&[
                (5, &[0, 1][..]),
                (4, &[0x70, 0, 1]),
                (6, &[0x7f, 1, 0x41, 0, 0x0b]),
            ]);
            module(&[(id, list(count, one))])
        }
        3 => {
            name = "many groups of locals";
            let locals = [1, 0x7f].repeat(count);
            function(&[&leb(count)[..], &locals, &[0x0b]].concat())
        }
        _ => {
            name = "many data segments, far from each other";
            let segment = |at: usize| {
                let place = signed((at as i64) << 14);
                [&[0, 0x41][..], &place, &[0x0b, 1, 7]].concat()
            };
            let segments: Vec<u8> = (0..count).flat_map(segment).collect();
            module(&[(5, list(1, &[0, 16])), (11, [leb(count), segments].concat())])
        }
    };
    (name, bytes)
}

/// A module or component that is nested very deep, or is at a limit.
fn deep(random: &mut Random, count: usize) -> (&'static str, Vec<u8>) {
    let name;
    let bytes = match random.below(5) {
        0 => {
            name = "nested blocks";
            let body = [vec![0], [2, 0x40].repeat(count), vec![0x0b; count + 1]].concat();
            function(&body)
        }
        1 => {
            name = "nested components";
            (0..count.min(3_000)).fold(COMPONENT.to_vec(), |inner, _| {
                [COMPONENT, &[4], &leb(inner.len()), &inner].concat()
            })
        }
        2 => {
            name = "a chain of functions that call each other";
            let body = |at: usize| {
                let callee = [&[0, 0x10][..], &leb((at + 1) % count), &[0x0b]].concat();
                [leb(callee.len()), callee].concat()
            };
            let bodies: Vec<u8> = (0..count).flat_map(body).collect();
            let code = [leb(count), bodies].concat();
            module(&[(1, empty_type()), (3, list(count, &[0])), (10, code)])
        }
        3 => {
            name = "a section that claims more than it has";
            let id = random.below(14) as u8;
            let claim = [leb(u32::MAX as usize - random.below(3)), random.bytes(9)].concat();
            let head = if random.one_in(3) { COMPONENT } else { MODULE };
            [head, &[id], &leb(claim.len()), &claim].concat()
        }
        _ => {
            name = "many types, and a function that needs two more";
            // The most types take a second, so most runs have fewer.
            let most = if random.one_in(10) { 999_990 } else { 1_000 };
            let types = list(most + random.below(11), &[0x60, 0, 0]);
            let body = [&[0][..], &[0x41, 0, 0x41, 0, 0x41, 0, 0x45, 0xfc, 0x0b, 0, 0x0b]].concat();
            let code = list(1, &[&leb(body.len())[..], &body].concat());
            module(&[(1, types), (3, list(1, &[0])), (5, list(1, &[0, 1])), (10, code)])
        }
    };
    (name, bytes)
}

/// The contents of a section that has the same entry `count` times.
fn list(count: usize, one: &[u8]) -> Vec<u8> {
    [leb(count), one.repeat(count)].concat()
}

fn empty_type() -> Vec<u8> {
    list(1, &[0x60, 0, 0])
}

/// A module of one function.
fn function(body: &[u8]) -> Vec<u8> {
    let code = list(1, &[&leb(body.len())[..], body].concat());
    module(&[(1, empty_type()), (3, list(1, &[0])), (10, code)])
}

fn module(sections: &[(u8, Vec<u8>)]) -> Vec<u8> {
    let mut bytes = MODULE.to_vec();
    for (id, contents) in sections {
        bytes.push(*id);
        bytes.extend(leb(contents.len()));
        bytes.extend(contents);
    }
    bytes
}

fn leb(number: usize) -> Vec<u8> {
    let mut bytes = Vec::new();
    number.encode(&mut bytes);
    bytes
}

/// A signed number of 32 bits.
fn signed(number: i64) -> Vec<u8> {
    let mut bytes = Vec::new();
    (number as i32).encode(&mut bytes);
    bytes
}

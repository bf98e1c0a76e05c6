//! Modules that are not valid, and modules at a limit.

use super::DIVISIBLE;
use crate::interrupt::{component, module};
use crate::tests::{feed, list, module as bytes, nested_components};

#[test]
fn hostile_bytes_come_to_an_end() {
    feed(|bytes| {
        drop(module(bytes, DIVISIBLE));
        drop(component(bytes));
    });
}

/// A module that refers to a type or a function that it does not have.
#[test]
fn what_is_not_there_is_an_error() {
    let none = list(1, &[0x60, 0, 0]);
    let one = |ty: u8, body: &[u8]| {
        let code = list(1, &[&[body.len() as u8][..], body].concat());
        bytes(&[(1, none.clone()), (3, list(1, &[ty])), (10, code)])
    };
    for wasm in [one(7, &[0, 0x0b]), one(0, &[0, 0x10, 9, 0x0b]), one(0, &[0, 0xd2, 9, 0x0b])] {
        let error = module(&wasm, DIVISIBLE).expect_err("it is not valid");
        assert!(error.contains("not a valid module"), "{error}");
    }
    // More bodies than functions.
    let code = list(2, &[2, 0, 0x0b]);
    assert!(module(&bytes(&[(1, none.clone()), (3, list(1, &[0])), (10, code)]), &[]).is_err());
    assert!(module(&nested_components(1), &[]).is_err());
    assert!(component(&nested_components(99)).is_ok());
    assert!(component(&nested_components(102)).is_err());
}

/// The parser accepts imports by exact type although the proposal is off. Such an import is a
/// function too; if it were ignored, all function indices after it would be off by one.
#[test]
fn exact_functions_are_not_served() {
    let import = list(1, &[1, b'a', 1, b'b', 0x20, 0]);
    let wasm = bytes(&[(1, list(1, &[0x60, 0, 0])), (2, import)]);
    let error = module(&wasm, DIVISIBLE).expect_err("it is not served");
    assert!(error.contains("exact type"), "{error}");
}

/// A module with as many types as the engine takes cannot get another.
#[test]
fn there_may_be_no_room_for_more_types() {
    // memory.fill of (0, 0, memory.size): a length that is not known.
    let body = [0, 0x41, 0, 0x41, 0, 0x3f, 0, 0xfc, 0x0b, 0, 0x0b];
    let with = |types: usize| {
        let code = list(1, &[&[body.len() as u8][..], &body].concat());
        let sections = [
            (1, list(types, &[0x60, 0, 0])),
            (3, list(1, &[0])),
            (5, list(1, &[0, 1])),
            (10, code),
        ];
        module(&bytes(&sections), &[])
    };
    let fits = with(999_998).unwrap_or_else(|error| panic!("{error}"));
    crate::sniff::read(&fits.wasm).unwrap_or_else(|error| panic!("{error}"));
    assert!(with(999_999).expect_err("there is no room").contains("split it"));
}

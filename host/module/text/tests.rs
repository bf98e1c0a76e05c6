//! Valid texts, and the errors for texts that are not valid.

use super::binary;
use crate::tests::{HTTP02, MODULE, escape, wasm};

#[test]
fn a_text_becomes_what_it_says() {
    assert_eq!(binary(MODULE.as_bytes(), escape), Ok(wasm(MODULE)));
}

#[test]
fn a_mistake_has_its_place() {
    let said = binary(b"(module\n  (func (nonsense)))", escape).expect_err("it is no text");
    assert!(said.ends_with("in line 2, column 10"), "{said}");
}

#[test]
fn hostile_texts_come_to_an_end() {
    for end in 0..HTTP02.len() {
        drop(binary(&HTTP02.as_bytes()[..end], escape));
    }
    let deep = format!("(module (func {}", "(block ".repeat(200_000));
    let flat = format!("(module (func {} {}))", "block ".repeat(50_000), "end ".repeat(50_000));
    let said = binary(deep.as_bytes(), escape).expect_err("it is too deep");
    assert!(said.len() < 1_000, "{said}");
    assert!(binary(flat.as_bytes(), escape).is_ok());
    assert!(binary(b"(module (func \xff\xfe))", escape).is_err());
    assert!(binary(&b"(".repeat(1 << 20), escape).is_err());
}

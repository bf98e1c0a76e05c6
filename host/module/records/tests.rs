//! The cost of instances, compared with sums made by hand.

use super::read;
use crate::limits::{CORE_INSTANCES_PER_SLOT, ELEMENTS_MAX};
use crate::tests::{HTTP02, MODULE, feed, wasm};

#[test]
fn a_module_takes_what_it_has() {
    let size = read(&wasm(MODULE)).expect("a module");
    assert_eq!((size.elements, size.data_bytes, size.images), (2, 9, 1));
    assert_eq!((size.instances, size.memories, size.tables), (1, 1, 1));
    assert_eq!((size.copied_pages, size.pages, size.slots()), (0, 1, 1));
    assert!(size.is_small() && size.bytes > 1024);
}

#[test]
fn a_component_takes_what_its_instances_take() {
    let size = read(&wasm(HTTP02)).expect("a component");
    // Three modules, and the component that names its types.
    assert_eq!((size.instances, size.memories, size.tables, size.elements), (4, 1, 1, 1));
    let many = "(core instance (instantiate $m))".repeat(CORE_INSTANCES_PER_SLOT as usize + 1);
    let size = read(&wasm(&format!("(component (core module $m) {many})"))).expect("a component");
    assert_eq!(size.slots(), 2);
}

#[test]
fn what_is_too_much_is_said() {
    let elements = format!("(elem func {})", "0 ".repeat(ELEMENTS_MAX + 1));
    let outside = "(data (global.get 0) \"x\")".repeat(2_000);
    for (body, words) in [
        (format!("(func) {elements}"), "80001 elements for its tables"),
        (format!("(global (import \"\" \"\") i32) (memory 1) {outside}"), "would be copied to"),
    ] {
        let said = read(&wasm(&format!("(module {body})"))).expect_err("it is too much");
        assert!(said.contains(words), "{said}");
    }
}

#[test]
fn images_of_all_modules_are_one_sum() {
    let module = "(core module (memory 200)
        (data (i32.const 0) \"x\") (data (i32.const 12000000) \"x\"))";
    assert!(read(&wasm(&format!("(component {module})"))).is_ok());
    let said = read(&wasm(&format!("(component {module} {module})"))).expect_err("too much");
    assert!(said.contains("most of which are zeros"), "{said}");
}

/// Each component instantiates its inner one twice, so the outermost has 2^80 instances.
#[test]
fn sums_come_to_an_end() {
    let inner = "(component (core module $m (memory 1)) (core instance (instantiate $m)))";
    let text = (0..80).fold(inner.to_owned(), |inner, _| {
        let named = inner.replacen("(component", "(component $c", 1);
        format!("(component {named} (instance (instantiate $c)) (instance (instantiate $c)))")
    });
    let size = read(&wasm(&text)).expect("a component");
    assert_eq!(size.instances, usize::MAX);
}

#[test]
fn hostile_bytes_come_to_an_end() {
    feed(|bytes| drop(read(bytes)));
}

//! The table of interfaces: no name is in it twice, and versions are told apart.

mod contract;

use std::collections::HashSet;

use super::{BUILTINS, FlatLowering, Version, find, find_core, modules, of_components};

#[test]
fn nothing_is_in_the_table_twice() {
    let (mut interfaces, mut seen) = (HashSet::new(), HashSet::new());
    for interface in of_components().chain(modules::ALL).chain([&BUILTINS]) {
        assert!(interfaces.insert(interface.module), "{}", interface.module);
        for function in interface.functions {
            assert!(seen.insert((interface.module, function.name)), "{function:?}");
        }
    }
}

#[test]
fn the_module_of_an_interface_tells_its_version() {
    for interface in of_components() {
        let suffix = if interface.version == Version::V03 { "@0.3" } else { "" };
        assert_eq!(interface.module, format!("{}{suffix}", interface.name));
        for function in interface.functions {
            assert!(function.ty.is_empty(), "{function:?}");
        }
        let linked = find(&interface.linked()).expect("the engine's version is one of these");
        assert_eq!(linked, interface);
    }
    for function in modules::ALL.iter().flat_map(|interface| interface.functions) {
        assert!(
            function.ty.starts_with('(') && function.flat == FlatLowering::Missing,
            "{function:?}"
        );
    }
}

#[test]
fn what_is_imported_is_found_by_its_version() {
    let types = |version: &str| find(&format!("wasi:http/types@{version}")).map(|it| it.module);
    assert_eq!(types("0.2.0"), Some("wasi:http/types"));
    assert_eq!(types("0.3.9"), Some("wasi:http/types@0.3"));
    for version in ["0.3.0-rc-2025-09-16", "0.2.0-rc-2023-11-10", "0.4.0", "1.0.0", ""] {
        assert_eq!(types(version), None, "{version}");
    }
    assert_eq!(find("wasi:http/types"), None);
    assert!(find("wasi:config/store@0.2.0-rc.1").is_some());
    assert_eq!(find("wasi:config/store@0.2.0"), None);
    assert_eq!(find("wasi:io/streams@0.3.0"), None);
    let random = find_core("wasi_snapshot_preview1", "random_get").expect("it is there");
    assert_eq!(random.ty, "(i32, i32) -> i32");
    assert_eq!(find_core("http_handler", "random_get"), None);
}

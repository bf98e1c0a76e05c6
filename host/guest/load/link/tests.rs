//! Compares the linkers with the table of interfaces, both ways: for core modules, flat components
//! and whole ones, a linker has what the table says, and nothing else.

mod wit;

use std::collections::{BTreeMap, BTreeSet};

use guesthouse_module::flatten::REALLOC_IMPORT;
use guesthouse_module::interfaces::{
    BUILTINS, FlatLowering, Interface, Version, find, modules, of_components,
};
use wasmtime::component::Component;
use wasmtime::{AsContextMut, Engine, FuncType, Linker};

use super::linker;
use crate::guest::component::{
    ComponentState, concurrent_linker, flat_linker, linker as whole_linker,
};
use crate::guest::core::CoreState;
use crate::guest::engine::engines::Engines;
use crate::guest::load::startup::placeholder_info;

/// A function in a table, in a linker or in an interface's own text: the module, the name, and the
/// type as a core function.
type Row = (String, String, String);

/// Functions whose results have text by their types, but never in fact: the host returns only cases
/// without text. So no memory is allocated for them.
const WITHOUT_TEXT: [(&str, &str); 6] = [
    ("wasi:http/types", "[static]outgoing-body.finish"),
    ("wasi:http/types", "[method]response-outparam.send-informational"),
    ("wasi:http/types@0.3", "[static]fields.from-list"),
    ("wasi:http/types@0.3", "[method]fields.set"),
    ("wasi:http/types@0.3", "[method]fields.delete"),
    ("wasi:http/types@0.3", "[method]fields.append"),
];

/// Interfaces that are exported, and never imported.
const EXPORTS: [&str; 3] = ["wasi:cli/run", "wasi:http/incoming-handler", "wasi:http/handler"];

fn engines() -> Engines {
    Engines::unpooled().expect("the engines")
}

/// A type as in `(i32, i32) -> i64`.
fn text(ty: &FuncType) -> String {
    let params: Vec<_> = ty.params().map(|ty| ty.to_string()).collect();
    let results: Vec<_> = ty.results().map(|ty| ty.to_string()).collect();
    function_text(&params, &results)
}

fn function_text(params: &[String], results: &[String]) -> String {
    match results {
        [] => format!("({})", params.join(", ")),
        results => format!("({}) -> {}", params.join(", "), results.join(", ")),
    }
}

/// Everything in a linker of core modules.
fn rows<T: 'static>(linker: &Linker<T>, mut store: impl AsContextMut<Data = T>) -> BTreeSet<Row> {
    let items: Vec<_> = linker
        .iter(&mut store)
        .map(|(module, name, item)| (module.to_owned(), name.to_owned(), item))
        .collect();
    let store = store.as_context_mut();
    let rows = items.into_iter().map(|(module, name, item)| {
        let function = item.into_func().expect("a function");
        (module, name, text(&function.ty(&store)))
    });
    rows.collect()
}

/// Fails with the rows that only one side has.
#[track_caller]
fn assert_same(what: &str, linker: &BTreeSet<Row>, table: &BTreeSet<Row>) {
    let only = |one: &BTreeSet<Row>, other| one.difference(other).cloned().collect::<Vec<_>>();
    let (more, less) = (only(linker, table), only(table, linker));
    assert!(more.is_empty() && less.is_empty(), "{what}\nbeyond: {more:#?}\nmissing: {less:#?}");
}

#[test]
fn core_modules_have_what_is_in_the_table() {
    let engines = engines();
    for engine in [&engines.small[0], &engines.large] {
        let linker = linker(engine).expect("a linker");
        let store = wasmtime::Store::new(engine, CoreState::new(placeholder_info(), 0));
        let table = modules::ALL.iter().flat_map(|it| it.functions.iter().map(move |f| (it, f)));
        let table = table.map(|(it, f)| (it.name.into(), f.name.into(), f.ty.into()));
        assert_same("the linker of core modules", &rows(&linker, store), &table.collect());
    }
}

/// Each function has its interface's type, or one that allocates for its result
/// (`flatten/realloc_plan.rs`).
#[test]
fn flat_components_have_what_is_in_the_table() {
    let engines = engines();
    let linker = flat_linker(&engines.large).expect("a linker");
    let all = rows(&linker, ComponentState::store(&engines.large, placeholder_info())).into_iter();
    let (canon, mut linked): (BTreeSet<Row>, BTreeSet<Row>) =
        all.partition(|it| it.0 == BUILTINS.module);
    let builtins: BTreeSet<_> = BUILTINS.functions.iter().map(|it| it.name).collect();
    assert_eq!(canon.iter().map(|it| &*it.1).collect::<BTreeSet<_>>(), builtins);
    let next =
        (REALLOC_IMPORT.0.to_owned(), REALLOC_IMPORT.1.to_owned(), "(i32) -> i64".to_owned());
    assert!(linked.remove(&next), "{next:?}");
    let known = wit::functions();
    let mut table = BTreeSet::new();
    for interface in of_components() {
        for function in interface.functions.iter().filter(|it| it.flat != FlatLowering::Missing) {
            let key = (interface.module.to_owned(), function.name.to_owned());
            let known = known.get(&key).unwrap_or_else(|| panic!("{key:?} is of no interface"));
            let (params, results) = match function.flat {
                FlatLowering::Async => (&known.async_params, vec!["i32".to_owned()]),
                _ if function.needs_realloc => (&known.params, vec!["i64".to_owned()]),
                _ => (&known.params, known.results.clone()),
            };
            let ty = function_text(params, &results);
            table.insert((interface.module.to_owned(), function.flat_name(), ty));
        }
    }
    assert_same("the linker of flat components", &linked, &table);
}

/// wasmtime's own linkers are generated from these texts.
#[test]
fn whole_components_have_what_is_in_the_table() {
    let known = wit::functions();
    let mut expected = BTreeMap::new();
    for ((module, name), known) in &known {
        let interface = module.strip_suffix("@0.3").unwrap_or(module);
        if !EXPORTS.contains(&interface) {
            let needs_realloc =
                known.has_text && !WITHOUT_TEXT.contains(&(module.as_str(), name.as_str()));
            expected.insert((module.as_str(), name.as_str()), needs_realloc);
        }
    }
    let mut table = BTreeMap::new();
    for interface in of_components() {
        for function in interface.functions {
            table.insert((interface.module, function.name), function.needs_realloc);
        }
    }
    let more: Vec<_> = expected.iter().filter(|it| table.get(it.0) != Some(it.1)).collect();
    let less: Vec<_> = table.iter().filter(|it| expected.get(it.0) != Some(it.1)).collect();
    assert!(more.is_empty() && less.is_empty(), "WIT: {more:#?}\ntable: {less:#?}");
}

/// A component that imports everything links. So the functions that replace wasmtime's have the
/// names, versions and types of the interfaces.
#[test]
fn whole_components_that_import_all_of_it_are_linked() {
    let engines = engines();
    let link = |engine: &Engine, versions: &[Version], concurrent: bool| {
        let all = of_components().filter(|it| versions.contains(&it.version));
        let names: Vec<_> = all.map(Interface::linked).collect();
        let component = Component::new(engine, wit::component(&names)).expect("a component");
        let linker = if concurrent { concurrent_linker(engine) } else { whole_linker(engine) };
        let linked = linker.expect("a linker").instantiate_pre(&component);
        drop(linked.unwrap_or_else(|error| panic!("{versions:?}: {error:#}")));
        let ty = component.component_type();
        ty.imports(engine).map(|(name, _)| name.to_owned()).collect::<Vec<_>>()
    };
    let draft = Version::Draft("0.2.0-rc.1");
    let mut imported = link(&engines.large, &[Version::V02, draft], false);
    imported.extend(link(&engines.concurrent, &[Version::V02, draft], true));
    imported.extend(link(&engines.concurrent, &[Version::V03], true));
    for interface in of_components().filter(|it| !it.functions.is_empty()) {
        assert!(imported.contains(&interface.linked()), "{} is not imported", interface.linked());
    }
    for name in imported {
        assert!(find(&name).is_some() || is_mere_types(&name), "{name}");
    }
}

/// Interfaces without functions and resources, which a component may import for their types.
fn is_mere_types(name: &str) -> bool {
    name.starts_with("wasi:clocks/types@0.3.")
}

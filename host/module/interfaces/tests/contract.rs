//! The guest contract lists the interfaces that the table has. `UPDATE=1` rewrites its list.

use std::collections::BTreeMap;
use std::fs;

use crate::interfaces::modules::HTTP_HANDLER;
use crate::interfaces::{FlatLowering, Function, Interface, Version, of_components};

const CONTRACT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/guest-contract.md");
const HEAD: &str = "| interface | 0.2 | 0.3 | given by |\n|---|---|---|---|\n";

fn contract() -> String {
    fs::read_to_string(CONTRACT).expect("the contract")
}

/// The names of the functions that flat components lack.
fn lacking(interface: &Interface) -> Vec<&'static str> {
    let missing = |it: &&Function| it.flat == FlatLowering::Missing;
    interface.functions.iter().filter(missing).map(|function| function.name).collect()
}

/// The forms of components that have the interface, as the contract calls them.
fn form(interface: &Interface) -> &'static str {
    match (interface.functions.len(), lacking(interface).len()) {
        (0, _) => "types",
        (_, 0) => "flat",
        (all, lacking) if all == lacking => "whole",
        _ => "flat in part",
    }
}

/// The lines of the contract's table, one for each interface.
fn table() -> String {
    let mut rows: BTreeMap<&str, [String; 3]> = BTreeMap::new();
    for interface in of_components() {
        let row = rows.entry(interface.name).or_default();
        match interface.version {
            Version::V02 => row[0] = form(interface).to_owned(),
            Version::V03 => row[1] = form(interface).to_owned(),
            other => row[0] = format!("{} ({} alone)", form(interface), other.latest()),
        }
        for flag in interface.functions.iter().filter_map(|function| function.grant) {
            row[2] = format!("`{flag}`");
        }
    }
    let rows = rows.into_iter();
    rows.map(|(name, [old, new, flag])| format!("| `{name}` | {old} | {new} | {flag} |\n"))
        .collect()
}

#[test]
fn the_contract_has_every_interface() {
    let text = contract();
    let (before, found) = text.split_once(HEAD).expect("the table");
    let len = found.split_inclusive('\n').take_while(|line| line.starts_with('|'));
    let (found, after) = found.split_at(len.map(str::len).sum());
    let table = table();
    if std::env::var_os("UPDATE").is_some_and(|value| value == "1") {
        fs::write(CONTRACT, format!("{before}{HEAD}{table}{after}")).expect("the contract");
        return;
    }
    assert!(found == table, "UPDATE=1 writes it anew:\n{table}");
}

/// If flat components lack some functions of an interface, the contract names these functions.
#[test]
fn the_contract_names_what_the_flat_form_lacks() {
    let text = contract().split_whitespace().collect::<Vec<_>>().join(" ");
    for interface in of_components().filter(|it| form(it) == "flat in part") {
        let names: Vec<_> = lacking(interface).iter().map(|it| format!("`{it}`")).collect();
        let version = if interface.version == Version::V03 { "0.3" } else { "0.2" };
        let (name, names) = (interface.name, names.join(", "));
        let said = format!("Of `{name}` {version} the flat form lacks {names}.");
        assert!(text.contains(&said), "{said}");
    }
}

/// The contract writes a function of the http-wasm ABI as `name(a, b) -> i64`, without the types of
/// parameters, which are all `i32`.
#[test]
fn the_contract_has_every_function_of_the_http_wasm_abi() {
    let text = contract();
    let (_, rows) = text.split_once("| function | what it does | stops |\n").expect("the table");
    let rows = rows.lines().skip(1).take_while(|line| line.starts_with('|'));
    let told: Vec<_> = rows
        .map(|row| {
            let signature = row.split('`').nth(1).expect("a signature");
            let (name, rest) = signature.split_once('(').expect("parameters");
            let (params, result) = rest.split_once(')').expect("their end");
            let params = params.split(',').filter(|it| !it.trim().is_empty()).map(|_| "i32");
            (name, format!("({}){result}", params.collect::<Vec<_>>().join(", ")))
        })
        .collect();
    let known = HTTP_HANDLER.functions.iter().map(|it| (it.name, it.ty.to_owned()));
    assert_eq!(told, known.collect::<Vec<_>>());
}

//! The names as tests: which words are in none, and that a type's name stands once in a crate.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use crate::tidy::{Source, assert_none, sources};

/// Words of our own for what has a standard term, so that nobody would look for it by them.
const BANNED: [&str; 24] = [
    "way",
    "trail",
    "visit",
    "departure",
    "resident",
    "sitting",
    "shelf",
    "shelves",
    "rooms",
    "pens",
    "kept",
    "exits",
    "waste",
    "sleeper",
    "wire",
    "outlet",
    "leaving",
    "fate",
    "worth",
    "crowd",
    "multitude",
    "neighbour",
    "neighbours",
    "stranger",
];
/// How names with such a word end that wasmtime has given.
const OF_WASMTIME: [&str; 2] = ["_keep_resident", "_bytes_resident"];
/// Where the ten thousand of the demo are called strangers.
const OF_THE_TEN_THOUSAND: [&str; 4] =
    ["host/demo", "host/cli.rs", "tests/it/strangers.rs", "benches/strangers"];

#[test]
fn no_private_word_is_in_a_name() {
    let mut findings = BTreeSet::new();
    for Source { path, text } in sources() {
        let stem = Path::new(&path).file_stem().expect("a file").to_string_lossy().into_owned();
        for name in names(&text).into_iter().chain([stem.as_str()]) {
            let words = words(name);
            let banned = words.iter().any(|word| BANNED.contains(&word.as_str()));
            if banned && !is_allowed(&path, name) {
                findings.insert(format!("{path}: {name}"));
            }
        }
    }
    assert_none(&findings.into_iter().collect::<Vec<_>>());
}

fn is_allowed(path: &str, name: &str) -> bool {
    let is_theirs = OF_WASMTIME.iter().any(|end| name.ends_with(end));
    let is_demo = OF_THE_TEN_THOUSAND.iter().any(|part| path.starts_with(part));
    is_theirs || (is_demo && name.to_lowercase().contains("stranger"))
}

#[test]
fn a_type_is_named_once_in_a_crate() {
    let mut places: BTreeMap<(&str, String), Vec<String>> = BTreeMap::new();
    let all = sources();
    for source in all.iter().filter(|source| source.path.starts_with("host/")) {
        // Templates are programs of their own.
        if source.path.contains("/templates/") {
            continue;
        }
        let Some(name) = source.crate_name() else { continue };
        for line in source.text.lines() {
            if let Some(of) = type_name(line) {
                places.entry((name, of.to_owned())).or_default().push(source.path.clone());
            }
        }
    }
    let twice = places.into_iter().filter(|(_, paths)| paths.len() > 1);
    let findings: Vec<String> =
        twice.map(|((of, name), paths)| format!("{of}: {name} in {}", paths.join(", "))).collect();
    assert_none(&findings);
}

/// The name of the type that is defined on this line, outside of everything else.
fn type_name(line: &str) -> Option<&str> {
    let visible = line.strip_prefix("pub").map_or(line, |rest| {
        let rest = rest.strip_prefix('(').and_then(|it| it.split_once(')')).map_or(rest, |it| it.1);
        rest.trim_start()
    });
    let (kind, rest) = visible.split_once(' ')?;
    if !matches!(kind, "struct" | "enum" | "trait" | "type" | "union") {
        return None;
    }
    rest.split(|c: char| !c.is_alphanumeric() && c != '_').next()
}

/// The identifiers of a text, without those in its comments and strings.
fn names(text: &str) -> Vec<&str> {
    let mut names = Vec::new();
    for line in text.lines() {
        let code = line.split("//").next().unwrap_or_default();
        // What is between quotes, if they end on the line, is no name.
        for part in code.split('"').step_by(2) {
            let is_part = |c: char| c.is_alphanumeric() || c == '_';
            names.extend(part.split(|c: char| !is_part(c)).filter(|name| !name.is_empty()));
        }
    }
    names
}

/// `snake_case` and `CamelCase` as words in lower case.
fn words(name: &str) -> Vec<String> {
    let mut words = vec![String::new()];
    let mut before = None;
    for c in name.chars() {
        if c == '_' || (c.is_uppercase() && before.is_some_and(char::is_lowercase)) {
            words.push(String::new());
        }
        if c != '_' {
            words.last_mut().expect("there is one").extend(c.to_lowercase());
        }
        before = Some(c);
    }
    words
}

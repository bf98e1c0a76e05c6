//! The documents as tests: they are short, and they list what exists.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::process::Command;

use crate::host::program;
use crate::tidy::{Source, assert_none, sources};

const README_LINES_MAX: usize = 160;
const ARCHITECTURE_LINES_MAX: usize = 150;

#[test]
fn every_file_is_on_the_map() {
    let map = document("docs/map.md");
    let rows: BTreeSet<(&str, &str)> = map.lines().filter_map(row).collect();
    let mut findings = Vec::new();
    let mut there = BTreeSet::new();
    let all = sources();
    for Source { path, .. } in &all {
        if path.starts_with("tests/") {
            continue;
        }
        let (folder, file) = path.split_at(path.rfind('/').map_or(0, |at| at + 1));
        there.insert((folder, file));
        if !rows.contains(&(folder, file)) {
            findings.push(format!("{path} is not in docs/map.md"));
        }
    }
    let gone = rows.difference(&there);
    findings.extend(gone.map(|(folder, file)| format!("docs/map.md has {folder}{file}")));
    assert_none(&findings);
}

/// The folder and the file of a row of the map.
fn row(line: &str) -> Option<(&str, &str)> {
    let mut cells = line.strip_prefix("| `")?.split(" | ");
    let folder = cells.next()?.strip_suffix('`')?;
    let file = cells.next()?.strip_prefix('`')?.strip_suffix('`')?;
    Some((folder, file))
}

#[test]
fn the_first_documents_are_short() {
    for (path, lines_max) in
        [("README.md", README_LINES_MAX), ("ARCHITECTURE.md", ARCHITECTURE_LINES_MAX)]
    {
        let lines = document(path).lines().count();
        assert!(lines <= lines_max, "{path}: {lines} lines, over {lines_max}");
    }
}

#[test]
fn every_flag_is_in_the_table() {
    let mut flags = BTreeSet::new();
    for verb in ["serve", "demo"] {
        let help = Command::new(program()).args([verb, "--help"]).output().expect("it runs");
        let help = String::from_utf8(help.stdout).expect("UTF-8");
        let begin = help.lines().map(str::trim_start).filter(|line| line.starts_with("--"));
        flags.extend(begin.filter_map(|line| Some(line.split([' ', '=']).next()?.to_owned())));
    }
    assert!(flags.len() > 30, "{flags:?}");
    let text = document("docs/flags.md");
    let rows = text.lines().filter_map(|line| line.strip_prefix("| `--"));
    let rows = rows.filter_map(|row| Some(format!("--{}", row.split([' ', '`']).next()?)));
    assert_eq!(rows.collect::<BTreeSet<String>>(), flags, "docs/flags.md, and --help");
}

fn document(path: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(path);
    fs::read_to_string(&path).unwrap_or_else(|error| panic!("{path:?}: {error}"))
}

//! The style as tests: how a file begins, how long things are, and who may import what.
//!
//! Reads the sources as text, as rustfmt formats them. Nothing is excluded.

use std::fs;
use std::path::{Path, PathBuf};

/// The folders that have Rust code of this project.
const SOURCES: [&str; 4] = ["host", "tests", "benches", "guests/src"];

/// The crates of the program: their folders, and the names by which others import them. A crate may
/// be in the folder of another one.
pub const CRATES: &[(&str, &str)] = &[
    // The root package. Its modules have rows of their own in the table.
    HOST,
    ("host/bench", "guesthouse_bench"),
    ("host/escape", "guesthouse_escape"),
    ("host/module", "guesthouse_module"),
];
pub const HOST: (&str, &str) = ("host", "guesthouse");

const FILE_LINES_MAX: usize = 500;
const FUNCTION_LINES_MAX: usize = 70;
const LINE_CHARS_MAX: usize = 100;

/// For each top-level module of the host and each crate, the top-level modules and crates that it
/// may import.
const IMPORTS: [(&str, &[&str]); 20] = [
    // Leaves: plain values that anyone may use, and the code that reads and rewrites bytes.
    ("guesthouse_escape", &[]),
    ("guesthouse_module", &[]),
    ("file", &[]),
    ("grants", &[]),
    ("config", &["file", "grants"]),
    ("message", &[]),
    ("status", &[]),
    ("metrics", &["status"]),
    ("log", &["config", "guesthouse_escape"]),
    ("queue", &["grants", "message"]),
    // It knows a guest only by its name.
    ("outbound", &["config", "grants", "message", "log"]),
    // The sandbox does not know its callers.
    (
        "guest",
        &[
            "config",
            "grants",
            "message",
            "metrics",
            "log",
            "queue",
            "outbound",
            "file",
            "guesthouse_module",
        ],
    ),
    ("registry", &["grants", "message", "metrics", "log", "queue", "guest"]),
    // The handlers, and the sources that they come from. The server does not know which sources
    // exist.
    ("source", &["grants", "guest", "registry"]),
    ("folder", &["config", "grants", "log", "guest", "registry", "source"]),
    ("demo", &["config", "grants", "message", "file", "guest", "registry", "source"]),
    // The request path and the control path meet only in the registry.
    (
        "serve",
        &[
            "config", "grants", "message", "metrics", "log", "queue", "guest", "demo", "outbound",
            "registry",
        ],
    ),
    ("control", &["config", "grants", "message", "metrics", "log", "guest", "registry", "source"]),
    // It reaches every server over TCP, including the one of this program.
    ("guesthouse_bench", &["guesthouse_escape"]),
    // The top connects the others. Only `main` uses it and the errors that it returns.
    (
        "cli",
        &[
            "guesthouse_bench",
            "config",
            "grants",
            "message",
            "metrics",
            "log",
            "queue",
            "guest",
            "demo",
            "outbound",
            "registry",
            "source",
            "folder",
            "serve",
            "control",
            "file",
            "status",
        ],
    ),
];

/// Test and benchmark code, which runs and prints. It is not part of the program.
const BESIDE_THE_PROGRAM: [&str; 2] = ["host/module/fuzz/", "host/module/interrupt/tests"];

/// Crates of others that only some modules and crates may import, so that they can be replaced
/// there.
const NAMED_IN: [(&str, &[&str]); 7] = [
    ("guesthouse_module", &["guest"]),
    // The load generator reads what a handler says that it answers.
    ("wasmparser", &["guesthouse_module", "guesthouse_bench"]),
    ("wasmtime", &["guest"]),
    ("hyper", &["serve", "outbound"]),
    ("h2", &["outbound"]),
    ("rustls", &["outbound"]),
    ("tokio_rustls", &["outbound"]),
];

/// Files on the request path, where errors are closed enums.
const REQUEST_PATH: [&str; 7] = [
    "host/outbound",
    "host/message.rs",
    "host/serve/",
    "host/registry/route",
    "host/guest/call",
    "host/guest/instance",
    "host/guest/core",
];

/// One file: its path below the root, with `/`, and its text.
pub struct Source {
    pub path: String,
    pub text: String,
}

impl Source {
    /// The crate that it belongs to. `None` if it is not part of the program.
    pub fn crate_name(&self) -> Option<&'static str> {
        let around = CRATES.iter().filter(|(folder, _)| Path::new(&self.path).starts_with(folder));
        around.max_by_key(|(folder, _)| folder.len()).map(|(_, name)| *name)
    }

    /// Its name in the table: its crate, or its top-level module in the host. `None` for `main`,
    /// `lib` and the build script.
    fn module(&self) -> Option<&str> {
        let name = self.crate_name()?;
        if name != HOST.1 {
            return Some(name);
        }
        let inside = self.path.strip_prefix("host/")?;
        let name = inside.split(['/', '.']).next()?;
        (!matches!(name, "main" | "lib" | "build")).then_some(name)
    }

    /// Whether it is in a folder of the host, but not part of the program.
    fn is_beside(&self) -> bool {
        BESIDE_THE_PROGRAM.iter().any(|beside| self.path.starts_with(beside))
    }

    /// Its module depth in the host: 1 for `host/guest.rs`.
    fn depth(&self) -> usize {
        self.path.matches('/').count()
    }

    /// Its lines of code with their numbers, without comments.
    fn code(&self) -> impl Iterator<Item = (usize, &str)> {
        let lines = self.text.lines().enumerate();
        lines
            .map(|(at, line)| (at + 1, line))
            .filter(|(_, line)| !line.trim_start().starts_with("//"))
    }
}

/// All Rust files of the project.
pub fn sources() -> Vec<Source> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut paths = Vec::new();
    for folder in SOURCES {
        walk(&root.join(folder), &mut paths);
    }
    paths.sort();
    let read = |path: PathBuf| {
        let text = fs::read_to_string(&path).unwrap_or_else(|error| panic!("{path:?}: {error}"));
        let path = path.strip_prefix(root).expect("below the root");
        Source { path: path.to_string_lossy().replace('\\', "/"), text }
    };
    let sources: Vec<Source> = paths.into_iter().map(read).collect();
    assert!(sources.len() > 30, "only {} files: the walk is wrong", sources.len());
    sources
}

fn walk(folder: &Path, paths: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).unwrap_or_else(|error| panic!("{folder:?}: {error}")) {
        let path = entry.expect("an entry").path();
        if path.is_dir() {
            walk(&path, paths);
        } else if path.extension().is_some_and(|it| it == "rs") {
            paths.push(path);
        }
    }
}

/// Fails with all findings, one per line.
#[track_caller]
pub fn assert_none(findings: &[String]) {
    assert!(findings.is_empty(), "{} findings:\n{}", findings.len(), findings.join("\n"));
}

/// The functions with a body in a text: name, line and length in lines.
fn functions(text: &str) -> Vec<(String, usize, usize)> {
    let lines: Vec<&str> = text.lines().collect();
    let mut functions = Vec::new();
    for (at, line) in lines.iter().enumerate() {
        let Some(name) = function_name(line) else { continue };
        let indent = &line[..line.len() - line.trim_start().len()];
        // rustfmt indents the end of a body or a declaration like its beginning.
        let end = lines[at..].iter().position(|line| {
            let rest = line.strip_prefix(indent).unwrap_or_default();
            rest == "}" || (function_name(line).is_some() && line.ends_with(['}', ';']))
        });
        let length = end.map_or(lines.len() - at, |end| end + 1);
        functions.push((name.to_owned(), at + 1, length));
    }
    functions
}

/// The name of the function that begins on this line, if one does.
fn function_name(line: &str) -> Option<&str> {
    let mut rest = line.trim_start();
    while let Some((word, after)) = rest.split_once(' ') {
        if word == "fn" {
            return after.split(['(', '<']).next();
        }
        let is_qualifier = matches!(word, "const" | "async" | "unsafe" | "extern" | "pub")
            || word.starts_with("pub(")
            || word == "\"C\"";
        if !is_qualifier {
            return None;
        }
        rest = after;
    }
    None
}

/// The top-level modules that a text of the host imports by `crate::`, or by as many `super::` as
/// lead to the top, and the crates that any text imports, each with its line.
fn imports(source: &Source) -> Vec<(usize, String)> {
    let code: String = source.text.lines().map(without_comment).collect();
    let mut found = Vec::new();
    if source.crate_name() == Some(HOST.1) {
        for lead in ["crate::", &"super::".repeat(source.depth())] {
            for at in places(&code, lead) {
                let names = first_names(&code[at + lead.len()..]);
                found.extend(names.into_iter().map(|name| (at, name)));
            }
        }
    }
    for (_, name) in CRATES {
        let lead = format!("{name}::");
        found.extend(places(&code, &lead).map(|at| (at, (*name).to_owned())));
    }
    found.into_iter().map(|(at, name)| (code[..at].matches('\n').count() + 1, name)).collect()
}

/// The positions of paths that begin like this.
fn places(code: &str, lead: &str) -> impl Iterator<Item = usize> {
    code.match_indices(lead).map(|(at, _)| at).filter(|at| {
        let before = code[..*at].chars().next_back();
        !before.is_some_and(|c| c.is_alphanumeric() || "_:".contains(c))
    })
}

fn without_comment(line: &str) -> String {
    let is_comment = line.trim_start().starts_with("//");
    format!("{}\n", if is_comment { "" } else { line })
}

/// The first names of a path: `a` of `a::b`, and `a`, `c` of `{a::{b, x}, c}`.
fn first_names(path: &str) -> Vec<String> {
    let name = |text: &str| -> String {
        let text = text.trim_start();
        text.chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect()
    };
    let Some(group) = path.strip_prefix('{') else { return vec![name(path)] };
    let mut names = vec![name(group)];
    let mut depth = 0;
    for (at, c) in group.char_indices() {
        match c {
            '{' => depth += 1,
            '}' if depth == 0 => break,
            '}' => depth -= 1,
            ',' if depth == 0 => names.push(name(&group[at + 1..])),
            _ => {}
        }
    }
    names.retain(|name| !name.is_empty() && name != "self");
    names
}

/// Whether a line of code names this crate, or one of its family such as `hyper_util`.
fn names_crate(line: &str, name: &str) -> bool {
    line.match_indices(name).any(|(at, _)| {
        let before = line[..at].chars().next_back();
        let rest = &line[at + name.len()..];
        let family = rest.trim_start_matches(|c: char| c.is_ascii_lowercase() || c == '_');
        let is_whole = rest.is_empty() || rest.starts_with([':', '_', ';', ' ', '!']);
        let is_path = family.starts_with("::")
            || family.starts_with('!')
            || line.trim_start().starts_with("use ");
        !before.is_some_and(|c| c.is_alphanumeric() || "_:\"-`".contains(c)) && is_whole && is_path
    })
}

#[test]
fn every_file_says_what_it_is() {
    let silent = |source: &Source| !source.text.starts_with("//! ");
    let findings: Vec<String> =
        sources().into_iter().filter(silent).map(|source| source.path).collect();
    assert_none(&findings);
}

#[test]
fn every_crate_is_in_the_list_and_has_the_lints() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let text =
        |path: PathBuf| fs::read_to_string(&path).unwrap_or_else(|it| panic!("{path:?}: {it}"));
    let manifest = text(root.join("Cargo.toml"));
    let members = manifest.lines().find_map(|line| line.strip_prefix("members = "));
    let members: Vec<&str> = members.expect("a workspace").split('"').skip(1).step_by(2).collect();
    let folders: Vec<&str> = CRATES.iter().skip(1).map(|(folder, _)| *folder).collect();
    assert_eq!(members, folders, "members in Cargo.toml, CRATES here");
    let manifests = members.iter().map(|folder| text(root.join(folder).join("Cargo.toml")));
    for manifest in manifests.chain([manifest.clone()]) {
        assert!(manifest.contains("\n[lints]\nworkspace = true\n"), "no lints:\n{manifest}");
    }
}

#[test]
fn nothing_is_too_long() {
    let mut findings = Vec::new();
    for Source { path, text } in sources() {
        let lines = text.lines().count();
        if lines > FILE_LINES_MAX {
            findings.push(format!("{path}: {lines} lines, over {FILE_LINES_MAX}"));
        }
        for (at, line) in text.lines().enumerate() {
            let chars = line.chars().count();
            if chars > LINE_CHARS_MAX {
                findings.push(format!("{path}:{}: {chars} characters in a line", at + 1));
            }
        }
        for (name, line, lines) in functions(&text) {
            if lines > FUNCTION_LINES_MAX {
                findings.push(format!("{path}:{line}: fn {name} has {lines} lines"));
            }
        }
    }
    assert_none(&findings);
}

#[test]
fn modules_import_only_what_the_table_allows() {
    let mut findings = Vec::new();
    for source in sources() {
        let Some(module) = source.module() else { continue };
        let path = &source.path;
        let Some((_, allowed)) = IMPORTS.iter().find(|(name, _)| *name == module) else {
            findings.push(format!("{path}: the module {module} is not in the table"));
            continue;
        };
        for (line, name) in imports(&source) {
            let is_module = IMPORTS.iter().any(|(module, _)| *module == name);
            if is_module && name != module && !allowed.contains(&name.as_str()) {
                findings.push(format!("{path}:{line}: {module} imports {name}"));
            }
        }
    }
    assert_none(&findings);
}

#[test]
fn some_crates_are_named_in_one_place() {
    let mut findings = Vec::new();
    let is_host = |source: &&Source| source.path.starts_with("host/") && !source.is_beside();
    for source in sources().iter().filter(is_host) {
        for (name, modules) in NAMED_IN {
            if source.module().is_some_and(|module| modules.contains(&module)) {
                continue;
            }
            let lines = source.code().filter(|(_, line)| names_crate(line, name));
            findings.extend(lines.map(|(at, _)| format!("{}:{at}: names {name}", source.path)));
        }
    }
    assert_none(&findings);
}

#[test]
fn errors_on_the_request_path_are_closed() {
    let mut findings = Vec::new();
    for source in sources() {
        let is_on_path = REQUEST_PATH.iter().any(|path| source.path.starts_with(path));
        if is_on_path {
            let lines = source.code().filter(|(_, line)| names_crate(line, "anyhow"));
            findings.extend(lines.map(|(at, _)| format!("{}:{at}: names anyhow", source.path)));
        }
    }
    assert_none(&findings);
}

#[test]
fn some_words_are_not_used() {
    let words = [".unwrap()", "todo!(", "unimplemented!(", "dbg!(", "println!("];
    let mut findings = Vec::new();
    for source in sources() {
        if source.path.ends_with("/mod.rs") {
            findings.push(format!("{}: should be beside its folder", source.path));
        }
        // Tests and tools may print, and a build script has to.
        let is_host = source.path.starts_with("host/")
            && source.path != "host/build.rs"
            && !source.is_beside();
        let lines = source.code().filter(|(_, line)| words.iter().any(|word| line.contains(word)));
        if is_host {
            findings.extend(lines.map(|(at, line)| format!("{}:{at}: {line}", source.path)));
        }
    }
    assert_none(&findings);
}

#[test]
fn the_scan_sees_what_it_looks_for() {
    let text = "\
fn a() {
    b
}
impl C {
    pub(crate) async fn d<T>(
        e: T,
    ) {
        f
    }
}
trait G {
    fn h(&self);
    const fn i() {}
}
// fn no() {
";
    let seen: Vec<String> = functions(text)
        .into_iter()
        .map(|(name, line, length)| format!("{name} {line} {length}"))
        .collect();
    assert_eq!(seen, ["a 1 3", "d 5 5", "h 12 1", "i 13 1"]);

    let text = "use crate::config::Config;\nuse crate::{log, guest::{Guest, pool}, self};\n\
                // crate::serve\nlet x = super::super::cli::run();\nuse super::core::Y;\n\
                guesthouse_bench::run();\n";
    let source = Source { path: "host/guest/call.rs".into(), text: text.into() };
    let seen: Vec<String> =
        imports(&source).into_iter().map(|(line, name)| format!("{line} {name}")).collect();
    assert_eq!(seen, ["1 config", "2 log", "2 guest", "4 cli", "6 guesthouse_bench"]);
    assert_eq!((source.module(), source.depth()), (Some("guest"), 2));

    let text = "use crate::config;\nuse super::cli;\nuse guesthouse_escape::escape;\n";
    let source = Source { path: "host/bench/file.rs".into(), text: text.into() };
    assert_eq!(imports(&source), [(3, "guesthouse_escape".to_owned())]);
    assert_eq!(source.module(), Some("guesthouse_bench"));

    for line in
        ["use wasmtime::Engine;", "x: wasmtime::Error,", "wasmtime_wasi::p1::add()", "wasmtime!()"]
    {
        assert!(names_crate(line, "wasmtime"), "{line}");
    }
    for line in [r#"env!("GUESTHOUSE_WASMTIME")"#, r#"", wasmtime ","#, "let wasmtime_version = 1;"]
    {
        assert!(!names_crate(line, "wasmtime"), "{line}");
    }
}

//! No files of the host and its crates import each other in a cycle. An edge goes from a file to
//! the file that defines the name which it imports. `mod` is no edge, and the `pub use` of a face
//! is followed to the file that the name comes from.
//!
//! Reads the sources as text, as rustfmt formats them. Unit tests are left out.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

use crate::tidy::{CRATES, HOST};

/// One file: its module path, its re-exports, and the paths that it names.
#[derive(Default)]
struct File {
    path: String,
    exports: Vec<Vec<String>>,
    named: BTreeSet<Vec<String>>,
}

/// The folders of the sandbox, and the folders that each may import: only some of those before it.
const SANDBOX_FOLDERS: [(&str, &[&str]); 9] = [
    ("engine", &[]),
    ("schedule", &["engine"]),
    ("services", &["engine", "schedule"]),
    ("core", &["engine", "schedule", "services"]),
    ("component", &["engine", "schedule", "services"]),
    ("instance", &["engine", "schedule", "services", "core", "component"]),
    ("load", &["engine", "schedule", "core", "component", "instance"]),
    ("call", &["engine", "schedule", "services", "component", "instance"]),
    ("instances", &["engine", "schedule", "component", "instance", "call"]),
];

type Modules = BTreeMap<Vec<String>, File>;

/// All modules by their paths. Paths begin with the crate.
fn modules() -> Modules {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let crates = CRATES.iter().map(|(folder, name)| (root.join(folder), *name));
    let crates: Vec<(PathBuf, &str)> = crates.collect();
    let mut modules = Modules::new();
    for (folder, name) in &crates {
        walk(&crates, folder, &[(*name).to_owned()], &mut modules);
        assert!(modules.contains_key(&[(*name).to_owned()][..]), "{folder:?} has no lib.rs");
    }
    assert!(modules.len() > 100, "only {} files: the walk is wrong", modules.len());
    modules
}

fn walk(crates: &[(PathBuf, &str)], folder: &Path, module: &[String], modules: &mut Modules) {
    let is_root = crates.iter().any(|(root, _)| root == folder);
    for entry in fs::read_dir(folder).expect("a folder") {
        let path = entry.expect("an entry").path();
        let name = path.file_stem().expect("a name").to_string_lossy().into_owned();
        let is_other = crates.iter().any(|(root, _)| *root == path);
        if is_other || name == "tests" || is_root && ["main", "build", "fuzz"].contains(&&*name) {
            continue;
        }
        let is_lib = is_root && name == "lib";
        let inner = if is_lib { module.to_vec() } else { [module, &[name]].concat() };
        if path.is_dir() {
            walk(crates, &path, &inner, modules);
        } else if path.extension().is_some_and(|it| it == "rs") {
            let text = fs::read_to_string(&path).expect("a file");
            let file = File::read(&inner.join("/"), &text);
            modules.insert(inner, file);
        }
    }
}

impl File {
    fn read(path: &str, text: &str) -> File {
        let code: Vec<&str> =
            text.lines().filter(|line| !line.trim_start().starts_with("//")).collect();
        let end = code.iter().position(|line| line.trim() == "mod tests {");
        let code = code[..end.unwrap_or(code.len())].join("\n");
        let mut file = File { path: path.to_owned(), ..File::default() };
        let mut rest = &*code;
        while let Some(at) = rest.find("use ") {
            let before = &rest[..at];
            let is_start = before.is_empty() || before.ends_with(['\n', ' ', ')']);
            let end = rest[at..].find(';').map_or(rest.len(), |end| at + end);
            if is_start {
                let paths = expand(&without_aliases(&rest[at + 4..end]));
                if before.trim_end().ends_with("pub") || before.trim_end().ends_with(')') {
                    file.exports.extend(paths.iter().cloned());
                }
                file.named.extend(paths);
            }
            rest = &rest[(at + 4).max(if is_start { end } else { 0 })..];
        }
        // A file may name the modules that it declares without a `use`.
        let declared = code.lines().filter_map(|line| {
            let name = line.trim_start_matches("pub ").strip_prefix("mod ")?.strip_suffix(';')?;
            Some(format!("{name}::"))
        });
        let crates = CRATES.iter().map(|(_, name)| format!("{name}::"));
        let starts: Vec<String> = crates.chain(declared).collect();
        for start in starts.iter().map(String::as_str).chain(["crate::", "super::"]) {
            for (at, _) in code.match_indices(start) {
                let is_path = |c: char| c.is_alphanumeric() || c == '_' || c == ':';
                // The path of a visibility is no import.
                if code[..at].ends_with(is_path) || code[..at].ends_with("pub(in ") {
                    continue;
                }
                let len = code[at..].find(|c| !is_path(c)).unwrap_or(code.len() - at);
                // Names in braces belong to a `use`.
                if code[at + len..].starts_with('{') {
                    continue;
                }
                let path = code[at..at + len].split("::").filter(|it| !it.is_empty());
                file.named.insert(path.map(str::to_owned).collect());
            }
        }
        file
    }
}

/// A `use` tree without blanks. If a name is renamed, the original counts.
fn without_aliases(tree: &str) -> String {
    let mut words = tree.split_whitespace();
    let mut bare = String::new();
    while let Some(word) = words.next() {
        if word == "as" {
            let alias = words.next().unwrap_or_default();
            bare += alias.trim_start_matches(|c: char| c.is_alphanumeric() || c == '_');
        } else {
            bare += word;
        }
    }
    bare
}

/// The paths in such a tree.
fn expand(tree: &str) -> Vec<Vec<String>> {
    let Some((head, tail)) = tree.split_once('{') else {
        return vec![tree.split("::").map(str::to_owned).collect()];
    };
    let head: Vec<String> =
        head.split("::").filter(|it| !it.is_empty()).map(str::to_owned).collect();
    let tail = tail.strip_suffix('}').unwrap_or(tail);
    let (mut depth, mut begin, mut parts) = (0, 0, Vec::new());
    for (at, c) in tail.char_indices() {
        match c {
            '{' => depth += 1,
            '}' => depth -= 1,
            ',' if depth == 0 => {
                parts.push(&tail[begin..at]);
                begin = at + 1;
            }
            _ => {}
        }
    }
    parts.push(&tail[begin..]);
    let parts = parts.into_iter().filter(|part| !part.is_empty());
    parts.flat_map(expand).map(|path| [head.clone(), path].concat()).collect()
}

/// Follows a path from a module for as long as its parts are modules. Returns the last module and
/// the rest of the path. `None` if the path is not in this project.
fn lead<'a>(
    modules: &Modules,
    from: &[String],
    path: &'a [String],
) -> Option<(Vec<String>, &'a [String])> {
    let mut path = path;
    let mut at = from.to_vec();
    match path.first()?.as_str() {
        "crate" => {
            at.truncate(1);
            path = &path[1..];
        }
        "self" => path = &path[1..],
        "super" => {
            while path.first().is_some_and(|it| it == "super") {
                at.pop();
                path = &path[1..];
            }
        }
        first if CRATES.iter().any(|(_, name)| *name == first) => {
            (at, path) = (vec![first.to_owned()], &path[1..]);
        }
        first => {
            let child = [&at[..], &[first.to_owned()]].concat();
            if !modules.contains_key(&child) {
                return None;
            }
        }
    }
    while let Some(name) = path.first() {
        let child = [&at[..], std::slice::from_ref(name)].concat();
        if !modules.contains_key(&child) {
            break;
        }
        (at, path) = (child, &path[1..]);
    }
    Some((at, path))
}

/// The module that defines the name of a path, seen from a module. `None` if that is not in this
/// project.
fn definer(
    modules: &Modules,
    from: &[String],
    path: &[String],
    depth: usize,
) -> Option<Vec<String>> {
    let (at, path) = lead(modules, from, path)?;
    match export(modules, &at, path) {
        Some(export) if depth < 8 => definer(modules, &at, export, depth + 1),
        _ => Some(at),
    }
}

/// The target of a module's re-export under the first name of a path.
fn export<'a>(modules: &'a Modules, at: &[String], path: &[String]) -> Option<&'a [String]> {
    let name = path.first().filter(|name| *name != "self" && *name != "*")?;
    let exports = &modules.get(at)?.exports;
    exports.iter().find(|path| path.last() == Some(name)).map(Vec::as_slice)
}

/// The groups of files that import each other, directly or not, if they are more than one file
/// (Tarjan's algorithm, SIAM Journal on Computing 1/2, 1972).
fn cycles(edges: &[BTreeSet<usize>]) -> Vec<Vec<usize>> {
    struct State<'a> {
        edges: &'a [BTreeSet<usize>],
        index: Vec<Option<usize>>,
        low: Vec<usize>,
        stack: Vec<usize>,
        count: usize,
        groups: Vec<Vec<usize>>,
    }
    fn strong_connect(state: &mut State<'_>, node: usize) {
        let index = state.count;
        (state.index[node], state.low[node]) = (Some(index), index);
        state.count += 1;
        state.stack.push(node);
        for &next in &state.edges[node] {
            match state.index[next] {
                None => {
                    strong_connect(state, next);
                    state.low[node] = state.low[node].min(state.low[next]);
                }
                Some(seen) if state.stack.contains(&next) => {
                    state.low[node] = state.low[node].min(seen);
                }
                Some(_) => {}
            }
        }
        if state.low[node] == index {
            let at = state.stack.iter().position(|it| *it == node).expect("it is on the stack");
            let group = state.stack.split_off(at);
            if group.len() > 1 {
                state.groups.push(group);
            }
        }
    }
    let (index, low) = (vec![None; edges.len()], vec![0; edges.len()]);
    let (stack, groups) = Default::default();
    let mut state = State { edges, index, low, stack, count: 0, groups };
    for node in 0..edges.len() {
        if state.index[node].is_none() {
            strong_connect(&mut state, node);
        }
    }
    state.groups
}

/// Within a folder, a file imports a name from the file that defines it. An import by the folder's
/// face would hide what the file needs.
#[test]
fn nothing_imports_its_own_face() {
    let modules = modules();
    let mut found = Vec::new();
    for (from, file) in &modules {
        for path in file.named.iter().filter(|path| !file.exports.contains(path)) {
            let Some((face, rest)) = lead(&modules, from, path) else { continue };
            let is_own = face.len() < from.len() && from.starts_with(&face);
            if is_own && export(&modules, &face, rest).is_some() {
                let definer = definer(&modules, from, path, 0).unwrap_or_default();
                let (path, definer) = (path.join("::"), definer.join("::"));
                found.push(format!("{}: {path} is of {definer}", file.path));
            }
        }
    }
    assert!(found.is_empty(), "{} imports:\n{}", found.len(), found.join("\n"));
}

/// Every folder of the sandbox is in the list, and imports exactly what the list says.
#[test]
fn the_folders_of_the_sandbox_import_as_they_may() {
    let modules = modules();
    let room = |module: &[String]| match module {
        [root, guest, room, ..] if root == HOST.1 && guest == "guest" => Some(room.clone()),
        _ => None,
    };
    let mut found: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for (from, file) in &modules {
        let Some(own) = room(from) else { continue };
        let imported = found.entry(own.clone()).or_default();
        for path in file.named.iter().filter(|path| !file.exports.contains(path)) {
            let other = definer(&modules, from, path, 0).and_then(|to| room(&to));
            imported.extend(other.filter(|other| *other != own));
        }
    }
    let listed = SANDBOX_FOLDERS.map(|(folder, folders)| {
        (folder.to_owned(), folders.iter().map(|folder| (*folder).to_owned()).collect())
    });
    assert_eq!(found, BTreeMap::from(listed), "what is imported, and what is listed");
}

#[test]
fn no_files_import_each_other_in_a_circle() {
    let modules = modules();
    let names: Vec<&Vec<String>> = modules.keys().collect();
    let number = |module: &Vec<String>| names.binary_search(&module).expect("a module");
    let edges: Vec<BTreeSet<usize>> = modules
        .iter()
        .map(|(from, file)| {
            let named = file.named.iter().filter(|path| !file.exports.contains(path));
            let to = named.filter_map(|path| definer(&modules, from, path, 0));
            to.filter(|to| to != from).map(|to| number(&to)).collect()
        })
        .collect();
    let groups = cycles(&edges);
    let mut shown = String::new();
    for group in &groups {
        let files: Vec<&str> = group.iter().map(|at| &*modules[names[*at]].path).collect();
        shown += &format!("{} files: {}\n", files.len(), files.join(" "));
    }
    assert!(groups.is_empty(), "of {} files these are in a circle:\n{shown}", modules.len());
}

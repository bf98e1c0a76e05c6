//! Files of a crate that import each other in a circle, by names: an edge goes from a file to the
//! one that defines the name which it imports. `mod` is no edge, and neither is the `pub use` of a
//! face, which is followed to where the name comes from.
//!
//! Reads the sources as text, as rustfmt leaves them. Tests of the inside are left out.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;

/// Files that are in a circle. To be lowered with every circle that goes; none is to come.
const IN_A_CYCLE_MAX: usize = 20;

/// The crates: where each has its files, and its name. One in the folder of another is no part of
/// that.
const CRATES: [(&str, &str); 2] = [("host", "guesthouse"), ("host/module", "guesthouse_module")];

/// One file: its module path, what it re-exports, and the paths that it names.
#[derive(Default)]
struct File {
    path: String,
    exports: Vec<Vec<String>>,
    named: BTreeSet<Vec<String>>,
}

type Modules = BTreeMap<Vec<String>, File>;

/// All modules of a crate by their paths; the library itself has an empty one.
fn modules(root: &str) -> Modules {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join(root);
    let mut modules = Modules::new();
    walk(&root, &root, &mut modules);
    assert!(modules.len() > 10, "only {} files: the walk is wrong", modules.len());
    modules
}

fn walk(root: &Path, folder: &Path, modules: &mut Modules) {
    for entry in fs::read_dir(folder).expect("a folder") {
        let path = entry.expect("an entry").path();
        let name = path.file_stem().expect("a name").to_string_lossy().into_owned();
        let is_outside = ["main", "build", "fuzz"].contains(&&*name) && folder == root;
        if name == "tests" || is_outside || path.join("Cargo.toml").exists() {
            continue;
        }
        if path.is_dir() {
            walk(root, &path, modules);
        } else if path.extension().is_some_and(|it| it == "rs") && name != "main" {
            let below = path.strip_prefix(root).expect("below the root").with_extension("");
            let module = below.iter().map(|it| it.to_string_lossy().into_owned());
            let module: Vec<String> = module.filter(|it| it != "lib").collect();
            let text = fs::read_to_string(&path).expect("a file");
            modules.insert(module, File::read(&below.to_string_lossy(), &text));
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
        for start in ["crate::", "super::"] {
            for (at, _) in code.match_indices(start) {
                let is_path = |c: char| c.is_alphanumeric() || c == '_' || c == ':';
                // That of a visibility is no import.
                if code[..at].ends_with(is_path) || code[..at].ends_with("pub(in ") {
                    continue;
                }
                let len = code[at..].find(|c| !is_path(c)).unwrap_or(code.len() - at);
                let path = code[at..at + len].split("::").filter(|it| !it.is_empty());
                file.named.insert(path.map(str::to_owned).collect());
            }
        }
        file
    }
}

/// A `use` tree without blanks. Where a name is given another, the first counts.
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

/// The paths of such a tree.
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

/// The module that defines what a path names, seen from a module; none for what is not the crate's.
fn definer(
    modules: &Modules,
    from: &[String],
    path: &[String],
    depth: usize,
) -> Option<Vec<String>> {
    let mut path = path;
    let mut at = from.to_vec();
    match path.first()?.as_str() {
        "crate" => (at, path) = (Vec::new(), &path[1..]),
        "self" => path = &path[1..],
        "super" => {
            while path.first().is_some_and(|it| it == "super") {
                at.pop();
                path = &path[1..];
            }
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
    let name = path.first().filter(|name| *name != "self" && *name != "*");
    let exported = name.and_then(|name| {
        let exports = &modules.get(&at)?.exports;
        exports.iter().find(|path| path.last() == Some(name))
    });
    match exported {
        Some(export) if depth < 8 => definer(modules, &at, export, depth + 1),
        _ => Some(at),
    }
}

/// The groups of files that reach each other, by Tarjan's algorithm (SIAM Journal on Computing 1/2,
/// 1972), of those that are more than one file.
fn cycles(edges: &[BTreeSet<usize>]) -> Vec<Vec<usize>> {
    struct State<'a> {
        edges: &'a [BTreeSet<usize>],
        index: Vec<Option<usize>>,
        low: Vec<usize>,
        stack: Vec<usize>,
        count: usize,
        groups: Vec<Vec<usize>>,
    }
    fn visit(state: &mut State<'_>, node: usize) {
        let index = state.count;
        (state.index[node], state.low[node]) = (Some(index), index);
        state.count += 1;
        state.stack.push(node);
        for &next in &state.edges[node] {
            match state.index[next] {
                None => {
                    visit(state, next);
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
            visit(&mut state, node);
        }
    }
    state.groups
}

#[test]
fn few_files_import_each_other_in_a_circle() {
    let (mut count, mut files, mut shown) = (0, 0, String::new());
    for (root, name) in CRATES {
        let modules = modules(root);
        files += modules.len();
        for group in groups(&modules) {
            count += group.len();
            shown += &format!("{} files of {name}: {}\n", group.len(), group.join(" "));
        }
    }
    assert!(count <= IN_A_CYCLE_MAX, "{count} files of {files} in a cycle:\n{shown}");
    println!("{count} of {files} files are in a cycle\n{shown}");
}

/// The files of each circle.
fn groups(modules: &Modules) -> Vec<Vec<&str>> {
    let names: Vec<&Vec<String>> = modules.keys().collect();
    let number = |module: &Vec<String>| names.binary_search(&module).expect("a module");
    let edges: Vec<BTreeSet<usize>> = modules
        .iter()
        .map(|(from, file)| {
            let named = file.named.iter().filter(|path| !file.exports.contains(path));
            let to = named.filter_map(|path| definer(modules, from, path, 0));
            to.filter(|to| to != from).map(|to| number(&to)).collect()
        })
        .collect();
    let files = |group: Vec<usize>| group.iter().map(|at| &*modules[names[*at]].path).collect();
    cycles(&edges).into_iter().map(files).collect()
}

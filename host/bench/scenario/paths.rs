//! The paths of requests: how one line stands for many, and which characters a path may have.
//!
//! Knows nothing of how paths are drawn.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use wasmparser::Payload;

/// The most paths that one request may have.
pub const PATHS_MAX: usize = 200_000;

/// All paths that a line stands for. A range `{07..12}` stands for each number from the first to
/// the last, with as many digits as the first. Several ranges are combined, and the last one
/// changes fastest.
///
/// # Errors
/// The line is no path. The text says why, and can follow the name of a key.
pub fn expand(line: &str) -> Result<Vec<String>, String> {
    let paths = expand_ranges(line)?;
    paths.iter().try_for_each(|path| check(path))?;
    Ok(paths)
}

/// All texts that a text with ranges stands for.
///
/// # Errors
/// The braces hold no range, or there are more than [`PATHS_MAX`] texts.
pub fn expand_ranges(line: &str) -> Result<Vec<String>, String> {
    let mut paths = vec![String::new()];
    let mut rest = line;
    while let Some(open) = rest.find('{') {
        let (before, behind) = rest.split_at(open);
        let inside = behind[1..].split('}').next().unwrap_or_default();
        let numbers = numbers(inside)
            .filter(|_| behind.len() > inside.len() + 1)
            .ok_or_else(|| format!("{line:?} has braces that are no range such as {{00..98}}"))?;
        if paths.len().saturating_mul(numbers.len()) > PATHS_MAX {
            return Err(format!("{line:?} stands for more than {PATHS_MAX} paths"));
        }
        let parts = paths
            .iter()
            .flat_map(|path| numbers.iter().map(move |number| format!("{path}{before}{number}")));
        paths = parts.collect();
        rest = &behind[inside.len() + 2..];
    }
    for path in &mut paths {
        path.push_str(rest);
    }
    Ok(paths)
}

fn numbers(range: &str) -> Option<Vec<String>> {
    let (first, last) = range.split_once("..")?;
    let (low, high) = (number(first)?, number(last)?);
    let width = first.len();
    let shown = (low..=high).take(PATHS_MAX + 1).map(|number| format!("{number:0width$}"));
    Some(shown.collect::<Vec<_>>()).filter(|numbers| !numbers.is_empty())
}

fn number(digits: &str) -> Option<u32> {
    digits.bytes().all(|byte| byte.is_ascii_digit()).then(|| digits.parse().ok())?
}

/// Checks that a path can be asked for.
///
/// # Errors
/// It cannot. The text says why.
pub fn check(path: &str) -> Result<(), String> {
    if !path.starts_with('/') {
        return Err(format!("{path:?} does not begin with /"));
    }
    if !path.bytes().all(|byte| byte.is_ascii_graphic()) {
        return Err(format!("{path:?} has a character that has to be percent-encoded"));
    }
    Ok(())
}

/// The paths in a text, one on each line. Lines that are empty or begin with `#` are left out.
///
/// # Errors
/// A line is no path. The text has its number.
pub fn lines(text: &str) -> Result<Vec<String>, String> {
    let mut paths = Vec::new();
    for (number, line) in text.lines().enumerate() {
        let line = line.trim();
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        check(line).map_err(|reason| format!("line {}: {reason}", number + 1))?;
        paths.push(line.to_owned());
    }
    Ok(paths)
}

/// The files of the handlers in a folder, in any order. Those in folders below are left out.
///
/// # Errors
/// The folder cannot be read.
pub fn handlers(folder: &Path) -> io::Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    for entry in fs::read_dir(folder)? {
        let file = entry?.path();
        let is_handler = file.extension().is_some_and(|it| it == "wasm" || it == "wat");
        if is_handler && file.is_file() {
            files.push(file);
        }
    }
    Ok(files)
}

/// The paths of handlers, sorted. A path is `prefix` with the name of the file, without its ending.
///
/// # Errors
/// A file has a name that no path can have, or two files have the same path. The text says which.
pub fn of_handlers(prefix: &str, files: &[PathBuf]) -> Result<Vec<String>, String> {
    let path = |file: &PathBuf| {
        let stem = file.file_stem().and_then(|stem| stem.to_str());
        let stem = stem.filter(|stem| !stem.contains(['?', '#', '%']));
        let bad = || format!("rename {}: no path can have this name", file.display());
        let path = format!("{prefix}{}", stem.ok_or_else(bad)?);
        check(&path).map_err(|reason| format!("{}: {reason}", file.display()))?;
        Ok(path)
    };
    let mut paths = files.iter().map(path).collect::<Result<Vec<_>, String>>()?;
    paths.sort();
    match paths.windows(2).find(|pair| pair[0] == pair[1]) {
        Some(pair) => Err(format!("there are a .wasm and a .wat file for {}", pair[0])),
        None => Ok(paths),
    }
}

/// The handler's file if it is WebAssembly as text. `path` ends in the handler's name.
pub fn text_of(folder: &Path, path: &str) -> Option<PathBuf> {
    Some(file_of(folder, path, "wat")).filter(|file| file.is_file())
}

fn file_of(folder: &Path, path: &str, ending: &str) -> PathBuf {
    let stem = path.rsplit('/').next().unwrap_or(path);
    folder.join(format!("{stem}.{ending}"))
}

/// The body that a handler must answer: the contents of the custom section `answer` of its file.
/// `path` ends in the handler's name.
///
/// # Errors
/// The file cannot be read, is no module, or has no such section.
pub fn answer(folder: &Path, path: &str) -> Result<Vec<u8>, String> {
    let file = file_of(folder, path, "wasm");
    let shown = file.display();
    let module = fs::read(&file).map_err(|error| format!("cannot read {shown}: {error}"))?;
    for payload in wasmparser::Parser::new(0).parse_all(&module) {
        match payload.map_err(|error| format!("{shown} is no module: {error}"))? {
            Payload::CustomSection(section) if section.name() == "answer" => {
                return Ok(section.data().to_vec());
            }
            _ => {}
        }
    }
    Err(format!("{shown} does not say what it answers"))
}

#[cfg(test)]
mod tests;

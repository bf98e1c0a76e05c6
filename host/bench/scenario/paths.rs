//! Paths that are asked for: how one line stands for many, and what a path may consist of.
//!
//! Knows nothing of how they are drawn.

use std::fs;
use std::io;
use std::path::Path;

use wasmparser::Payload;

/// How many paths one request may be drawn from.
pub const PATHS_MAX: usize = 200_000;

/// All paths that a line stands for. `{07..12}` is each number from the first to the last, as wide
/// as the first is written; several of them are combined, the last changing fastest.
///
/// # Errors
/// Why it is not a path, to be put behind the key.
pub fn expand(line: &str) -> Result<Vec<String>, String> {
    let paths = expand_ranges(line)?;
    paths.iter().try_for_each(|path| check(path))?;
    Ok(paths)
}

/// All texts that one with ranges stands for.
///
/// # Errors
/// What is in braces is no range, or they are too many.
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

/// # Errors
/// Why this cannot be asked for.
pub fn check(path: &str) -> Result<(), String> {
    if !path.starts_with('/') {
        return Err(format!("{path:?} does not begin with /"));
    }
    if !path.bytes().all(|byte| byte.is_ascii_graphic()) {
        return Err(format!("{path:?} has a character that has to be percent-encoded"));
    }
    Ok(())
}

/// One path on each line; lines that are empty or begin with `#` are none.
///
/// # Errors
/// A line that is no path, with its number.
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

/// The handlers in a folder, not below it, as the paths that they answer.
///
/// # Errors
/// The folder cannot be read.
pub fn handlers(folder: &Path, prefix: &str) -> io::Result<Vec<String>> {
    let mut paths = Vec::new();
    for entry in fs::read_dir(folder)? {
        let file = entry?.path();
        let is_handler = file.extension().is_some_and(|it| it == "wasm" || it == "wat");
        if let Some(stem) = file.file_stem().and_then(|stem| stem.to_str()).filter(|_| is_handler) {
            paths.push(format!("{prefix}{stem}"));
        }
    }
    paths.sort();
    Ok(paths)
}

/// What a handler says that it answers: the contents of its custom section `answer`. `path` ends in
/// the handler's name.
///
/// # Errors
/// The file cannot be read, or says nothing of it.
pub fn answer(folder: &Path, path: &str) -> Result<Vec<u8>, String> {
    let stem = path.rsplit('/').next().unwrap_or(path);
    let file = folder.join(format!("{stem}.wasm"));
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

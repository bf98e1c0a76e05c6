//! Modules and components that are written as text.
//!
//! Owns what is said of a text that is none.

#[cfg(test)]
mod tests;

use super::imports::Escape;

/// A text module as a binary one.
///
/// # Errors
/// What is wrong, and in which line and column.
pub fn binary(text: &[u8], escape: Escape) -> Result<Vec<u8>, String> {
    let parsed = wat::parse_bytes(text).map(std::borrow::Cow::into_owned);
    parsed.map_err(|error| not_text(&error, escape))
}

/// A parser's error as one line.
fn not_text(error: &wat::Error, escape: Escape) -> String {
    let shown = error.to_string();
    let mut lines = shown.lines();
    let what = escape(lines.next().unwrap_or_default().as_bytes(), 200);
    let place = lines.find_map(|line| line.trim().strip_prefix("--> ")).unwrap_or_default();
    // The parser writes `<anon>:LINE:COLUMN`.
    let mut numbers = place.rsplit(':');
    match (numbers.next(), numbers.next()) {
        (Some(column), Some(line)) => {
            format!("not valid WebAssembly text: {what} in line {line}, column {column}")
        }
        _ => format!("not valid WebAssembly text: {what}"),
    }
}

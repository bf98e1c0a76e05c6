//! Converts modules and components from the text format (`.wat`) to the binary format.
//!
//! Owns the error for a text that is not valid.

#[cfg(test)]
mod tests;

use super::imports::Escape;

/// Converts a text module or component to a binary. `escape` is applied to the parser's message.
///
/// # Errors
/// A sentence that says what is wrong, and in which line and column.
pub fn binary(text: &[u8], escape: Escape) -> Result<Vec<u8>, String> {
    let parsed = wat::parse_bytes(text).map(std::borrow::Cow::into_owned);
    parsed.map_err(|error| not_text(&error, escape))
}

/// The parser's error as one line.
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

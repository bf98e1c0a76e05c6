//! Escapes untrusted text so that it can be shown on one line of a log or a terminal.
//!
//! Knows neither where the text comes from nor where it is shown.

#[cfg(test)]
mod tests;

use std::fmt::Write as _;

/// The longest UTF-8 encoding of one character, in bytes.
const CHAR_BYTES_MAX: usize = 4;

/// Escapes `text` for one line of a log or a terminal, in at most `bytes_max` bytes. Input that
/// does not fit is cut, and the note `…(N more bytes)` is added, which `bytes_max` does not count.
///
/// Line breaks, control characters, marks that change the direction of writing and invalid UTF-8
/// are written as `\n`, `\x1b`, `\u{202e}` or `\xff`. A backslash is written as two.
pub fn escape(text: &[u8], bytes_max: usize) -> String {
    let mut line = String::with_capacity(text.len().min(bytes_max));
    let mut done = 0;
    // Each input byte becomes at least one output byte, so nothing after `bytes_max` can fit. The
    // extra bytes keep the last character that may fit in one piece.
    let seen = text.get(..bytes_max + CHAR_BYTES_MAX).unwrap_or(text);
    for chunk in seen.utf8_chunks() {
        for c in chunk.valid().chars() {
            let start = line.len();
            push(&mut line, c);
            if line.len() > bytes_max {
                line.truncate(start);
                return cut(line, text.len() - done);
            }
            done += c.len_utf8();
        }
        for byte in chunk.invalid() {
            if line.len() + r"\xff".len() > bytes_max {
                return cut(line, text.len() - done);
            }
            push_hex(&mut line, *byte);
            done += 1;
        }
    }
    line
}

fn push(line: &mut String, c: char) {
    match c {
        '\\' => line.push_str(r"\\"),
        '\n' => line.push_str(r"\n"),
        '\r' => line.push_str(r"\r"),
        '\t' => line.push_str(r"\t"),
        '\0'..='\x1f' | '\x7f' => push_hex(line, c as u8),
        // C1 controls; line and paragraph separators; directional marks, embeddings, overrides
        // and isolates, which can make a line read as another (CVE-2021-42574).
        '\u{80}'..='\u{9f}'
        | '\u{61c}'
        | '\u{200e}'
        | '\u{200f}'
        | '\u{2028}'..='\u{202e}'
        | '\u{2066}'..='\u{2069}' => line.extend(c.escape_unicode()),
        _ => line.push(c),
    }
}

fn push_hex(line: &mut String, byte: u8) {
    write!(line, r"\x{byte:02x}").expect("writing to a String cannot fail");
}

fn cut(mut line: String, bytes_left: usize) -> String {
    write!(line, "…({bytes_left} more bytes)").expect("writing to a String cannot fail");
    line
}

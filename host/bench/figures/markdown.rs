//! The parts of Markdown that tables need: which lines of a document are code, and cells.
//!
//! Knows CommonMark's code blocks and the tables of GitHub. Knows no figure.

use std::ops::Range;

/// A line that is indented further is code, or belongs to a list.
const INDENT_MAX: usize = 3;
const FENCE_MIN: usize = 3;

/// A line of a document.
pub struct Line<'a> {
    /// Its bytes in the document, with its end.
    pub bytes: Range<usize>,
    /// Its text without spaces around it.
    pub text: &'a str,
    /// How it ends.
    pub end: &'a str,
}

/// The lines of a document that are not in a code block, neither fenced nor indented.
pub fn lines_outside_code(document: &str) -> Vec<Line<'_>> {
    let (mut lines, mut open) = (Vec::new(), None::<Fence>);
    let mut at = 0;
    for whole in document.split_inclusive('\n') {
        let bytes = at..at + whole.len();
        at = bytes.end;
        let line = whole.strip_suffix('\n').unwrap_or(whole);
        let line = line.strip_suffix('\r').unwrap_or(line);
        match &open {
            Some(fence) if fence.is_closed_by(line) => open = None,
            Some(_) => {}
            None => {
                open = Fence::opened_by(line);
                let indent = line.len() - line.trim_start().len();
                let is_code = indent > INDENT_MAX || line.starts_with('\t');
                if open.is_none() && !is_code {
                    lines.push(Line { bytes, text: line.trim(), end: &whole[line.len()..] });
                }
            }
        }
    }
    lines
}

/// The line that opens a fenced code block.
struct Fence {
    mark: char,
    length: usize,
    indent: usize,
}

impl Fence {
    /// The fence that a line opens. It may stand behind the marks of a list or of a quotation.
    fn opened_by(line: &str) -> Option<Self> {
        let inner = inside_containers(line);
        let mark = inner.chars().next().filter(|it| matches!(it, '`' | '~'))?;
        let info = inner.trim_start_matches(mark);
        let length = inner.len() - info.len();
        let is_inline = mark == '`' && info.contains(mark);
        let indent = line.len() - inner.len();
        (length >= FENCE_MIN && !is_inline).then_some(Self { mark, length, indent })
    }

    fn is_closed_by(&self, line: &str) -> bool {
        let inner = line.trim_start_matches([' ', '>']);
        let rest = inner.trim_start_matches(self.mark);
        let is_long = inner.len() - rest.len() >= self.length;
        let indent = line.len() - inner.len();
        is_long && rest.trim().is_empty() && indent <= self.indent + INDENT_MAX
    }
}

/// A line without the marks of the quotations and list items that it begins with. If a part of it
/// is indented too far to be anything but code, nothing is left.
fn inside_containers(line: &str) -> &str {
    let mut rest = line;
    loop {
        let text = rest.trim_start_matches(' ');
        if rest.len() - text.len() > INDENT_MAX {
            return "";
        }
        let digits = text.trim_start_matches(|it: char| it.is_ascii_digit());
        let number = text.len() - digits.len();
        let behind = match text.strip_prefix('>') {
            Some(behind) => Some(behind.strip_prefix(' ').unwrap_or(behind)),
            None if (1..=9).contains(&number) => {
                digits.strip_prefix(". ").or_else(|| digits.strip_prefix(") "))
            }
            None => ["- ", "* ", "+ "].iter().find_map(|mark| text.strip_prefix(mark)),
        };
        match behind {
            Some(behind) => rest = behind,
            None => return text,
        }
    }
}

/// A line of a table.
pub fn row<T: AsRef<str>>(cells: impl IntoIterator<Item = T>) -> String {
    let cells: Vec<String> = cells.into_iter().map(|text| cell(text.as_ref())).collect();
    format!("| {} |", cells.join(" | "))
}

/// Markdown for a cell. It has no line breaks, and a bar in it is escaped, which counts in code,
/// too.
fn cell(text: &str) -> String {
    let mut cell = String::with_capacity(text.len());
    let mut is_escaped = false;
    for c in text.split_whitespace().collect::<Vec<_>>().join(" ").chars() {
        if c == '|' && !is_escaped {
            cell.push('\\');
        }
        is_escaped = c == '\\' && !is_escaped;
        cell.push(c);
    }
    cell
}

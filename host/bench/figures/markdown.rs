//! The parts of Markdown that tables need: which lines of a document are code, and cells.
//!
//! Knows CommonMark's code blocks and comments, and the tables of GitHub. Knows no figure.

use std::ops::Range;

/// A line that is indented further is code, or belongs to a list.
const INDENT_MAX: usize = 3;
const FENCE_MIN: usize = 3;
const COMMENT: &str = "<!--";
const COMMENT_END: &str = "-->";
/// Some editors begin a file with it.
const BYTE_ORDER: char = '\u{feff}';

/// A line of a document.
pub struct Line<'a> {
    /// Its bytes in the document, with its end.
    pub bytes: Range<usize>,
    /// Its text without spaces around it.
    pub text: &'a str,
    /// How it ends.
    pub end: &'a str,
}

/// The lines of a document that are neither in a code block, fenced or indented, nor in a comment
/// of several lines.
pub fn lines_outside_code(document: &str) -> Vec<Line<'_>> {
    let (mut lines, mut open) = (Vec::new(), None::<Block>);
    let mut at = 0;
    for whole in document.split_inclusive('\n') {
        let bytes = at..at + whole.len();
        at = bytes.end;
        let line = whole.strip_suffix('\n').unwrap_or(whole);
        let line = line.strip_suffix('\r').unwrap_or(line);
        let end = &whole[line.len()..];
        let line = if bytes.start == 0 { line.trim_start_matches(BYTE_ORDER) } else { line };
        match open.as_ref().map_or(Place::Outside, |it| it.place(line)) {
            Place::Inside => continue,
            Place::Last => {
                open = None;
                continue;
            }
            Place::Outside => open = Block::opened_by(line),
        }
        let indent = line.len() - line.trim_start().len();
        let is_code = indent > INDENT_MAX || line.starts_with('\t');
        if open.is_none() && !is_code {
            lines.push(Line { bytes, text: line.trim(), end });
        }
    }
    lines
}

/// A fenced code block or a comment, whose first line was read.
struct Block {
    /// The outermost stands first. The block ends with any of them.
    containers: Vec<Container>,
    kind: BlockKind,
}

enum BlockKind {
    Fence { mark: char, length: usize, indent: usize },
    Comment,
}

enum Container {
    Quotation,
    /// An item of a list. Its lines are indented by so many bytes.
    Item(usize),
}

/// Where a line is, seen from an open block.
enum Place {
    Inside,
    /// It ends the block.
    Last,
    /// The block has ended before it.
    Outside,
}

impl Block {
    /// The block that a line opens. It may stand behind the marks of a list or of a quotation.
    fn opened_by(line: &str) -> Option<Self> {
        let (containers, indent, inner) = inside_containers(line);
        if inner.starts_with(COMMENT) && !inner.contains(COMMENT_END) {
            return Some(Self { containers, kind: BlockKind::Comment });
        }
        let mark = inner.chars().next().filter(|it| matches!(it, '`' | '~'))?;
        let info = inner.trim_start_matches(mark);
        let length = inner.len() - info.len();
        let is_inline = mark == '`' && info.contains(mark);
        let kind = BlockKind::Fence { mark, length, indent };
        (length >= FENCE_MIN && !is_inline).then_some(Self { containers, kind })
    }

    fn place(&self, line: &str) -> Place {
        let inner = self.containers.iter().try_fold(line, |line, it| it.inside(line));
        let Some(inner) = inner else { return Place::Outside };
        let is_last = match self.kind {
            BlockKind::Comment => inner.contains(COMMENT_END),
            BlockKind::Fence { mark, length, indent } => {
                let text = inner.trim_start_matches(' ');
                let rest = text.trim_start_matches(mark);
                let is_long = text.len() - rest.len() >= length;
                let is_near = inner.len() - text.len() <= indent + INDENT_MAX;
                is_long && is_near && rest.trim().is_empty()
            }
        };
        if is_last { Place::Last } else { Place::Inside }
    }
}

impl Container {
    /// What a line has inside of the container. `None` if it is outside.
    fn inside<'a>(&self, line: &'a str) -> Option<&'a str> {
        let text = line.trim_start_matches(' ');
        let indent = line.len() - text.len();
        match self {
            Self::Quotation if indent > INDENT_MAX => None,
            Self::Quotation => text.strip_prefix('>').map(|it| it.strip_prefix(' ').unwrap_or(it)),
            Self::Item(_) if text.trim().is_empty() => Some(""),
            Self::Item(width) if indent >= *width => Some(&line[*width..]),
            Self::Item(_) => line.strip_prefix('\t'),
        }
    }
}

/// The quotations and list items that a line begins, how far its text in them is indented, and the
/// text. If a part of it is indented too far to be anything but code, no text is left.
fn inside_containers(line: &str) -> (Vec<Container>, usize, &str) {
    let (mut containers, mut rest) = (Vec::new(), line);
    loop {
        let text = rest.trim_start_matches(' ');
        let indent = rest.len() - text.len();
        if indent > INDENT_MAX {
            return (containers, 0, "");
        }
        if let Some(behind) = text.strip_prefix('>') {
            containers.push(Container::Quotation);
            rest = behind.strip_prefix(' ').unwrap_or(behind);
            continue;
        }
        let digits = text.trim_start_matches(|it: char| it.is_ascii_digit());
        let behind = if (1..=9).contains(&(text.len() - digits.len())) {
            digits.strip_prefix(". ").or_else(|| digits.strip_prefix(") "))
        } else {
            ["- ", "* ", "+ "].iter().find_map(|mark| text.strip_prefix(mark))
        };
        let Some(behind) = behind else { return (containers, indent, text) };
        let inner = behind.trim_start_matches(' ');
        let is_code = behind.len() - inner.len() > INDENT_MAX;
        let inner = if is_code { behind } else { inner };
        containers.push(Container::Item(rest.len() - inner.len()));
        rest = inner;
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

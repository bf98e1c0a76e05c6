//! Makes text for a terminal of a run.
//!
//! Owns the layout. A first table has the medians, with one line for each row, so that a column can
//! be read down. A second table has their spread.

use super::clean::{clean, command_line};
use super::column::{Cell, Column, columns};
use super::notes::{LATENCY_NOTE, method, notes};
use crate::run::{CaseRun, Run};

const WIDTH: usize = 100;
/// If a name is longer, each name gets a line of its own.
const NAME_MAX: usize = 30;
const GAP: usize = 2;

/// The text, for a terminal of 100 columns.
pub fn text(run: &Run) -> String {
    let mut text = format!("{}\n", clean(&run.title));
    if run.interrupted {
        text += "INTERRUPTED: ended before its time. What follows is what there was until then.\n";
    }
    for case in &run.cases {
        text += &format!("\n{}", case_text(case));
    }
    text += "\n";
    for skipped in &run.skipped {
        let (name, reason) = (clean(&skipped.name), clean(&skipped.reason));
        text += &paragraph(&format!("skipped: {name}: {reason}"));
    }
    text += &paragraph(LATENCY_NOTE);
    for (title, fact) in &run.about {
        text += &paragraph(&format!("{}: {}", clean(title), clean(fact)));
    }
    let started_at = clean(&run.started_at);
    text += &format!("started {started_at}, seed {}\n", run.seed);
    text += &format!("$ {}\n", command_line(&run.command));
    text
}

fn case_text(case: &CaseRun) -> String {
    let name = clean(&case.name);
    let rule = "─".repeat(WIDTH.saturating_sub(name.chars().count() + 4));
    let mut text = format!("── {name} {rule}\n");
    let settings = clean(&case.settings);
    if !settings.is_empty() {
        text += &paragraph(&settings);
    }
    text += &paragraph(&method(case));
    let columns = columns(case, false);
    let names: Vec<String> = case.rows.iter().map(|row| clean(&row.name)).collect();
    if !columns.is_empty() {
        text += &format!("\n{}", blocks(&names, &columns, |cell| cell.text.clone()));
    }
    let spreads: Vec<&Column> = columns.iter().filter(|it| has_range(it)).collect();
    if !spreads.is_empty() {
        text += "\nmin..max of the rounds\n";
        text += &blocks(&names, spreads, |cell| match &cell.range {
            Some((min, max)) => format!("{min}..{max}"),
            None => String::new(),
        });
    }
    let notes = notes(case);
    if !notes.is_empty() {
        text += "\n";
        text += &notes.iter().map(|note| paragraph(note)).collect::<String>();
    }
    text
}

fn has_range(column: &Column) -> bool {
    column.cells.iter().flatten().any(|cell| cell.range.is_some())
}

/// The columns side by side if they fit. Else the columns of latency stand below the others.
fn blocks<'a>(
    names: &[String],
    columns: impl IntoIterator<Item = &'a Column>,
    show: impl Fn(&Cell) -> String,
) -> String {
    let longest = names.iter().map(|name| name.chars().count()).max().unwrap_or(0);
    let lead = if longest > NAME_MAX { 0 } else { longest };
    let columns: Vec<(bool, Lines)> =
        columns.into_iter().map(|it| (it.is_latency, Lines::new(it, &show))).collect();
    let width: usize = columns.iter().map(|(_, lines)| GAP + lines.width).sum();
    let (latencies, others): (Vec<_>, Vec<_>) =
        columns.into_iter().partition(|(is_latency, _)| *is_latency && lead + width > WIDTH);
    let mut texts = Vec::new();
    for group in [others, latencies] {
        let mut lines = group.into_iter().map(|(_, lines)| lines).collect::<Vec<_>>();
        for count in even(&lines.iter().map(|it| GAP + it.width).collect::<Vec<_>>(), WIDTH - lead)
        {
            let rest = lines.split_off(count);
            texts.push(block_text(names, lead, &lines));
            lines = rest;
        }
    }
    texts.join("\n")
}

/// How many columns go into each block. There are as few blocks as possible, and the columns are
/// spread evenly over them.
fn even(widths: &[usize], room: usize) -> Vec<usize> {
    let least = fitting(widths, room);
    let mut tries = (0..room).map(|room| fitting(widths, room));
    tries.find(|counts| counts.len() == least.len()).unwrap_or(least)
}

/// Fills one block after the other with as many columns as fit, and at least one.
fn fitting(widths: &[usize], room: usize) -> Vec<usize> {
    let mut counts = Vec::new();
    let mut used = room;
    for width in widths {
        match counts.last_mut().filter(|_| used + width <= room) {
            Some(count) => *count += 1,
            None => {
                counts.push(1);
                used = 0;
            }
        }
        used += width;
    }
    counts
}

fn block_text(names: &[String], lead: usize, block: &[Lines]) -> String {
    let line = |name: &str, at: usize| {
        let cells = block.iter().map(|it| format!("{:>1$}", it.lines[at], GAP + it.width));
        let line = format!("{name:lead$}{}", cells.collect::<String>());
        format!("{}\n", line.trim_end())
    };
    let has_units = block.iter().any(|it| !it.lines[1].is_empty());
    let mut text = line("", 0);
    if has_units {
        text += &line("", 1);
    }
    for (at, name) in names.iter().enumerate() {
        if lead == 0 {
            text += &format!("{name}\n{}", line("", at + HEAD));
        } else {
            text += &line(name, at + HEAD);
        }
    }
    text
}

/// How many lines the head has: the title, and the unit.
const HEAD: usize = 2;

/// A column as lines of text, the head first.
struct Lines {
    lines: Vec<String>,
    width: usize,
}

impl Lines {
    fn new(column: &Column, show: impl Fn(&Cell) -> String) -> Self {
        let (title, unit) = column.title.rsplit_once(' ').unwrap_or((&column.title, ""));
        let mut lines = vec![title.to_owned(), unit.to_owned()];
        let missing = || "-".to_owned();
        lines.extend(column.cells.iter().map(|cell| cell.as_ref().map_or_else(missing, &show)));
        let width = lines.iter().map(|line| line.chars().count()).max().unwrap_or(0);
        Lines { lines, width }
    }
}

/// Breaks a text into lines that fit the terminal. All but the first are indented.
fn paragraph(text: &str) -> String {
    let mut lines = String::new();
    let mut width = 0;
    for word in text.split_whitespace() {
        let length = word.chars().count();
        if width > 0 && width + 1 + length > WIDTH {
            lines += "\n    ";
            width = 4;
        } else if width > 0 {
            lines += " ";
            width += 1;
        }
        lines += word;
        width += length;
    }
    lines + "\n"
}

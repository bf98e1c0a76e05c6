//! Draws tables in Markdown, and puts them into documents.
//!
//! A table stands between a line `<!-- table NAME -->` and the next line `<!-- end -->`. In code
//! blocks, and in comments of several lines, these lines do not count.

use std::path::{Component, Path, PathBuf};

use anyhow::{Context as _, Result, bail};

use super::format::Grid;
use super::markdown::{lines_outside_code, row};
use super::raw::Raw;
use super::value::{Measured, Verdict, combine, text};
use crate::statistics;

const BEGIN: &str = "<!-- table ";
const END: &str = "<!-- end -->";
/// The text of a cell without a number.
const NOTHING: &str = "-";

/// Replaces the table called `name` in the text of a document. Lines end like its first marker.
///
/// # Errors
/// The document lacks the markers of that table. Those in a code block are not meant.
pub fn put(document: &str, name: &str, table: &str) -> Result<String> {
    let begin = format!("{BEGIN}{name} -->");
    let lines = lines_outside_code(document);
    let named = || format!("there is no line `{begin}` with a line `{END}` below, outside of code");
    let first = lines.iter().position(|line| line.text == begin).with_context(named)?;
    let rest = &lines[first + 1..];
    let length = rest.iter().position(|line| line.text == END).with_context(named)?;
    let is_twice = rest.iter().any(|line| line.text == begin);
    if is_twice || rest[..length].iter().any(|line| line.text.starts_with(BEGIN)) {
        bail!("the line `{begin}` stands there twice, or has no `{END}` of its own");
    }
    let table = format!("\n{table}\n").replace('\n', lines[first].end);
    let (before, behind) = (lines[first].bytes.end, rest[length].bytes.start);
    Ok(format!("{}{table}{}", &document[..before], &document[behind..]))
}

/// The number and the name of the first table in a document that is not among `names`.
pub fn unknown<'a>(document: &'a str, names: &[&String]) -> Option<(usize, &'a str)> {
    lines_outside_code(document).into_iter().find_map(|line| {
        let name = line.text.strip_prefix(BEGIN)?.strip_suffix(" -->")?;
        let number = document[..line.bytes.start].matches('\n').count() + 1;
        (!names.iter().any(|it| *it == name)).then_some((number, name))
    })
}

/// A table of figures, one on each line. `document` is the path of the document that gets the
/// table, and `folder` the folder of the figures file.
pub fn of_figures(figures: &[Measured], document: &Path, folder: &Path) -> String {
    let titles = ["figure", "measured", "lowest to highest round", "target", "run"];
    let mut lines = vec![row(titles), rule(titles.len())];
    for figure in figures {
        let Measured { title, value, spread, target, .. } = figure;
        let value = match &figure.verdict {
            Verdict::Failed(reason) => format!("failed: {reason}"),
            Verdict::Missed => format!("**{value}**, misses its target"),
            Verdict::Met | Verdict::NoTarget | Verdict::NotMeasured => value.clone(),
        };
        let run = link(&figure.run, document, folder);
        lines.push(row([title, &value, spread, target, &run]));
    }
    lines.join("\n") + "\n"
}

/// The line below the head of a table.
fn rule(columns: usize) -> String {
    format!("|{}", "---|".repeat(columns))
}

/// A link from the document to the folder of a run. Its text is the run's path below `runs`.
fn link(run: &str, document: &Path, folder: &Path) -> String {
    if run.is_empty() {
        return String::new();
    }
    let name = run.strip_prefix("runs/").unwrap_or(run);
    let mut to = PathBuf::new();
    // The run may be missing, so the file system cannot say where it is.
    for part in real(folder).join(run).components() {
        match part {
            Component::ParentDir => _ = to.pop(),
            part => to.push(part),
        }
    }
    let from = real(document);
    let shared = from.components().zip(to.components()).take_while(|(from, to)| from == to).count();
    let up = "../".repeat(from.components().count().saturating_sub(shared + 1));
    let down: PathBuf = to.components().skip(shared).collect();
    format!("[{name}]({up}{})", down.display())
}

/// The path of a file or folder from the root, without links. Two names of one have the same path.
pub fn real(path: &Path) -> PathBuf {
    let path = Path::new(".").join(path);
    path.canonicalize().unwrap_or(path)
}

/// A table of one run: its rows by some quantities, and a line that names the run. `run` is the
/// run's folder, or empty if none is named. `raw` has the run's numbers, if there are any.
/// `document` and `folder` are as for [`of_figures`].
pub fn of_grid(
    grid: &Grid,
    run: &str,
    raw: Option<&Raw>,
    document: &Path,
    folder: &Path,
) -> String {
    let titles = [&grid.corner].into_iter().chain(grid.columns.iter().map(|it| &it.title));
    let mut lines = vec![row(titles), rule(grid.columns.len() + 1)];
    for of in &grid.rows {
        let mut cells = vec![of.title.clone()];
        for column in &grid.columns {
            let values = raw.map(|raw| {
                let quantity = |side: &str| raw.quantity(&column.case, side, &column.quantity);
                match &column.to {
                    Some(to) => {
                        combine(&quantity(&of.side), &quantity(to), |value, base| value / base)
                    }
                    None => quantity(&of.side),
                }
            });
            let values = values.unwrap_or_default().into_values().map(|it| it * column.scale);
            let cell = statistics::spread(values);
            let cell = cell.map(|it| text(it.median, column.digits, &column.unit));
            cells.push(cell.unwrap_or_else(|| NOTHING.to_owned()));
        }
        lines.push(row(cells));
    }
    let run = if run.is_empty() { NOTHING.to_owned() } else { link(run, document, folder) };
    lines.join("\n") + &format!("\n\nRun: {run}\n")
}

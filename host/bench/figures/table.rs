//! Draws tables in Markdown, and puts them into documents.
//!
//! A table stands between a line `<!-- table NAME -->` and the next `<!-- end -->`.

use std::path::Path;

use anyhow::{Context as _, Result, bail};

use super::format::Grid;
use super::raw::Raw;
use super::value::{Measured, Verdict, combine, text};
use crate::statistics;

const BEGIN: &str = "<!-- table ";
const END: &str = "<!-- end -->";
/// The text of a cell without a number.
const NOTHING: &str = "-";

/// Replaces the table called `name` in the text of a document.
///
/// # Errors
/// The document lacks the markers of that table.
pub fn put(document: &str, name: &str, table: &str) -> Result<String> {
    let begin = format!("{BEGIN}{name} -->\n");
    let named = || format!("there is no line `{}` with a line `{END}` below", begin.trim_end());
    let at = document.find(&begin).with_context(named)? + begin.len();
    let end = at + document[at..].find(END).with_context(named)?;
    let is_twice = document[at..].contains(&begin);
    if is_twice || document[at..end].contains(BEGIN) {
        bail!("the line `{}` stands there twice, or has no `{END}` of its own", begin.trim_end());
    }
    Ok(format!("{}\n{table}\n{}", &document[..at], &document[end..]))
}

/// A table of figures, one on each line. `document` is the path of the document that gets the
/// table, and `folder` the folder of the figures file.
pub fn of_figures(figures: &[Measured], document: &Path, folder: &Path) -> String {
    let mut lines = vec![
        "| figure | measured | lowest to highest round | target | run |".to_owned(),
        "|---|---|---|---|---|".to_owned(),
    ];
    for figure in figures {
        let Measured { title, value, spread, target, .. } = figure;
        let value = match &figure.verdict {
            Verdict::Failed(reason) => format!("failed: {reason}"),
            Verdict::Missed => format!("**{value}**, misses its target"),
            Verdict::Met | Verdict::NoTarget | Verdict::NotMeasured => value.clone(),
        };
        let run = link(&figure.run, document, folder);
        lines.push(format!("| {title} | {value} | {spread} | {target} | {run} |"));
    }
    lines.join("\n") + "\n"
}

/// A link from the document to the folder of a run. Its text is the run's path below `runs`.
fn link(run: &str, document: &Path, folder: &Path) -> String {
    let name = run.strip_prefix("runs/").unwrap_or(run);
    if run.is_empty() {
        return String::new();
    }
    let below = document.strip_prefix(folder).unwrap_or(document);
    let Ok(below) = below.strip_prefix("..") else { return format!("[{name}]({run})") };
    // From each folder of the document up, and down into that of the figures.
    let up = "../".repeat(below.components().count().saturating_sub(1));
    let own = folder.file_name().unwrap_or_default().to_string_lossy();
    format!("[{name}]({up}{own}/{run})")
}

/// A table of one run: its rows by some quantities. `raw` has the run's numbers, if there are any.
pub fn of_grid(grid: &Grid, raw: Option<&Raw>) -> String {
    let titles: Vec<&str> = grid.columns.iter().map(|it| &it.title[..]).collect();
    let mut lines = vec![
        format!("| {} | {} |", grid.corner, titles.join(" | ")),
        format!("|---|{}", "---|".repeat(titles.len())),
    ];
    for row in &grid.rows {
        let mut cells = vec![row.title.clone()];
        for column in &grid.columns {
            let values = raw.map(|raw| {
                let of = |side: &str| raw.quantity(&column.case, side, &column.quantity);
                match &column.to {
                    Some(to) => combine(&of(&row.side), &of(to), |value, base| value / base),
                    None => of(&row.side),
                }
            });
            let values = values.unwrap_or_default().into_values().map(|it| it * column.scale);
            let cell = statistics::spread(values);
            let cell = cell.map(|it| text(it.median, column.digits, &column.unit));
            cells.push(cell.unwrap_or_else(|| NOTHING.to_owned()));
        }
        lines.push(format!("| {} |", cells.join(" | ")));
    }
    lines.join("\n") + "\n"
}

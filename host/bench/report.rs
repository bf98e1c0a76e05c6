//! What is told of a run: text for a terminal, JSON, a page, and the raw numbers.
//!
//! Owns which columns a case has, what is compared with its first row, and that no text of a run
//! reaches a terminal or a file as anything but text. Knows nothing of how a number was measured.

use super::statistics::{self, Spread};
use super::{CaseRun, Errors, Quantity, Row, Run};

mod html;
mod json;
mod markup;
mod plot;
mod table;

/// Columns in their order.
const SHOWN: [Quantity; 21] = [
    Quantity::ReqPerS,
    Quantity::MbPerS,
    Quantity::LoadMaxPerS,
    Quantity::LoadMaxOfCapacity,
    Quantity::StartMs,
    Quantity::DropMs,
    Quantity::NeverUsedBytes,
    Quantity::UsedOnceBytes,
    Quantity::RateReached,
    Quantity::P50Us,
    Quantity::P90Us,
    Quantity::P99Us,
    Quantity::P999Us,
    Quantity::P9999Us,
    Quantity::P99999Us,
    Quantity::MaxUs,
    Quantity::CpuUsPerReq,
    Quantity::CpuUserUsPerReq,
    Quantity::CpuKernelUsPerReq,
    Quantity::RssPeakBytes,
    Quantity::ClientCpuUsPerReq,
];

/// What is left out where there is not much room.
const DETAILS: [Quantity; 3] =
    [Quantity::CpuUserUsPerReq, Quantity::CpuKernelUsPerReq, Quantity::ClientCpuUsPerReq];

/// What a case without requests a second is about.
const HEADLINES: [Quantity; 5] = [
    Quantity::LoadMaxPerS,
    Quantity::StartMs,
    Quantity::DropMs,
    Quantity::UsedOnceBytes,
    Quantity::NeverUsedBytes,
];

const LATENCY_NOTE: &str =
    "Latency counts from when a request was due, so that a stall is seen by all that waited in it.";

/// For a terminal of 100 columns.
pub fn text(run: &Run) -> String {
    table::text(run)
}

/// All of it, as documented in the file `report/json.rs`.
pub fn json(run: &Run) -> serde_json::Value {
    json::json(run)
}

/// One file that needs no other.
pub fn html(run: &Run) -> String {
    html::html(run)
}

/// Every number of every round, one in a line; and of each round the errors of each kind.
pub fn csv(run: &Run) -> String {
    let mut text = String::from("case,row,round,position,quantity,value\n");
    for case in &run.cases {
        for row in &case.rows {
            for reading in &row.rounds {
                let (name, row) = (field(&case.name), field(&row.name));
                let lead = format!("{name},{row},{},{}", reading.round, reading.position);
                let finite = reading.values.iter().filter(|(_, value)| value.is_finite());
                for (quantity, value) in finite {
                    text += &format!("{lead},{},{value}\n", quantity.key());
                }
                for (kind, count) in reading.errors.kinds() {
                    text += &format!("{lead},errors_{kind},{count}\n");
                }
            }
        }
    }
    text
}

/// A field of a CSV line, quoted where RFC 4180 asks for it.
fn field(text: &str) -> String {
    let text = clean(text);
    if text.contains([',', '"']) { format!("\"{}\"", text.replace('"', "\"\"")) } else { text }
}

/// `text` without what would steer a terminal, break a line or turn the direction of writing.
fn clean(text: &str) -> String {
    let steers = |c: char| {
        let turns = matches!(c, '\u{61c}' | '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}');
        c.is_control() || turns || matches!(c, '\u{2066}'..='\u{2069}')
    };
    text.chars().map(|c| if steers(c) { char::REPLACEMENT_CHARACTER } else { c }).collect()
}

/// The command line for a shell.
fn command_line(words: &[String]) -> String {
    let quoted = |word: &String| {
        let is_plain = |c: char| c.is_ascii_alphanumeric() || "-_./:=@%+,".contains(c);
        if !word.is_empty() && word.chars().all(is_plain) {
            word.clone()
        } else {
            format!("'{}'", clean(word).replace('\'', r"'\''"))
        }
    };
    words.iter().map(quoted).collect::<Vec<_>>().join(" ")
}

/// A column of a case's table: what is not in a row is `None`.
struct Column {
    title: String,
    is_latency: bool,
    cells: Vec<Option<Cell>>,
}

struct Cell {
    /// The median, or what there is of a kind that has none.
    text: String,
    /// Least and greatest of the rounds, if there were several.
    range: Option<(String, String)>,
    /// Whether it tells of something that went wrong.
    is_bad: bool,
}

impl Cell {
    fn new(spread: Spread, format: impl Fn(f64) -> String) -> Self {
        let several = spread.rounds > 1;
        let range = several.then(|| (format(spread.min), format(spread.max)));
        Cell { text: format(spread.median), range, is_bad: false }
    }
}

/// The columns that at least one row has something in, the details among them or not.
fn columns(case: &CaseRun, detailed: bool) -> Vec<Column> {
    let mut columns = Vec::new();
    for quantity in SHOWN.into_iter().filter(|it| detailed || !DETAILS.contains(it)) {
        if quantity == Quantity::CpuUsPerReq {
            columns.push(errors_column(case));
        }
        columns.push(quantity_column(case, quantity));
    }
    columns.extend(compared(case).into_iter().map(|it| ratio_column(case, it)));
    columns.retain(|column| column.cells.iter().any(Option::is_some));
    columns
}

fn quantity_column(case: &CaseRun, quantity: Quantity) -> Column {
    let cell = |row| {
        let spread = statistics::quantity(row, quantity)?;
        Some(Cell::new(spread, |value| quantity.format(value)))
    };
    let is_latency = (Quantity::P50Us..=Quantity::MaxUs).contains(&quantity);
    let cells = case.rows.iter().map(cell).collect();
    Column { title: quantity.title().to_owned(), is_latency, cells }
}

fn errors_column(case: &CaseRun) -> Column {
    let cell = |row: &Row| {
        (!row.rounds.is_empty()).then(|| {
            let errors = statistics::errors(row);
            Cell { text: errors_text(&errors), range: None, is_bad: errors.total() > 0 }
        })
    };
    let cells = case.rows.iter().map(cell).collect();
    Column { title: "errors".to_owned(), is_latency: false, cells }
}

/// Those that there were, by kind.
fn errors_text(errors: &Errors) -> String {
    let kinds = errors.kinds().into_iter().filter(|(_, count)| *count > 0);
    let named: Vec<String> = kinds
        .map(|(kind, count)| format!("{} {kind}", statistics::thousands(count as f64)))
        .collect();
    if named.is_empty() { "0".to_owned() } else { named.join(", ") }
}

fn ratio_column(case: &CaseRun, quantity: Quantity) -> Column {
    let cell = |(at, row)| match at {
        0 => {
            let own = statistics::quantity(row, quantity);
            own.map(|_| Cell { text: "1".to_owned(), range: None, is_bad: false })
        }
        _ => ratio(case, row, quantity).map(|spread| Cell::new(spread, statistics::number)),
    };
    let cells = case.rows.iter().enumerate().map(cell).collect();
    Column { title: format!("{} ratio", stem(quantity)), is_latency: false, cells }
}

/// A title without its unit.
fn stem(quantity: Quantity) -> &'static str {
    quantity.title().rsplit_once(' ').map_or(quantity.title(), |(stem, _)| stem)
}

/// What is compared, in words.
fn words(quantity: Quantity) -> &'static str {
    match quantity {
        Quantity::ReqPerS => "requests per second",
        Quantity::CpuUsPerReq => "CPU time per request",
        Quantity::LoadMaxPerS => "highest load with a bounded slowdown",
        Quantity::StartMs => "time from start to first answer",
        Quantity::DropMs => "time from file drop to first answer",
        Quantity::NeverUsedBytes => "memory of a connection never used",
        Quantity::UsedOnceBytes => "memory of a connection used once",
        other => stem(other),
    }
}

/// The ratio of a row to the first one. That row has none, nor has a stream that runs beside
/// another: it sends other requests.
fn ratio(case: &CaseRun, row: &Row, quantity: Quantity) -> Option<Spread> {
    let first = case.rows.first()?;
    let is_other = !std::ptr::eq(first, row) && !row.beside;
    if is_other { statistics::ratio(row, first, quantity) } else { None }
}

/// What ratios are of: CPU time for each request. Requests a second stand in where a row's CPU
/// time is not known; and where there are none, what the case is about.
fn compared(case: &CaseRun) -> Vec<Quantity> {
    let (cpu, speed) = (Quantity::CpuUsPerReq, Quantity::ReqPerS);
    let has = |row: &Row, quantity| ratio(case, row, quantity).is_some();
    let any = |quantity: &Quantity| case.rows.iter().any(|row| has(row, *quantity));
    let speed_alone = case.rows.iter().any(|row| has(row, speed) && !has(row, cpu));
    let mut compared = Vec::new();
    if any(&cpu) {
        compared.push(cpu);
    }
    if speed_alone {
        compared.push(speed);
    }
    if compared.is_empty() {
        compared.extend(HEADLINES.into_iter().find(any));
    }
    compared
}

/// How the figures of a case are to be read.
fn method(case: &CaseRun) -> String {
    let rounds = case.rows.iter().map(|row| row.rounds.len()).max().unwrap_or(0);
    let mut text = match rounds {
        0 => "No round came to its end.".to_owned(),
        1 => "One round.".to_owned(),
        _ => format!("Medians of {rounds} rounds."),
    };
    let ratios: Vec<&str> = compared(case).into_iter().map(words).collect();
    if let Some(first) = case.rows.first().filter(|_| !ratios.is_empty()) {
        let within = if rounds > 1 { ", taken within each round" } else { "" };
        text += &format!(" Ratio: {}, to {}{within}.", ratios.join(", and "), clean(&first.name));
    }
    text
}

/// What the reader has to know of the rows of a case, a line for each thing.
fn notes(case: &CaseRun) -> Vec<String> {
    let rounds = case.rows.iter().map(|row| row.rounds.len()).max().unwrap_or(0);
    let mut notes = Vec::new();
    for row in &case.rows {
        let name = clean(&row.name);
        notes.extend(row.notes.iter().map(|note| format!("{name}: {}", clean(note))));
        if row.rounds.len() < rounds {
            notes.push(format!("{name}: {} of {rounds} rounds", row.rounds.len()));
        }
    }
    notes
}

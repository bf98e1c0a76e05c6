//! Chooses the columns of a case's table, and fills their cells.

use super::comparison::{compared, ratio, stem};
use crate::reading::{Errors, Quantity};
use crate::run::{CaseRun, Row};
use crate::statistics::{self, Spread};

/// The quantities that have a column, in the order of the columns.
const SHOWN: [Quantity; 23] = [
    Quantity::GoodputOfCapacity,
    Quantity::P99ToUnloaded,
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

/// The counts that have a column, each before the columns of load.
const COUNTS: [&str; 2] = ["refused", "swaps"];

/// The columns that a table with little room leaves out.
const DETAILS: [Quantity; 3] =
    [Quantity::CpuUserUsPerReq, Quantity::CpuKernelUsPerReq, Quantity::ClientCpuUsPerReq];

/// A column of a case's table.
pub struct Column {
    /// The head of the column. The word after its last space is the unit.
    pub title: String,
    /// Whether the column has latencies.
    pub is_latency: bool,
    /// A cell for each row of the case. `None` if the row has no such number.
    pub cells: Vec<Option<Cell>>,
}

/// A cell of a case's table.
pub struct Cell {
    /// The median of the rounds. For errors, their sums.
    pub text: String,
    /// The lowest and the highest round, if there were several.
    pub range: Option<(String, String)>,
    /// Whether it reports failures.
    pub is_bad: bool,
}

impl Cell {
    fn new(spread: Spread, format: impl Fn(f64) -> String) -> Self {
        let several = spread.rounds > 1;
        let range = several.then(|| (format(spread.min), format(spread.max)));
        Cell { text: format(spread.median), range, is_bad: false }
    }
}

/// The columns in which at least one row has a number. With `detailed`, the details are among them.
pub fn columns(case: &CaseRun, detailed: bool) -> Vec<Column> {
    let mut columns = Vec::new();
    for quantity in SHOWN.into_iter().filter(|it| detailed || !DETAILS.contains(it)) {
        if quantity == Quantity::ReqPerS {
            columns.extend(COUNTS.map(|name| count_column(case, name)));
        }
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
    let is_latency = quantity.is_latency();
    let cells = case.rows.iter().map(cell).collect();
    Column { title: quantity.title().to_owned(), is_latency, cells }
}

fn count_column(case: &CaseRun, name: &str) -> Column {
    let cell = |row: &Row| {
        let counts = row.rounds.iter().filter_map(|reading| reading.counts.get(name).copied());
        Some(Cell::new(statistics::spread(counts)?, statistics::thousands))
    };
    let cells = case.rows.iter().map(cell).collect();
    Column { title: name.to_owned(), is_latency: false, cells }
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

/// The kinds of errors that occurred, with their counts.
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

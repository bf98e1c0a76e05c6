//! The columns of a case's table: which there are, and what is in their cells.

use super::comparison::{compared, ratio, stem};
use crate::reading::{Errors, Quantity};
use crate::run::{CaseRun, Row};
use crate::statistics::{self, Spread};

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

/// A column of a case's table: what is not in a row is `None`.
pub struct Column {
    pub title: String,
    pub is_latency: bool,
    pub cells: Vec<Option<Cell>>,
}

pub struct Cell {
    /// The median, or what there is of a kind that has none.
    pub text: String,
    /// Least and greatest of the rounds, if there were several.
    pub range: Option<(String, String)>,
    /// Whether it tells of something that went wrong.
    pub is_bad: bool,
}

impl Cell {
    fn new(spread: Spread, format: impl Fn(f64) -> String) -> Self {
        let several = spread.rounds > 1;
        let range = several.then(|| (format(spread.min), format(spread.max)));
        Cell { text: format(spread.median), range, is_bad: false }
    }
}

/// The columns that at least one row has something in, the details among them or not.
pub fn columns(case: &CaseRun, detailed: bool) -> Vec<Column> {
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

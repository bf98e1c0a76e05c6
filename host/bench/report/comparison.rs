//! Compares the rows of a case with its first row.

use crate::reading::Quantity;
use crate::run::{CaseRun, Row};
use crate::statistics::{self, Spread};

/// If the rows of a case have no requests a second, the first of these quantities that they have is
/// compared.
const HEADLINES: [Quantity; 6] = [
    Quantity::GoodputOfCapacity,
    Quantity::LoadMaxPerS,
    Quantity::StartMs,
    Quantity::DropMs,
    Quantity::UsedOnceBytes,
    Quantity::NeverUsedBytes,
];

/// A title without its unit.
pub fn stem(quantity: Quantity) -> &'static str {
    quantity.title().rsplit_once(' ').map_or(quantity.title(), |(stem, _)| stem)
}

/// A quantity in words.
pub fn words(quantity: Quantity) -> &'static str {
    match quantity {
        Quantity::ReqPerS => "requests per second",
        Quantity::CpuUsPerReq => "CPU time per request",
        Quantity::LoadMaxPerS => "highest load with a bounded slowdown",
        Quantity::StartMs => "time from start to first answer",
        Quantity::DropMs => "time from file drop to first answer",
        Quantity::GoodputOfCapacity => "what is answered of the capacity",
        Quantity::NeverUsedBytes => "memory of a connection never used",
        Quantity::UsedOnceBytes => "memory of a connection used once",
        other => stem(other),
    }
}

/// The ratio of a row to the first row. `None` for the first row itself, and for a stream beside
/// the first of its side, which sends other requests.
pub fn ratio(case: &CaseRun, row: &Row, quantity: Quantity) -> Option<Spread> {
    let first = case.rows.first()?;
    let is_other = !std::ptr::eq(first, row) && !row.beside;
    if is_other { statistics::ratio(row, first, quantity) } else { None }
}

/// The quantities whose ratios are shown. The usual one is CPU time for each request. If the CPU
/// time of a row is not known, requests a second are shown, too. If there is neither, it is one of
/// [`HEADLINES`].
pub fn compared(case: &CaseRun) -> Vec<Quantity> {
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

//! Sentences that the reader of a case should know.

use super::clean::clean;
use super::comparison::{compared, words};
use crate::run::CaseRun;

/// How latency is counted.
pub const LATENCY_NOTE: &str =
    "Latency counts from when a request was due, so that a stall is seen by all that waited in it.";

/// How to read the numbers of a case: as medians of rounds, and as ratios to the first row.
pub fn method(case: &CaseRun) -> String {
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

/// Notes on the rows of a case, a line for each.
pub fn notes(case: &CaseRun) -> Vec<String> {
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

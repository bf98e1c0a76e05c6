//! The raw numbers of a run as CSV.

use super::clean::clean;
use crate::run::Run;

/// Every number of every round, one on each line, and the errors of each round by kind. The first
/// line names the columns.
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
                for (name, count) in &reading.counts {
                    text += &format!("{lead},{},{count}\n", field(name));
                }
                for (kind, count) in reading.errors.kinds() {
                    text += &format!("{lead},errors_{kind},{count}\n");
                }
            }
        }
    }
    text
}

/// A field of a CSV line, quoted if RFC 4180 asks for it.
fn field(text: &str) -> String {
    let text = clean(text);
    if text.contains([',', '"']) { format!("\"{}\"", text.replace('"', "\"\"")) } else { text }
}

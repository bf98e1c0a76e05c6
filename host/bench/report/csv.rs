//! The raw numbers of a run as CSV.

use ::csv::Writer;

use super::clean::clean;
use crate::reading::Reading;
use crate::run::Run;

const COLUMNS: [&str; 6] = ["case", "row", "round", "position", "quantity", "value"];

/// Every number of every round, one on each line, and the errors of each round by kind. The first
/// line names the columns.
pub fn csv(run: &Run) -> String {
    let mut records = vec![COLUMNS.map(str::to_owned)];
    for case in &run.cases {
        for row in &case.rows {
            for reading in &row.rounds {
                records.extend(numbers(reading).into_iter().map(|(quantity, value)| {
                    let (round, position) = (reading.round, reading.position);
                    let lead = [clean(&case.name), clean(&row.name)];
                    let [case, row] = lead;
                    [case, row, round.to_string(), position.to_string(), quantity, value]
                }));
            }
        }
    }
    let mut writer = Writer::from_writer(Vec::new());
    for record in records {
        writer.write_record(record).expect("memory takes every record of six fields");
    }
    let bytes = writer.into_inner().expect("memory takes what is left");
    String::from_utf8(bytes).expect("all fields are text")
}

/// The names and the values of a reading's numbers.
fn numbers(reading: &Reading) -> Vec<(String, String)> {
    let finite = reading.values.iter().filter(|(_, value)| value.is_finite());
    let values = finite.map(|(quantity, value)| (quantity.key().to_owned(), value.to_string()));
    let counts = reading.counts.iter().map(|(name, count)| (clean(name), count.to_string()));
    let kinds = reading.errors.kinds().into_iter();
    let errors = kinds.map(|(kind, count)| (format!("errors_{kind}"), count.to_string()));
    values.chain(counts).chain(errors).collect()
}

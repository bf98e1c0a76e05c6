//! A run as JSON: everything that is in it.
//!
//! A number that was not measured is absent. Nothing is ever null, and no number stands for "none".
//! The keys of quantities are those of [`Quantity::key`], with their units last. Latencies count
//! from when a request was due. Below, *quantities* is an object with one number for each quantity.
//!
//! ```text
//! title, started_at       strings
//! command                 strings: the command line, word by word
//! seed                    number that shuffled the sides and drew the paths
//! interrupted             whether the run was ended before its time
//! about                   list of { title, text }: facts about the machine and the programs
//! skipped                 list of { name, reason }: servers and cases that could not be run
//! cases                   list of
//!   name, settings        strings
//!   targets               list of
//!     name                string
//!     beside              whether this is another stream of the target before it
//!     notes               strings that the reader of the target should know
//!     summary             quantities: the median over all rounds; and
//!       errors            { connect, read, write, timeout, status, body, total }: their sums
//!     spread              like summary, with [least, greatest] for each quantity
//!     ratio               quantities, divided by those of the first target: the median of the
//!                         ratios within each round. Absent in the first target itself, and if
//!                         `beside`; and
//!       to                name of the first target
//!       spread            [least, greatest] for each quantity
//!     samples             number of latencies in all rounds
//!     latency             list of { quantile, us }, rising, all rounds together; the last has
//!                         quantile 1 and is the maximum
//!     rounds              list of quantities; and
//!       round, position   numbers from 1: of the round, and of the target's place in its order
//!       counts            numbers by name: answers, swaps, refused, and counter_NAME for each
//!                         counter of the server
//!       errors            as above, of this round
//! ```

use serde_json::{Map, Value, json};

use super::comparison;
use crate::reading::{Errors, Quantity, Reading};
use crate::run::{CaseRun, Row, Run};
use crate::statistics::{self, Spread};
use crate::suite::Skipped;

/// All of a run, in the form that the docs of this module describe.
pub fn json(run: &Run) -> Value {
    let fact = |(title, text): &(String, String)| json!({ "title": title, "text": text });
    json!({
        "title": run.title,
        "command": run.command,
        "seed": run.seed,
        "started_at": run.started_at,
        "about": run.about.iter().map(fact).collect::<Vec<_>>(),
        "interrupted": run.interrupted,
        "cases": run.cases.iter().map(case_json).collect::<Vec<_>>(),
        "skipped": skipped_json(&run.skipped),
    })
}

fn case_json(case: &CaseRun) -> Value {
    json!({
        "name": case.name,
        "settings": case.settings,
        "targets": case.rows.iter().map(|row| target(case, row)).collect::<Vec<_>>(),
    })
}

fn skipped_json(skipped: &[Skipped]) -> Vec<Value> {
    skipped.iter().map(|it| json!({ "name": it.name, "reason": it.reason })).collect()
}

fn target(case: &CaseRun, row: &Row) -> Value {
    let of = |quantity| statistics::quantity(row, quantity);
    let mut summary = object(of, |spread| json!(spread.median));
    summary.insert("errors".to_owned(), errors(&statistics::errors(row)));
    let latency = statistics::curve(&row.latency);
    let point = |(quantile, us): &(f64, f64)| json!({ "quantile": quantile, "us": us });
    let mut target = json!({
        "name": row.name,
        "beside": row.beside,
        "notes": row.notes,
        "summary": summary,
        "spread": object(of, range),
        "samples": row.latency.len(),
        "latency": latency.iter().map(point).collect::<Vec<_>>(),
        "rounds": row.rounds.iter().map(round).collect::<Vec<_>>(),
    });
    if let Some(ratio) = ratio(case, row) {
        target["ratio"] = ratio;
    }
    target
}

/// `None` if nothing can be compared.
fn ratio(case: &CaseRun, row: &Row) -> Option<Value> {
    let of = |quantity| comparison::ratio(case, row, quantity);
    let mut ratio = object(of, |spread| json!(spread.median));
    let first = case.rows.first().filter(|_| !ratio.is_empty())?;
    ratio.insert("to".to_owned(), json!(first.name));
    ratio.insert("spread".to_owned(), Value::Object(object(of, range)));
    Some(Value::Object(ratio))
}

/// An entry for each quantity that has a spread.
fn object(
    of: impl Fn(Quantity) -> Option<Spread>,
    show: impl Fn(Spread) -> Value,
) -> Map<String, Value> {
    let entry = |quantity: Quantity| Some((quantity.key().to_owned(), show(of(quantity)?)));
    Quantity::ALL.into_iter().filter_map(entry).collect()
}

fn range(spread: Spread) -> Value {
    json!([spread.min, spread.max])
}

fn round(reading: &Reading) -> Value {
    let mut round = Map::new();
    round.insert("round".to_owned(), json!(reading.round));
    round.insert("position".to_owned(), json!(reading.position));
    for (quantity, value) in reading.values.iter().filter(|(_, value)| value.is_finite()) {
        round.insert(quantity.key().to_owned(), json!(value));
    }
    round.insert("counts".to_owned(), json!(reading.counts));
    round.insert("errors".to_owned(), errors(&reading.errors));
    Value::Object(round)
}

fn errors(errors: &Errors) -> Value {
    let kinds = errors.kinds().into_iter().chain([("total", errors.total())]);
    Value::Object(kinds.map(|(kind, count)| (kind.to_owned(), json!(count))).collect())
}

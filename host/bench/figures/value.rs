//! Computes a figure from the raw numbers of a run, and compares it with its target.

use std::collections::BTreeMap;

use super::format::{Figure, Pick};
use super::raw::Raw;
use crate::load_stats::RATE_REACHED_MIN;
use crate::reading::Quantity;
use crate::scenario::declaration::{DeclaredCase, ERRORS, fits};
use crate::statistics::{self, thousands};
use crate::suite::BESIDE;

/// The side that stands for every row of a case.
const ALL_ROWS: char = '*';

/// A figure with its value in a run.
#[derive(Clone, Debug, PartialEq)]
pub struct Measured {
    /// The figure's name in the figures file.
    pub name: String,
    /// The claim in words, as Markdown.
    pub title: String,
    /// The run's folder, as the figures file names it. Empty if no run is named.
    pub run: String,
    /// The value with its unit. If the figure has `of`, also the total: `0 of 150,000`.
    pub value: String,
    /// The lowest and the highest round, as in `1.4 to 1.5`. Empty if both are written alike, or if
    /// the value is no median.
    pub spread: String,
    /// The target, as in `<= 1.6, aim 1.4`. Empty if there is none.
    pub target: String,
    /// Whether the value meets the target.
    pub verdict: Verdict,
}

/// Whether a figure meets its target.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// The value meets the target.
    Met,
    /// The figure has a value and no target.
    NoTarget,
    /// The value misses the target.
    Missed,
    /// The run or a row is missing, for example because a server was not installed. If only some
    /// of many rows are, the value names them.
    NotMeasured,
    /// Requests failed, or were due and not sent. The text says how many, and of which row.
    Failed(String),
}

impl Measured {
    /// One line for a terminal: name, value, spread, target and verdict.
    pub fn line(&self) -> String {
        let Self { name, value, spread, target, .. } = self;
        let spread = if spread.is_empty() { String::new() } else { format!(" ({spread})") };
        let target = if target.is_empty() { String::new() } else { format!(", {target}") };
        let verdict = match &self.verdict {
            Verdict::Met => ": met",
            Verdict::NoTarget => "",
            Verdict::Missed => ": MISSED",
            Verdict::NotMeasured => return format!("{name}: {value}"),
            Verdict::Failed(reason) => return format!("{name}: FAILED: {reason}"),
        };
        format!("{name}: {value}{spread}{target}{verdict}")
    }
}

/// Computes a figure. `run` is the run's folder as the figures file names it, `raw` its numbers.
/// `declared` is what the scenario says of the figure's case, if its file is there.
pub fn measure(
    figure: &Figure,
    run: &str,
    raw: Option<&Raw>,
    declared: Option<&DeclaredCase>,
) -> Measured {
    let mut measured = Measured {
        name: figure.name.clone(),
        title: figure.title.clone(),
        run: run.to_owned(),
        value: "not measured".to_owned(),
        spread: String::new(),
        target: target(figure),
        verdict: Verdict::NotMeasured,
    };
    let Some(raw) = raw else { return measured };
    if let Some(reason) = failure(figure, raw) {
        measured.verdict = Verdict::Failed(reason);
        return measured;
    }
    let values = rounds(figure, raw).into_values().map(|it| it * figure.scale);
    let values: Vec<f64> = values.collect();
    let Some(spread) = statistics::spread(values.iter().copied()) else { return measured };
    let missing = declared.map(|it| missing(figure, raw, it)).unwrap_or_default();
    if !missing.is_empty() {
        measured.value += &format!(": {}", missing.join(", "));
        return measured;
    }
    let value = match figure.pick {
        Pick::Median => spread.median,
        Pick::Max => spread.max,
        Pick::Sum => values.iter().sum(),
    };
    measured.value = text(value, figure.digits, &figure.unit);
    if let Some(of) = &figure.of {
        let rows = rows(figure, raw);
        let all = rows.iter().map(|row| raw.quantity(&figure.case, row, of).values().sum::<f64>());
        let all: f64 = all.sum();
        measured.value += &format!(" of {}", thousands(all));
    }
    let (low, high) = (text(spread.min, figure.digits, ""), text(spread.max, figure.digits, ""));
    if figure.pick == Pick::Median && low != high {
        measured.spread = format!("{low} to {high}");
    }
    measured.verdict = verdict(figure, value);
    measured
}

/// A value with so many digits behind the point, and its unit.
pub fn text(value: f64, digits: usize, unit: &str) -> String {
    let number = match digits {
        0 => thousands(value),
        digits => format!("{value:.digits$}"),
    };
    match unit {
        "" | "/s" => format!("{number}{unit}"),
        unit => format!("{number} {unit}"),
    }
}

/// The figure's value in each round. If the figure is about several rows, each row has one value
/// instead, which stands for a round.
fn rounds(figure: &Figure, raw: &Raw) -> BTreeMap<u32, f64> {
    let quantity = |case: &str, side: &str| raw.quantity(case, side, &figure.quantity);
    if is_many(&figure.side) {
        let of_row = |row: &String| {
            let values: Vec<f64> = quantity(&figure.case, row).into_values().collect();
            match figure.pick {
                Pick::Sum => (!values.is_empty()).then(|| values.iter().sum()),
                Pick::Median => statistics::median(&values),
                Pick::Max => values.iter().copied().reduce(f64::max),
            }
        };
        return (1..).zip(rows(figure, raw).iter().filter_map(of_row)).collect();
    }
    let of_side = quantity(&figure.case, &figure.side);
    let to_case = figure.to_case.as_ref().unwrap_or(&figure.case);
    if let Some(less) = &figure.less {
        return combine(&of_side, &quantity(to_case, less), |value, base| value - base);
    }
    let Some(to) = &figure.to else { return of_side };
    let ratio = combine(&of_side, &quantity(to_case, to), |value, base| value / base);
    let Some([above, below]) = &figure.over else { return ratio };
    let (above, below) = (quantity(&figure.case, above), quantity(&figure.case, below));
    let other = combine(&above, &below, |value, base| value / base);
    combine(&other, &ratio, |other, ratio| other / ratio)
}

/// The names of the rows that a figure is about.
fn rows(figure: &Figure, raw: &Raw) -> Vec<String> {
    if !is_many(&figure.side) {
        return vec![figure.side.clone()];
    }
    raw.rows(&figure.case).filter(|row| is_among(&figure.side, row)).cloned().collect()
}

/// Those of a figure's many rows that the scenario declares and that have no value in the run.
fn missing<'a>(figure: &Figure, raw: &Raw, declared: &'a DeclaredCase) -> Vec<&'a str> {
    let mut measured = rows(figure, raw);
    measured.retain(|row| !raw.quantity(&figure.case, row, &figure.quantity).is_empty());
    let rows = declared.rows.iter().filter(|row| is_among(&figure.side, &row.name));
    // A row whose server has no such counter is left out.
    let rows = rows.filter(|row| row.quantities.contains(&figure.quantity));
    let rows = rows.filter(|row| !measured.iter().any(|name| fits(&row.name, name)));
    rows.map(|row| &row.name[..]).collect()
}

/// Whether a `side` stands for many rows.
pub fn is_many(side: &str) -> bool {
    side.starts_with(ALL_ROWS)
}

/// Whether a `side` of many rows says which, as `*` and `*: name` do.
pub fn is_pattern(side: &str) -> bool {
    side.strip_prefix(ALL_ROWS).is_some_and(|end| end.is_empty() || end.starts_with(BESIDE))
}

/// Whether the row is one of the many that a `side` stands for: each first stream of its side, or
/// each stream beside it with one name.
pub fn is_among(side: &str, row: &str) -> bool {
    match side.strip_prefix(ALL_ROWS) {
        None => false,
        Some("") => !row.contains(BESIDE),
        Some(end) => row.ends_with(end),
    }
}

/// Makes one value of two, in each round that both have.
pub fn combine(
    values: &BTreeMap<u32, f64>,
    bases: &BTreeMap<u32, f64>,
    make: impl Fn(f64, f64) -> f64,
) -> BTreeMap<u32, f64> {
    let both = values.iter().filter_map(|(round, value)| Some((*round, value, bases.get(round)?)));
    both.map(|(round, value, base)| (round, make(*value, *base))).collect()
}

fn target(figure: &Figure) -> String {
    let text = |value: f64| {
        let number = if value.abs() >= 1000.0 { thousands(value) } else { value.to_string() };
        let unit = &figure.unit;
        if unit.is_empty() { number } else { format!("{number} {unit}").replace(" /s", "/s") }
    };
    let mut texts = Vec::new();
    match (figure.at_most, figure.at_least) {
        (Some(0.0), None) => texts.push(text(0.0)),
        (at_most, at_least) => {
            texts.extend(at_most.map(|it| format!("<= {}", text(it))));
            texts.extend(at_least.map(|it| format!(">= {}", text(it))));
        }
    }
    texts.extend(figure.aim.map(|it| format!("aim {}", text(it))));
    texts.join(", ")
}

/// Why the rows of a figure cannot be used, in words: requests failed, which does not matter to a
/// figure that counts or allows that; or not all requests that were due were sent.
fn failure(figure: &Figure, raw: &Raw) -> Option<String> {
    if figure.may_fail {
        return None;
    }
    let counts_errors = figure.quantity == ERRORS;
    let to_case = figure.to_case.as_ref().unwrap_or(&figure.case);
    let base = figure.to.as_ref().or(figure.less.as_ref());
    let rows = rows(figure, raw);
    let rows = rows.iter().map(|side| (&figure.case, side));
    let rows = rows.chain(base.map(|side| (to_case, side)));
    let over = figure.over.iter().flatten().map(|side| (&figure.case, side));
    let mut rows = rows.chain(over);
    rows.find_map(|(case, side)| {
        let reached = raw.quantity(case, side, Quantity::RateReached.key()).into_values();
        let reached = reached.fold(1.0, f64::min);
        if reached < RATE_REACHED_MIN {
            let sent = reached * 100.0;
            return Some(format!(
                "{sent:.1} % of what was due was sent in a round of {case}: {side}"
            ));
        }
        if counts_errors {
            return None;
        }
        let failed: f64 = raw.quantity(case, side, ERRORS).values().sum();
        (failed > 0.0).then(|| format!("{} requests of {case}: {side}", thousands(failed)))
    })
}

fn verdict(figure: &Figure, value: f64) -> Verdict {
    let is_low = figure.at_most.is_none_or(|most| value <= most);
    let is_high = figure.at_least.is_none_or(|least| value >= least);
    match (figure.at_most, figure.at_least) {
        (None, None) => Verdict::NoTarget,
        _ if is_low && is_high => Verdict::Met,
        _ => Verdict::Missed,
    }
}

//! From the raw numbers of a run to a figure, and whether it meets its target.

use std::collections::BTreeMap;

use super::raw::{ERRORS, Raw};
use super::{Figure, Pick};
use crate::statistics::{self, thousands};

/// For every row of a case.
const ALL_ROWS: &str = "*";
/// What is between the names of a side and of a stream that is not its first.
const BESIDE: &str = ": ";

/// A figure as a run has it.
#[derive(Clone, Debug, PartialEq)]
pub struct Measured {
    /// What it is called in the file.
    pub name: String,
    /// What it says, in Markdown.
    pub title: String,
    /// The run, as the file names it; empty where it has none.
    pub run: String,
    /// The value with its unit, and of how many, as in `0 of 150,000`.
    pub value: String,
    /// The lowest and the highest round, where there are several that differ.
    pub spread: String,
    /// As in `<= 1.6, aim 1.4`; empty where there is none.
    pub target: String,
    /// What came of it.
    pub verdict: Verdict,
}

/// What came of a figure.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It has a target and meets it.
    Met,
    /// It has no target.
    NoTarget,
    /// It misses its target.
    Missed,
    /// Its run has no such rows: a server that was not there.
    NotMeasured,
    /// Requests failed, which is said in words.
    Failed(String),
}

impl Measured {
    /// One line for a terminal.
    pub fn line(&self) -> String {
        let Self { name, value, spread, target, .. } = self;
        let spread = if spread.is_empty() { String::new() } else { format!(" ({spread})") };
        let target = if target.is_empty() { String::new() } else { format!(", {target}") };
        let verdict = match &self.verdict {
            Verdict::Met => ": met",
            Verdict::NoTarget => "",
            Verdict::Missed => ": MISSED",
            Verdict::NotMeasured => return format!("{name}: not measured"),
            Verdict::Failed(reason) => return format!("{name}: FAILED: {reason}"),
        };
        format!("{name}: {value}{spread}{target}{verdict}")
    }
}

/// A figure of some raw numbers.
pub fn measure(figure: &Figure, run: &str, raw: Option<&Raw>) -> Measured {
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

/// A value as a table has it.
pub fn text(value: f64, digits: usize, unit: &str) -> String {
    let number = match digits {
        0 => thousands(value),
        digits => format!("{value:.digits$}"),
    };
    match unit {
        "" | "%" | "/s" => format!("{number}{}", if unit == "%" { " %" } else { unit }),
        unit => format!("{number} {unit}"),
    }
}

/// The figure's value in each round.
fn rounds(figure: &Figure, raw: &Raw) -> BTreeMap<u32, f64> {
    let quantity = |case: &str, side: &str| raw.quantity(case, side, &figure.quantity);
    if figure.side.starts_with(ALL_ROWS) {
        let of_row = |row: &String| {
            let values: Vec<f64> = quantity(&figure.case, row).into_values().collect();
            match figure.pick {
                Pick::Sum => (!values.is_empty()).then(|| values.iter().sum()),
                Pick::Median | Pick::Max => statistics::median(&values),
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

/// The rows that a figure is about.
fn rows(figure: &Figure, raw: &Raw) -> Vec<String> {
    match figure.side.strip_prefix(ALL_ROWS) {
        None => vec![figure.side.clone()],
        Some("") => raw.rows(&figure.case).filter(|row| !row.contains(BESIDE)).cloned().collect(),
        Some(end) => raw.rows(&figure.case).filter(|row| row.ends_with(end)).cloned().collect(),
    }
}

/// What is made of two values, in each round that both have.
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

/// Which requests failed that the figure is made of; none where that is what it counts.
fn failure(figure: &Figure, raw: &Raw) -> Option<String> {
    if figure.may_fail || figure.quantity == ERRORS {
        return None;
    }
    let to_case = figure.to_case.as_ref().unwrap_or(&figure.case);
    let base = figure.to.as_ref().or(figure.less.as_ref());
    let rows = rows(figure, raw);
    let rows = rows.iter().map(|side| (&figure.case, side));
    let mut rows = rows.chain(base.map(|side| (to_case, side)));
    rows.find_map(|(case, side)| {
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

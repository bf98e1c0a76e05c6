//! The raw numbers of a run, as `raw.csv` has them.
//!
//! Owns the reading of that file, whose columns may stand in any order. Knows no figure.

use std::collections::BTreeMap;
use std::mem;

use anyhow::{Context as _, Result, anyhow, bail};

use crate::scenario::declaration::{CaseAndRow, ERRORS};

/// The counts of the generator. A server's own counters may be below zero.
const COUNTS: [&str; 3] = ["answers", "swaps", "refused"];

/// For each round's number, its quantities by name.
type RowRounds = BTreeMap<u32, BTreeMap<String, f64>>;

/// Every number of every round of a run.
#[derive(Clone, Debug, Default)]
pub struct Raw {
    /// By the names of case and row.
    rows: BTreeMap<CaseAndRow, RowRounds>,
}

impl Raw {
    /// Reads the text of a `raw.csv`.
    ///
    /// # Errors
    /// A column is missing, a line is no record, a round or a value is no number, a count is below
    /// zero, a number stands there twice, or there is no line at all. The error names the line.
    pub fn parse(text: &str) -> Result<Self> {
        let mut reader = csv::Reader::from_reader(text.as_bytes());
        let header = reader.headers().context("it has no header")?.clone();
        let place = |name: &str| header.iter().position(|column| column == name);
        let columns = ["case", "row", "round", "quantity", "value"];
        let mut places = [0; 5];
        for (found, column) in places.iter_mut().zip(columns) {
            *found = place(column).with_context(|| format!("it has no column `{column}`"))?;
        }
        let mut raw = Self::default();
        for record in reader.records() {
            let record = record.context("a line is no record")?;
            let fields = places.map(|place| record.get(place).unwrap_or_default());
            let line = record.position().map_or(0, csv::Position::line);
            raw.add(fields).map_err(|reason| anyhow!("line {line}: {reason}"))?;
        }
        if raw.rows.is_empty() {
            bail!("it has no numbers");
        }
        Ok(raw)
    }

    fn add(&mut self, [case, row, round, quantity, value]: [&str; 5]) -> Result<()> {
        let number: u32 = round.parse().with_context(|| format!("{round:?} is no round"))?;
        let rounds = self.rows.entry((case.to_owned(), row.to_owned())).or_default();
        let quantities = rounds.entry(number).or_default();
        let number = value.parse().ok().filter(|it: &f64| it.is_finite());
        let number = number.with_context(|| format!("{value:?} is no number"))?;
        let is_error = quantity.starts_with("errors_");
        if number < 0.0 && (is_error || COUNTS.contains(&quantity)) {
            bail!("`{quantity}` counts, and {value} is below zero");
        }
        if quantities.insert(quantity.to_owned(), number).is_some() {
            bail!("`{quantity}` of round {round} of {case}: {row} stands there twice");
        }
        if is_error {
            *quantities.entry(ERRORS.to_owned()).or_default() += number;
        }
        Ok(())
    }

    /// Gives each row its other name.
    pub fn rename(&mut self, names: &BTreeMap<CaseAndRow, CaseAndRow>) {
        let rows = mem::take(&mut self.rows).into_iter();
        self.rows = rows.map(|(row, it)| (names.get(&row).cloned().unwrap_or(row), it)).collect();
    }

    /// The names of a case's rows.
    pub fn rows<'a>(&'a self, case: &'a str) -> impl Iterator<Item = &'a String> {
        self.rows.keys().filter(move |(of, _)| of == case).map(|(_, row)| row)
    }

    /// The values of a quantity in a row, by round. Rounds without a value are absent.
    pub fn quantity(&self, case: &str, row: &str, quantity: &str) -> BTreeMap<u32, f64> {
        let rounds = self.rows.get(&(case.to_owned(), row.to_owned()));
        let rounds = rounds.into_iter().flatten();
        rounds.filter_map(|(round, all)| Some((*round, *all.get(quantity)?))).collect()
    }
}

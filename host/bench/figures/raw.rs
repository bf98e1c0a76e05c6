//! The raw numbers of a run, as `raw.csv` has them.
//!
//! Owns the reading of that file, whose columns may stand in any order. Knows no figure.

use std::collections::{BTreeMap, BTreeSet};
use std::mem;

use anyhow::{Context as _, Result, bail};

use crate::declaration::{CaseAndRow, ERRORS};

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
    /// A column is missing, a line is no record, a round is no number, or there is no line at all.
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
            let [case, row, round, quantity, value] =
                places.map(|place| record.get(place).unwrap_or_default());
            let round: u32 = round.parse().with_context(|| format!("{round:?} is no round"))?;
            raw.add(case, row, round, quantity, value);
        }
        if raw.rows.is_empty() {
            bail!("it has no numbers");
        }
        Ok(raw)
    }

    fn add(&mut self, case: &str, row: &str, round: u32, quantity: &str, value: &str) {
        let rounds = self.rows.entry((case.to_owned(), row.to_owned())).or_default();
        let quantities = rounds.entry(round).or_default();
        let number = value.parse::<f64>();
        if quantity.starts_with("errors_") {
            *quantities.entry(ERRORS.to_owned()).or_default() += number.unwrap_or(0.0);
        } else if let Ok(number) = number {
            quantities.insert(quantity.to_owned(), number);
        }
    }

    /// Gives each row its other name, unless all rows that have one are called by it already.
    pub fn rename(&mut self, names: &BTreeMap<CaseAndRow, CaseAndRow>) {
        let targets: BTreeSet<&CaseAndRow> = names.values().collect();
        if self.rows.keys().all(|row| !names.contains_key(row) || targets.contains(row)) {
            return;
        }
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

//! What a scenario declares: the names of its cases and rows, and what each row measures.
//!
//! Knows nothing of the machine: a row is here even if this machine cannot run its server. Leaves
//! mistakes to those who interpret the tables.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use anyhow::{Context as _, Result};

use super::environment::PLACEHOLDERS;
use super::format::{At, BesideTable, CaseTable, Each, Scalar, Scenario, SideTable};
use super::text::{Reader, Vars};
use crate::file;
use crate::suite::BESIDE;
pub use quantities::ERRORS;
use quantities::RowKind;

mod quantities;

/// The most bytes of a scenario file, which is more than anybody writes.
pub const TEXT_BYTES_MAX: u64 = 16 << 20;
/// In a name, stands for a text that depends on the machine, such as the number of its CPUs.
const ANY: char = '…';

/// A row by the names of its case and its own.
pub type CaseAndRow = (String, String);

/// The cases of a scenario file, in its order.
#[derive(Clone, Debug)]
pub struct Declaration {
    cases: Vec<DeclaredCase>,
}

/// A case with the rows of its table.
#[derive(Clone, Debug)]
pub struct DeclaredCase {
    /// Its name.
    pub name: String,
    /// Its name in miniature, where placeholders may have other values.
    pub name_in_mini: String,
    /// A row for each stream of each side.
    pub rows: Vec<DeclaredRow>,
}

/// A row of a case.
#[derive(Clone, Debug)]
pub struct DeclaredRow {
    /// Its name.
    pub name: String,
    /// Its name in miniature.
    pub name_in_mini: String,
    /// The quantities and counts that `raw.csv` may have of it. All failures are `errors`.
    pub quantities: BTreeSet<String>,
}

impl Declaration {
    /// Reads a scenario file.
    ///
    /// # Errors
    /// The file cannot be read, or is no scenario.
    pub fn read(path: &Path) -> Result<Self> {
        let shown = path.display().to_string();
        let source = file::text(path, TEXT_BYTES_MAX);
        let source = source.with_context(|| format!("cannot read {shown}"))?;
        let file: Scenario = toml::from_str(&source).with_context(|| format!("in {shown}"))?;
        Ok(Self::of(&file))
    }

    /// What the file declares.
    pub fn of(file: &Scenario) -> Self {
        let mut names = Names { file, reader: Reader::new("", "") };
        let machine = PLACEHOLDERS.map(|name| (name.to_owned(), ANY.to_string()));
        let mut vars = Vars::from(machine);
        vars.extend(texts(&file.vars));
        let mut tables = names.cases(&vars);
        vars.extend(texts(&file.mini.vars));
        let mini = names.cases(&vars);
        for (cases, mini) in tables.iter_mut().zip(mini) {
            // With another number of combinations, nobody can tell which stands for which.
            if cases.len() != mini.len() {
                continue;
            }
            for (case, mini) in cases.iter_mut().zip(mini) {
                case.name_in_mini = mini.name;
                if case.rows.len() == mini.rows.len() {
                    for (row, mini) in case.rows.iter_mut().zip(mini.rows) {
                        row.name_in_mini = mini.name;
                    }
                }
            }
        }
        Self { cases: tables.into_iter().flatten().collect() }
    }

    /// The case with this name, or else one that may have it on some machine.
    pub fn case(&self, name: &str) -> Option<&DeclaredCase> {
        let exact = self.cases.iter().find(|case| case.name == name);
        exact.or_else(|| self.cases.iter().find(|case| fits(&case.name, name)))
    }

    /// The names of all cases.
    pub fn case_names(&self) -> impl Iterator<Item = &str> {
        self.cases.iter().map(|case| &case.name[..])
    }

    /// Whether a case or a row has one of these parts in its name, or may have it on some machine.
    pub fn has_part(&self, parts: &[String], mini: bool) -> bool {
        let names = self.cases.iter().flat_map(|case| {
            let rows = case.rows.iter().map(|row| (&row.name, &row.name_in_mini));
            rows.chain([(&case.name, &case.name_in_mini)])
        });
        let mut names = names.map(|(full, in_mini)| if mini { in_mini } else { full });
        names.any(|name| parts.iter().any(|part| may_contain(name, part)))
    }

    /// For each row in miniature, its names in full.
    pub fn names_in_full(&self) -> BTreeMap<CaseAndRow, CaseAndRow> {
        let rows = self.cases.iter().flat_map(|case| case.rows.iter().map(move |row| (case, row)));
        let names = rows.map(|(case, row)| {
            let mini = (case.name_in_mini.clone(), row.name_in_mini.clone());
            (mini, (case.name.clone(), row.name.clone()))
        });
        names.collect()
    }
}

impl DeclaredCase {
    /// The row with this name, or else all rows that may have it on some machine.
    pub fn rows<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a DeclaredRow> {
        let is_declared = self.rows.iter().any(|row| row.name == name);
        let is_it = move |row: &&DeclaredRow| {
            if is_declared { row.name == name } else { fits(&row.name, name) }
        };
        self.rows.iter().filter(is_it)
    }
}

/// Whether a declared name stands for `name`.
pub fn fits(declared: &str, name: &str) -> bool {
    let Some((begin, _)) = declared.split_once(ANY) else { return declared == name };
    let (_, end) = declared.rsplit_once(ANY).unwrap_or_default();
    let is_long = name.len() >= begin.len() + end.len();
    is_long && name.starts_with(begin) && name.ends_with(end)
}

/// Whether a declared name has this part, as far as it does not depend on the machine.
fn may_contain(declared: &str, part: &str) -> bool {
    declared.contains(part) || declared.contains(ANY)
}

/// Reads the cases of one scenario.
struct Names<'a, 'text> {
    file: &'a Scenario,
    /// Its mistakes are left to others.
    reader: Reader<'text>,
}

impl Names<'_, '_> {
    /// The cases of each table. `vars` are the placeholders of the file.
    fn cases(&mut self, vars: &Vars) -> Vec<Vec<DeclaredCase>> {
        let counters = self.counters(vars);
        let mut tables = Vec::new();
        for table in self.file.cases.iter().map(At::get_ref) {
            let mut cases = Vec::new();
            for vars in self.combinations(&table.each, vars) {
                let name = self.reader.text(&table.name, &vars);
                let measure = table.measure.as_ref();
                let measure = measure.map_or("load".to_owned(), |it| self.reader.text(it, &vars));
                let mut rows = Vec::new();
                for side in table.all_sides() {
                    for vars in self.combinations(&side.each, &vars) {
                        rows.extend(self.rows(table, &measure, &side, &counters, &vars));
                    }
                }
                cases.push(DeclaredCase { name_in_mini: name.clone(), name, rows });
            }
            tables.push(cases);
        }
        tables
    }

    fn combinations(&mut self, each: &Each, vars: &Vars) -> Vec<Vars> {
        let mut all = self.reader.combinations(each, vars, false);
        for (key, value) in all.iter_mut().flatten() {
            // An end of this range depends on the machine.
            if each.contains_key(key) && value.contains(ANY) && value.contains("..") {
                *value = ANY.to_string();
            }
        }
        all
    }

    /// The counters of each server by its name.
    fn counters(&mut self, vars: &Vars) -> BTreeMap<String, Vec<String>> {
        let mut counters = BTreeMap::new();
        for server in self.file.servers.iter().map(At::get_ref) {
            for vars in self.combinations(&server.each, vars) {
                let names = server.counters.iter().map(|it| self.reader.text(it, &vars)).collect();
                counters.insert(self.reader.text(&server.name, &vars), names);
            }
        }
        counters
    }

    /// The rows of a side: one for each of its streams. `measure` is that of the case.
    fn rows(
        &mut self,
        case: &CaseTable,
        measure: &str,
        side: &SideTable,
        counters: &BTreeMap<String, Vec<String>>,
        vars: &Vars,
    ) -> Vec<DeclaredRow> {
        let mut text = |value: &At<Scalar>| self.reader.text(value, vars);
        let beside = case.beside_of(side);
        let server = side.server.as_ref().map(&mut text);
        // One of both names may depend on the machine.
        let is_server = |declared: &str| {
            server.as_ref().is_some_and(|it| fits(declared, it) || fits(it, declared))
        };
        let of_server = counters.iter().filter(|(declared, _)| is_server(declared));
        let of_server: Vec<String> = of_server.flat_map(|(_, names)| names).cloned().collect();
        let file = &self.file.load;
        let first = RowKind {
            measure,
            is_first: true,
            is_alone: beside.is_empty(),
            has_process: server.is_some() || side.pid.is_some(),
            has_rate: [&side.load, &case.load, file].iter().any(|it| it.rate.is_some()),
            has_swaps: side.swaps.is_some(),
            counters: &of_server,
        };
        let own = side.name.as_ref().or(side.server.as_ref()).or(side.url.as_ref());
        let name = own.map_or(String::new(), &mut text);
        let mut rows = vec![DeclaredRow::new(name.clone(), first.quantities())];
        // Other measures have the first stream alone.
        for table in beside.iter().filter(|_| measure == "load") {
            let BesideTable { name: own, load, .. } = table.get_ref();
            let has_rate = [load, file].iter().any(|it| it.rate.is_some());
            let kind = RowKind { is_first: false, has_rate, ..first };
            let name = format!("{name}{BESIDE}{}", text(own));
            rows.push(DeclaredRow::new(name, kind.quantities()));
        }
        rows
    }
}

fn texts(values: &BTreeMap<String, At<Scalar>>) -> impl Iterator<Item = (String, String)> {
    values.iter().map(|(name, value)| (name.clone(), value.get_ref().to_string()))
}

impl DeclaredRow {
    fn new(name: String, quantities: BTreeSet<String>) -> Self {
        Self { name_in_mini: name.clone(), name, quantities }
    }
}

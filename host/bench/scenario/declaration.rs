//! What a scenario file declares: the names of its cases and rows, and what each row measures.
//!
//! Reads these keys alone, and leaves mistakes in others to `scenario.rs`. Knows nothing of the
//! machine: a row is here even if this machine cannot run its server.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use anyhow::{Context as _, Result};
use serde::Deserialize;
use toml::Value;

use super::file;
use placeholders::{Placeholders, combinations, fits, may_contain, text, texts};
pub use quantities::ERRORS;
use quantities::RowKind;

mod placeholders;
mod quantities;

/// The most bytes of a scenario file.
const TEXT_BYTES_MAX: u64 = 16 << 20;
/// In the name of a row, stands between the side and a stream beside its first.
pub const BESIDE: &str = ": ";

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
        let shown = path.display();
        let source = file::text(path, TEXT_BYTES_MAX);
        let source = source.with_context(|| format!("cannot read {shown}"))?;
        let names: ScenarioNames =
            toml::from_str(&source).with_context(|| format!("in {shown}"))?;
        let vars = texts(&names.vars);
        let mut in_mini = vars.clone();
        in_mini.extend(texts(&names.mini.vars));
        let mut cases = names.cases(&vars);
        let mini = names.cases(&in_mini);
        // With another number of combinations, nobody can tell which stands for which.
        if cases.len() == mini.len() {
            for (case, mini) in cases.iter_mut().zip(mini) {
                case.name_in_mini = mini.name;
                if case.rows.len() == mini.rows.len() {
                    for (row, mini) in case.rows.iter_mut().zip(mini.rows) {
                        row.name_in_mini = mini.name;
                    }
                }
            }
        }
        Ok(Self { cases })
    }

    /// The case with this name.
    pub fn case(&self, name: &str) -> Option<&DeclaredCase> {
        self.cases.iter().find(|case| fits(&case.name, name))
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
    /// The rows with this name. There is at most one, unless names depend on the machine.
    pub fn rows<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a DeclaredRow> {
        self.rows.iter().filter(move |row| fits(&row.name, name))
    }
}

/// The keys of a scenario file that decide which rows there are.
#[derive(Deserialize)]
struct ScenarioNames {
    #[serde(default)]
    vars: BTreeMap<String, Value>,
    #[serde(default)]
    mini: MiniVars,
    #[serde(default)]
    load: RateTable,
    #[serde(default, rename = "server")]
    servers: Vec<ServerNames>,
    #[serde(default, rename = "case")]
    cases: Vec<CaseNames>,
}

#[derive(Default, Deserialize)]
struct MiniVars {
    #[serde(default)]
    vars: BTreeMap<String, Value>,
}

/// A table `load`: whether it has a rate.
#[derive(Default, Deserialize)]
struct RateTable {
    rate: Option<Value>,
}

#[derive(Deserialize)]
struct ServerNames {
    name: Value,
    #[serde(default)]
    each: BTreeMap<String, Vec<Value>>,
    #[serde(default)]
    counters: Vec<Value>,
}

#[derive(Deserialize)]
struct CaseNames {
    name: Value,
    measure: Option<Value>,
    #[serde(default)]
    each: BTreeMap<String, Vec<Value>>,
    #[serde(default)]
    load: RateTable,
    #[serde(default)]
    beside: Vec<BesideNames>,
    #[serde(default)]
    sides: Vec<Value>,
    #[serde(default, rename = "side")]
    tables: Vec<SideNames>,
}

#[derive(Default, Deserialize)]
struct SideNames {
    name: Option<Value>,
    #[serde(default)]
    each: BTreeMap<String, Vec<Value>>,
    server: Option<Value>,
    url: Option<Value>,
    pid: Option<Value>,
    #[serde(default)]
    load: RateTable,
    #[serde(default)]
    beside: Vec<BesideNames>,
    swaps: Option<Value>,
}

#[derive(Deserialize)]
struct BesideNames {
    name: Value,
    #[serde(default)]
    load: RateTable,
}

impl ScenarioNames {
    /// All cases. `vars` are the placeholders of the file.
    fn cases(&self, vars: &Placeholders) -> Vec<DeclaredCase> {
        let counters = self.counters(vars);
        let mut cases = Vec::new();
        for table in &self.cases {
            for vars in combinations(&table.each, vars) {
                let name = text(&table.name, &vars);
                let plain = table.sides.iter().map(|server| SideNames {
                    server: Some(server.clone()),
                    ..SideNames::default()
                });
                let plain: Vec<SideNames> = plain.collect();
                let sides = plain.iter().chain(&table.tables);
                let rows = sides.flat_map(|side| self.rows(table, side, &counters, &vars));
                cases.push(DeclaredCase { name_in_mini: name.clone(), name, rows: rows.collect() });
            }
        }
        cases
    }

    /// The counters of each server by its name.
    fn counters(&self, vars: &Placeholders) -> BTreeMap<String, Vec<String>> {
        let mut counters = BTreeMap::new();
        for server in &self.servers {
            for vars in combinations(&server.each, vars) {
                let names = server.counters.iter().map(|name| text(name, &vars)).collect();
                counters.insert(text(&server.name, &vars), names);
            }
        }
        counters
    }

    /// The rows of a `[[case.side]]`: one for each stream of each combination.
    fn rows(
        &self,
        case: &CaseNames,
        side: &SideNames,
        counters: &BTreeMap<String, Vec<String>>,
        vars: &Placeholders,
    ) -> Vec<DeclaredRow> {
        let mut rows = Vec::new();
        let beside = if side.beside.is_empty() { &case.beside } else { &side.beside };
        for vars in combinations(&side.each, vars) {
            let measure = case.measure.as_ref();
            let measure = measure.map_or("load".to_owned(), |it| text(it, &vars));
            let server = side.server.as_ref().map(|it| text(it, &vars));
            let of_server = server.as_ref().and_then(|it| counters.get(it));
            let first = RowKind {
                measure: &measure,
                is_first: true,
                is_alone: beside.is_empty(),
                has_process: server.is_some() || side.pid.is_some(),
                has_rate: [&side.load, &case.load, &self.load].iter().any(|it| it.rate.is_some()),
                has_swaps: side.swaps.is_some(),
                counters: of_server.map_or(&[][..], |it| &it[..]),
            };
            let own = side.name.as_ref().or(side.server.as_ref()).or(side.url.as_ref());
            let name = own.map_or(String::new(), |it| text(it, &vars));
            rows.push(DeclaredRow::new(name.clone(), first.quantities()));
            // Other measures have the first stream alone.
            for table in beside.iter().filter(|_| measure == "load") {
                let has_rate = [&table.load, &self.load].iter().any(|it| it.rate.is_some());
                let kind = RowKind { is_first: false, has_rate, ..first };
                let name = format!("{name}{BESIDE}{}", text(&table.name, &vars));
                rows.push(DeclaredRow::new(name, kind.quantities()));
            }
        }
        rows
    }
}

impl DeclaredRow {
    fn new(name: String, quantities: BTreeSet<String>) -> Self {
        Self { name_in_mini: name.clone(), name, quantities }
    }
}

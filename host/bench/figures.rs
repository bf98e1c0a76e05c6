//! Figures: what this project claims of its speed, declared once, with the run each stands on.
//!
//! A figures file is TOML. It says from which rows and quantities of a scenario's raw numbers a
//! figure is made, what its target is, and which tables in which documents show it. All keys:
//!
//! ```toml
//! [runs]                    # for each scenario, the folder of the run that its figures stand on
//! twins = "runs/2026-11-30-2-cores/twins"
//!
//! [[figure]]
//! name = "hello-fresh"      # no other figure has it
//! title = "`/hello`, a fresh instance for each request, to the twin: CPU"
//! scenario = "twins"        # scenarios/twins.toml, and its key in [runs]
//! run = "runs/..."          # instead of the one in [runs]
//! case = "hello"            # the case and the row of raw.csv
//! side = "fresh"            # or "*": every row, by its median; "*: name": every stream of that name
//! quantity = "cpu_us_per_req"      # or "errors": requests that failed; "answers" that came
//! to = "native"             # divided by this row, in each round; of `to_case` if there is one
//! less = "bare"             # or less this row
//! over = ["fresh x2", "native x2"] # the ratio of these two rows, divided by the ratio before
//! pick = "median"           # of the rounds; or sum, or max
//! of = "answers"            # also shows the sum of this quantity, as in "0 of 150,000"
//! scale = 0.001             # what the value is multiplied by
//! unit = "ms"
//! digits = 2                # behind the point
//! at_most = 1.6             # targets
//! at_least = 0.9
//! aim = 1.4                 # what is hoped for beyond the target
//! may_fail = false          # requests that fail do not fail the figure
//! headline = false          # it is among those that every change is checked by
//!
//! [[table]]                 # figures, one on each line, between two markers of a document
//! name = "one"
//! file = "README.md"        # the markers are <!-- table one --> and <!-- end -->
//! figures = ["hello-fresh"]
//!
//! [[grid]]                  # rows of one run by quantities
//! name = "peers"
//! file = "../README.md"
//! scenario = "peers"
//! corner = "server"
//! columns = [{ title = "`/hello`: CPU", case = "hello", quantity = "cpu_us_per_req", to = "mine" }]
//! rows = [{ title = "Guesthouse", side = "mine" }]
//! ```
//!
//! Paths are below the folder of the figures file. A column has `to`, `scale`, `unit` and `digits`
//! as a figure has. A figure fails where requests of its rows failed; one that misses its target
//! says so in its line.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail};
use serde::Deserialize;

use crate::file;
use raw::Raw;
pub use value::{Measured, Verdict};

mod raw;
mod table;
mod value;

/// What a figures file, a document or the raw numbers of a run may have.
const TEXT_BYTES_MAX: u64 = 64 << 20;

/// A figures file, and the raw numbers of the runs that it names.
pub struct Figures {
    /// The folder of the file.
    folder: PathBuf,
    file: FiguresFile,
    /// By the path that a figure names. None where there is no such run.
    runs: BTreeMap<String, Option<Raw>>,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct FiguresFile {
    #[serde(default)]
    runs: BTreeMap<String, String>,
    #[serde(default, rename = "figure")]
    figures: Vec<Figure>,
    #[serde(default, rename = "table")]
    tables: Vec<FigureTable>,
    #[serde(default, rename = "grid")]
    grids: Vec<Grid>,
}

/// One figure as it is declared; the keys are in the docs of this module.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Figure {
    name: String,
    title: String,
    scenario: String,
    run: Option<String>,
    case: String,
    side: String,
    quantity: String,
    to: Option<String>,
    to_case: Option<String>,
    less: Option<String>,
    over: Option<[String; 2]>,
    #[serde(default)]
    pick: Pick,
    of: Option<String>,
    #[serde(default = "one")]
    scale: f64,
    #[serde(default)]
    unit: String,
    #[serde(default = "two")]
    digits: usize,
    at_most: Option<f64>,
    at_least: Option<f64>,
    aim: Option<f64>,
    #[serde(default)]
    may_fail: bool,
    #[serde(default)]
    headline: bool,
}

/// What becomes of the values of the rounds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Pick {
    #[default]
    Median,
    Sum,
    Max,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct FigureTable {
    name: String,
    file: PathBuf,
    figures: Vec<String>,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Grid {
    name: String,
    file: PathBuf,
    scenario: String,
    corner: String,
    columns: Vec<Column>,
    rows: Vec<GridRow>,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Column {
    title: String,
    case: String,
    quantity: String,
    to: Option<String>,
    #[serde(default = "one")]
    scale: f64,
    #[serde(default)]
    unit: String,
    #[serde(default = "two")]
    digits: usize,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct GridRow {
    title: String,
    side: String,
}

fn one() -> f64 {
    1.0
}

fn two() -> usize {
    2
}

/// The cases of one scenario that some figures need.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Needed {
    /// The name of the scenario, which is its key in `[runs]`.
    pub scenario: String,
    /// The scenario's file.
    pub path: PathBuf,
    /// Names of cases.
    pub cases: Vec<String>,
}

impl Figures {
    /// Reads a figures file and the runs that it names.
    ///
    /// # Errors
    /// The file or a run cannot be read, or something in the file is wrong: all mistakes, one on
    /// each line.
    pub fn read(path: &Path) -> Result<Self> {
        let shown = path.display();
        let text = file::text(path, TEXT_BYTES_MAX);
        let text = text.with_context(|| format!("cannot read {shown}"))?;
        let file: FiguresFile = toml::from_str(&text).with_context(|| format!("in {shown}"))?;
        let folder = path.parent().map(Path::to_path_buf).unwrap_or_default();
        let mistakes = mistakes(&file, &folder);
        if !mistakes.is_empty() {
            bail!("{shown}: {}", mistakes.join(&format!("\n{shown}: ")));
        }
        let mut figures = Self { folder, file, runs: BTreeMap::new() };
        for run in figures.run_names() {
            let read = figures.read_run(&run)?;
            figures.runs.insert(run, read);
        }
        Ok(figures)
    }

    /// Every run that a figure or a grid stands on, as the file names it.
    fn run_names(&self) -> BTreeSet<String> {
        let figures = self.file.figures.iter().filter_map(|it| self.run_of(it));
        let grids = self.file.grids.iter().filter_map(|it| self.file.runs.get(&it.scenario));
        figures.chain(grids.map(String::as_str)).map(str::to_owned).collect()
    }

    fn run_of<'a>(&'a self, figure: &'a Figure) -> Option<&'a str> {
        figure.run.as_deref().or_else(|| self.file.runs.get(&figure.scenario).map(String::as_str))
    }

    fn read_run(&self, run: &str) -> Result<Option<Raw>> {
        let path = self.folder.join(run).join("raw.csv");
        if !path.exists() {
            return Ok(None);
        }
        let text = file::text(&path, TEXT_BYTES_MAX);
        let text = text.with_context(|| format!("cannot read {}", path.display()))?;
        Raw::parse(&text).with_context(|| format!("in {}", path.display())).map(Some)
    }

    /// Has the figures of a scenario stand on other numbers, as `raw.csv` of a run has them.
    ///
    /// # Errors
    /// The text is not that of a `raw.csv`.
    pub fn stand_on(&mut self, scenario: &str, raw: &str) -> Result<()> {
        let run = format!("(measured) {scenario}");
        self.runs.insert(run.clone(), Some(Raw::parse(raw)?));
        for figure in self.file.figures.iter_mut().filter(|it| it.scenario == scenario) {
            figure.run = None;
        }
        self.file.runs.insert(scenario.to_owned(), run);
        Ok(())
    }

    /// What has to be measured for the figures whose names are asked for: all without names.
    ///
    /// # Errors
    /// There is no figure of such a name.
    pub fn needed(&self, names: &[String], headline: bool) -> Result<Vec<Needed>> {
        if let Some(name) = names.iter().find(|name| self.figure(name).is_none()) {
            let known: Vec<&str> = self.file.figures.iter().map(|it| &it.name[..]).collect();
            bail!("there is no figure {name}; there are {}", known.join(", "));
        }
        let mut needed: BTreeMap<&str, BTreeSet<&str>> = BTreeMap::new();
        // One that another program measures has a run alone.
        let scenario = |it: &&Figure| self.scenario(&it.scenario).exists();
        for figure in self.wanted(names, headline).filter(scenario) {
            let cases = needed.entry(&figure.scenario).or_default();
            cases.insert(&figure.case);
            cases.extend(figure.to_case.as_deref());
        }
        let needed = needed.into_iter().map(|(scenario, cases)| Needed {
            scenario: scenario.to_owned(),
            path: self.scenario(scenario),
            cases: cases.into_iter().map(str::to_owned).collect(),
        });
        Ok(needed.collect())
    }

    fn scenario(&self, name: &str) -> PathBuf {
        self.folder.join(format!("scenarios/{name}.toml"))
    }

    fn figure(&self, name: &str) -> Option<&Figure> {
        self.file.figures.iter().find(|it| it.name == name)
    }

    fn wanted<'a>(
        &'a self,
        names: &'a [String],
        headline: bool,
    ) -> impl Iterator<Item = &'a Figure> {
        let is_named = |it: &Figure| names.is_empty() || names.contains(&it.name);
        let figures = self.file.figures.iter();
        figures.filter(move |it| is_named(it) && (it.headline || !headline))
    }

    /// The figures by those names, or all, as their runs have them.
    pub fn measured(&self, names: &[String], headline: bool) -> Vec<Measured> {
        self.wanted(names, headline).map(|it| self.measure(it)).collect()
    }

    fn measure(&self, figure: &Figure) -> Measured {
        let run = self.run_of(figure).unwrap_or_default();
        let raw = self.runs.get(run).and_then(Option::as_ref);
        value::measure(figure, run, raw)
    }

    /// The documents with tables, each with its text as it is and as the runs would have it.
    ///
    /// # Errors
    /// A document cannot be read, or has no markers of a table.
    pub fn documents(&self) -> Result<Vec<Document>> {
        let mut documents: BTreeMap<&Path, Document> = BTreeMap::new();
        let tables = self.file.tables.iter().map(|it| (&it.file, &it.name, self.table(it)));
        let grids = self.file.grids.iter().map(|it| (&it.file, &it.name, self.grid(it)));
        for (file, name, drawn) in tables.chain(grids) {
            let path = self.folder.join(file);
            let document = match documents.entry(file) {
                std::collections::btree_map::Entry::Occupied(entry) => entry.into_mut(),
                std::collections::btree_map::Entry::Vacant(entry) => {
                    let text = file::text(&path, TEXT_BYTES_MAX);
                    let text = text.with_context(|| format!("cannot read {}", path.display()))?;
                    entry.insert(Document { path: path.clone(), drawn: text.clone(), text })
                }
            };
            document.drawn = table::put(&document.drawn, name, &drawn)
                .with_context(|| path.display().to_string())?;
        }
        Ok(documents.into_values().collect())
    }

    fn table(&self, table: &FigureTable) -> String {
        let figures = table.figures.iter().filter_map(|name| self.figure(name));
        let measured: Vec<Measured> = figures.map(|it| self.measure(it)).collect();
        table::of_figures(&measured, &self.folder.join(&table.file), &self.folder)
    }

    fn grid(&self, grid: &Grid) -> String {
        let run = self.file.runs.get(&grid.scenario);
        let raw = run.and_then(|run| self.runs.get(run)).and_then(Option::as_ref);
        table::of_grid(grid, raw)
    }
}

/// A document with tables.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Document {
    /// Where it is.
    pub path: PathBuf,
    /// What is in it.
    pub text: String,
    /// The same with its tables drawn anew.
    pub drawn: String,
}

impl Document {
    /// The lines that are not as its runs have them: number, as it is, as it should be.
    pub fn differences(&self) -> Vec<(usize, String, String)> {
        let (mut is, mut should_be) = (self.text.lines(), self.drawn.lines());
        let mut differences = Vec::new();
        for number in 1.. {
            match (is.next(), should_be.next()) {
                (None, None) => break,
                (is, should_be) if is == should_be => {}
                (is, should_be) => {
                    let line = |line: Option<&str>| line.unwrap_or_default().to_owned();
                    differences.push((number, line(is), line(should_be)));
                }
            }
        }
        differences
    }
}

fn mistakes(file: &FiguresFile, folder: &Path) -> Vec<String> {
    let mut mistakes = Vec::new();
    let mut names = BTreeSet::new();
    for figure in &file.figures {
        let name = &figure.name;
        if !names.insert(name) {
            mistakes.push(format!("two figures are called {name}"));
        }
        if [figure.to.is_some(), figure.less.is_some()] == [true, true] {
            mistakes.push(format!("figure {name}: write one of `to` and `less`"));
        }
        if figure.over.is_some() && figure.to.is_none() {
            mistakes.push(format!("figure {name}: `over` divides a ratio, which needs `to`"));
        }
        if figure.to_case.is_some() && figure.to.is_none() && figure.less.is_none() {
            mistakes.push(format!("figure {name}: `to_case` needs `to` or `less`"));
        }
        let scenario = folder.join(format!("scenarios/{}.toml", figure.scenario));
        if !scenario.exists() && figure.run.is_none() {
            mistakes.push(format!("figure {name}: there is no {}", scenario.display()));
        }
    }
    for table in &file.tables {
        for name in table.figures.iter().filter(|name| !names.contains(name)) {
            mistakes.push(format!("table {}: there is no figure {name}", table.name));
        }
    }
    let shown: BTreeSet<&String> = file.tables.iter().flat_map(|it| &it.figures).collect();
    for name in names.difference(&shown) {
        mistakes.push(format!("figure {name}: no table shows it"));
    }
    mistakes
}

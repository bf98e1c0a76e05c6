//! Figures: the claims of this project about its speed. One file declares each of them once.
//!
//! A figures file is TOML. For each figure it names the rows and the quantity of a scenario's raw
//! numbers, the run that they come from, and the target. It also says which tables in which
//! documents show the figure. All keys:
//!
//! ```toml
//! [runs]                    # for each scenario, the folder of the run that its figures use
//! twins = "runs/2026-11-30-2-cores/twins"
//!
//! [[figure]]
//! name = "hello-fresh"      # no other figure has this name
//! title = "`/hello`, a fresh instance for each request, to the twin: CPU"
//! scenario = "twins"        # scenarios/twins.toml, and the key in [runs]
//! run = "runs/..."          # uses this run instead of the one in [runs]
//! case = "hello"            # the case and the row in raw.csv
//! side = "fresh"            # or "*": the median of every row; "*: name": of every such stream.
//!                           # Every row that the scenario declares has to be measured
//! quantity = "cpu_us_per_req"      # or "errors": failed requests; or a count such as "answers"
//! to = "native"             # divides by this row, in each round
//! to_case = "hello"         # takes that row from this case
//! less = "bare"             # or subtracts this row
//! over = ["fresh x2", "native x2"] # divides the ratio of these rows by that of `side` to `to`
//! pick = "median"           # of the rounds; or sum, or max
//! of = "answers"            # also shows the sum of this quantity, as in "0 of 150,000"
//! scale = 0.001             # multiplies the value
//! unit = "ms"
//! digits = 2                # behind the point
//! at_most = 1.6             # targets, in the unit
//! at_least = 0.9
//! aim = 1.4                 # a better value than the target, to be reached one day
//! may_fail = false          # true: failed requests do not fail the figure
//! headline = false          # true: `--quick` measures it
//!
//! [[table]]                 # figures, one on each line, between two markers of a document
//! name = "one"
//! file = "README.md"        # the markers are the lines <!-- table one --> and <!-- end -->
//! figures = ["hello-fresh"]
//!
//! [[grid]]                  # one run: its rows by some quantities
//! name = "peers"
//! file = "../README.md"
//! scenario = "peers"
//! corner = "server"
//! columns = [{ title = "CPU", case = "hello", quantity = "cpu_us_per_req", to = "mine" }]
//! rows = [{ title = "Guesthouse", side = "mine" }]
//! ```
//!
//! The names of cases and rows and the quantities are checked against the scenario when the file is
//! read. If there is no file of the scenario, another program has made its run, which has to be
//! named. The name of a scenario has no `/` and no `.`.
//!
//! Paths begin at the folder of the figures file. A column may have `to`, `scale`, `unit` and
//! `digits`, with the same meaning as in a figure. If requests of a figure's rows failed, the
//! figure fails. If a figure misses its target, its line says so.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail};

use crate::file;
use crate::scenario::declaration::Declaration;
use format::{Figure, FigureTable, FiguresFile, Grid, scenario_path};
use mistakes::mistakes;
use raw::Raw;
pub use value::{Measured, Verdict};

mod format;
mod markdown;
mod mistakes;
mod raw;
mod table;
mod value;

/// The most bytes that a figures file, a document or a `raw.csv` may have.
const TEXT_BYTES_MAX: u64 = 64 << 20;

/// A figures file, and the raw numbers of the runs that it names.
pub struct Figures {
    /// The folder of the figures file.
    folder: PathBuf,
    file: FiguresFile,
    /// What each scenario declares whose file is there, by its name.
    declared: BTreeMap<String, Declaration>,
    /// By the path in the figures file. `None` if there is no such run.
    runs: BTreeMap<String, Option<Raw>>,
}

/// The cases of one scenario that have to be measured for some figures.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Needed {
    /// The scenario's name, which is also its key in `[runs]`.
    pub scenario: String,
    /// The path of the scenario's file.
    pub path: PathBuf,
    /// The names of the cases, sorted. A case has two names if it has another one in miniature.
    pub cases: Vec<String>,
}

impl Figures {
    /// Reads a figures file and the runs that it names. A run that does not exist is no error.
    ///
    /// # Errors
    /// The file, a scenario or a run cannot be read, or the file has mistakes. The error then lists
    /// all of them, one on each line.
    pub fn read(path: &Path) -> Result<Self> {
        let shown = path.display();
        let text = file::text(path, TEXT_BYTES_MAX);
        let text = text.with_context(|| format!("cannot read {shown}"))?;
        let file: FiguresFile = toml::from_str(&text).with_context(|| format!("in {shown}"))?;
        let folder = path.parent().map(Path::to_path_buf).unwrap_or_default();
        let declared = declared(&file, &folder)?;
        let mistakes = mistakes(&file, &folder, &declared);
        if !mistakes.is_empty() {
            bail!("{shown}: {}", mistakes.join(&format!("\n{shown}: ")));
        }
        let mut figures = Self { folder, file, declared, runs: BTreeMap::new() };
        for run in figures.run_names() {
            let read = figures.read_run(&run)?;
            figures.runs.insert(run, read);
        }
        Ok(figures)
    }

    /// Every run that a figure or a grid uses, as the file names it.
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

    /// Makes all figures of a scenario be without numbers, since nothing of it could be measured.
    pub fn stand_on_nothing(&mut self, scenario: &str) {
        for figure in self.file.figures.iter_mut().filter(|it| it.scenario == scenario) {
            figure.run = None;
        }
        self.file.runs.remove(scenario);
    }

    /// Makes all figures of a scenario use new numbers. `raw` is the text of a `raw.csv`. With
    /// `mini`, it has the names of the scenario in miniature.
    ///
    /// # Errors
    /// `raw` is not the text of a `raw.csv`.
    pub fn stand_on(&mut self, scenario: &str, raw: &str, mini: bool) -> Result<()> {
        let mut raw = Raw::parse(raw)?;
        if let Some(declared) = self.declared.get(scenario).filter(|_| mini) {
            raw.rename(&declared.names_in_full());
        }
        self.stand_on_nothing(scenario);
        let run = format!("(measured) {scenario}");
        self.runs.insert(run.clone(), Some(raw));
        self.file.runs.insert(scenario.to_owned(), run);
        Ok(())
    }

    /// The cases to be measured for the figures with these names, or for all figures if there are
    /// no names. With `headline`, figures that are no headlines are left out. So are figures
    /// without a scenario file, since another program measures them. With `mini`, the cases also
    /// have their names in miniature.
    ///
    /// # Errors
    /// There is no figure with one of the names, or no headline figure though one is asked for.
    pub fn needed(&self, names: &[String], headline: bool, mini: bool) -> Result<Vec<Needed>> {
        if let Some(name) = names.iter().find(|name| self.figure(name).is_none()) {
            let known: Vec<&str> = self.file.figures.iter().map(|it| &it.name[..]).collect();
            bail!("there is no figure {name}; there are {}", known.join(", "));
        }
        if headline && self.wanted(names, headline).next().is_none() {
            let all = if names.is_empty() { "all figures".to_owned() } else { names.join(", ") };
            bail!("there is no headline figure among {all}: a headline has `headline = true`");
        }
        let mut needed: BTreeMap<&str, BTreeSet<&str>> = BTreeMap::new();
        // Without a scenario file, another program has made the figure's run.
        for figure in self.wanted(names, headline).filter(|it| self.has_scenario(it)) {
            let cases = needed.entry(&figure.scenario).or_default();
            let declared = self.declared.get(&figure.scenario).filter(|_| mini);
            for name in [Some(&figure.case), figure.to_case.as_ref()].into_iter().flatten() {
                cases.insert(name);
                let case = declared.and_then(|it| it.case(name));
                cases.extend(case.map(|it| &it.name_in_mini[..]));
            }
        }
        let needed = needed.into_iter().map(|(scenario, cases)| Needed {
            scenario: scenario.to_owned(),
            path: scenario_path(&self.folder, scenario),
            cases: cases.into_iter().map(str::to_owned).collect(),
        });
        Ok(needed.collect())
    }

    fn has_scenario(&self, figure: &Figure) -> bool {
        self.declared.contains_key(&figure.scenario)
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

    /// The names of the wanted figures that another program measures.
    pub fn measured_elsewhere(&self, names: &[String], headline: bool) -> Vec<String> {
        let figures = self.wanted(names, headline);
        let elsewhere = figures.filter(|it| !self.has_scenario(it));
        elsewhere.map(|it| it.name.clone()).collect()
    }

    /// The figures with these names, or all figures if there are no names, with the values of
    /// their runs. With `headline`, figures that are no headlines are left out.
    pub fn measured(&self, names: &[String], headline: bool) -> Vec<Measured> {
        self.wanted(names, headline).map(|it| self.measure(it)).collect()
    }

    fn measure(&self, figure: &Figure) -> Measured {
        let run = self.run_of(figure).unwrap_or_default();
        let raw = self.runs.get(run).and_then(Option::as_ref);
        let declared = self.declared.get(&figure.scenario);
        value::measure(figure, run, raw, declared.and_then(|it| it.case(&figure.case)))
    }

    /// The documents with tables. Each has its present text, and the text with its tables drawn
    /// from the runs.
    ///
    /// # Errors
    /// A document cannot be read, lacks the markers of a table, or has those of a table that is not
    /// drawn into it.
    pub fn documents(&self) -> Result<Vec<Document>> {
        let mut documents: BTreeMap<PathBuf, (Document, Vec<&String>)> = BTreeMap::new();
        let tables = self.file.tables.iter().map(|it| (&it.file, &it.name, self.table(it)));
        let grids = self.file.grids.iter().map(|it| (&it.file, &it.name, self.grid(it)));
        for (file, name, drawn) in tables.chain(grids) {
            let path = self.folder.join(file);
            let (document, names) = match documents.entry(table::real(&path)) {
                std::collections::btree_map::Entry::Occupied(entry) => entry.into_mut(),
                std::collections::btree_map::Entry::Vacant(entry) => {
                    let text = file::text(&path, TEXT_BYTES_MAX);
                    let text = text.with_context(|| format!("cannot read {}", path.display()))?;
                    let document = Document { path: path.clone(), drawn: text.clone(), text };
                    entry.insert((document, Vec::new()))
                }
            };
            names.push(name);
            document.drawn = table::put(&document.drawn, name, &drawn)
                .with_context(|| path.display().to_string())?;
        }
        for (Document { path, text, .. }, names) in documents.values() {
            if let Some((line, name)) = table::unknown(text, names) {
                bail!("{}:{line}: the figures file draws no table {name} here", path.display());
            }
        }
        Ok(documents.into_values().map(|(document, _)| document).collect())
    }

    fn table(&self, table: &FigureTable) -> String {
        let figures = table.figures.iter().filter_map(|name| self.figure(name));
        let measured: Vec<Measured> = figures.map(|it| self.measure(it)).collect();
        table::of_figures(&measured, &self.folder.join(&table.file), &self.folder)
    }

    fn grid(&self, grid: &Grid) -> String {
        let run = self.file.runs.get(&grid.scenario).map_or("", String::as_str);
        let raw = self.runs.get(run).and_then(Option::as_ref);
        table::of_grid(grid, run, raw, &self.folder.join(&grid.file), &self.folder)
    }
}

/// A document with tables of figures.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Document {
    /// The document's path.
    pub path: PathBuf,
    /// The text that the file has now.
    pub text: String,
    /// The same text with its tables drawn from their runs.
    pub drawn: String,
}

impl Document {
    /// The lines that change if the tables are drawn. For each line, its number from 1, the
    /// present line and the drawn line; a line that one text lacks is empty.
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

/// What the scenarios of all figures and grids declare, as far as their files are there.
fn declared(file: &FiguresFile, folder: &Path) -> Result<BTreeMap<String, Declaration>> {
    let figures = file.figures.iter().map(|it| &it.scenario);
    let names: BTreeSet<&String> =
        figures.chain(file.grids.iter().map(|it| &it.scenario)).collect();
    let paths = names.into_iter().map(|name| (name, scenario_path(folder, name)));
    let paths = paths.filter(|(_, path)| path.exists());
    paths.map(|(name, path)| Ok((name.clone(), Declaration::read(&path)?))).collect()
}

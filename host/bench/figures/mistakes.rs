//! Finds what is wrong with a figures file before anything is measured.
//!
//! Checks names inside the file, and names and quantities against the scenarios. Knows no run.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use super::format::{Figure, FiguresFile, Grid, scenario_path};
use super::value;
use crate::scenario::declaration::{Declaration, DeclaredCase, DeclaredRow};

/// More digits behind the point are of no use.
const DIGITS_MAX: usize = 9;
/// If there are more names to choose from, only the nearest one is said.
const NAMES_MAX: usize = 20;

/// All mistakes, in words. `folder` is the folder of the file, and `declared` has the scenarios
/// that are there.
pub fn mistakes(
    file: &FiguresFile,
    folder: &Path,
    declared: &BTreeMap<String, Declaration>,
) -> Vec<String> {
    let mut mistakes = of_tables(file);
    for figure in &file.figures {
        let named = |reason| format!("figure {}: {reason}", figure.name);
        let mut reasons = of_keys(figure);
        let run = figure.run.as_ref().or_else(|| file.runs.get(&figure.scenario));
        match declared.get(&figure.scenario) {
            Some(scenario) => reasons.extend(of_figure(figure, scenario)),
            None => reasons.extend(no_scenario(folder, &figure.scenario, run)),
        }
        mistakes.extend(reasons.into_iter().map(named));
    }
    for grid in &file.grids {
        let named = |reason| format!("table {}: {reason}", grid.name);
        let mut reasons = of_grid_keys(grid);
        let run = file.runs.get(&grid.scenario);
        match declared.get(&grid.scenario) {
            Some(scenario) => reasons.extend(of_grid(grid, scenario)),
            None => reasons.extend(no_scenario(folder, &grid.scenario, run)),
        }
        mistakes.extend(reasons.into_iter().map(named));
    }
    let scenarios = file.figures.iter().map(|it| &it.scenario[..]);
    let scenarios: BTreeSet<&str> =
        scenarios.chain(file.grids.iter().map(|it| &it.scenario[..])).collect();
    for name in file.runs.keys().filter(|name| !scenarios.contains(&name[..])) {
        let known = known(name, scenarios.iter().copied());
        mistakes.push(format!("runs: no figure is of a scenario `{name}`; {known}"));
    }
    mistakes
}

/// A scenario without a file has a run by another program.
fn no_scenario(folder: &Path, name: &str, run: Option<&String>) -> Option<String> {
    run.is_none().then(|| format!("there is no {}", scenario_path(folder, name).display()))
}

/// A scenario's name is also that of a folder below `--out`, beside `figures.txt`.
fn no_name(scenario: &str) -> Option<String> {
    let is_path = scenario.is_empty() || scenario.contains(['/', '.']);
    is_path.then(|| format!("scenario: `{scenario}` is no name; write one without `/` and `.`"))
}

/// What is wrong between the tables and the figures that they show.
fn of_tables(file: &FiguresFile) -> Vec<String> {
    let mut mistakes = Vec::new();
    let tables = file.tables.iter().map(|it| &it.name);
    let mut table_names = BTreeSet::new();
    for name in tables.chain(file.grids.iter().map(|it| &it.name)) {
        if !table_names.insert(name) {
            mistakes.push(format!("two tables are called {name}"));
        }
    }
    let mut names = BTreeSet::new();
    for figure in &file.figures {
        if !names.insert(&figure.name) {
            mistakes.push(format!("two figures are called {}", figure.name));
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

/// What is wrong between the keys of a figure.
fn of_keys(figure: &Figure) -> Vec<String> {
    let mut mistakes = Vec::new();
    mistakes.extend(no_name(&figure.scenario));
    mistakes.extend(no_number(figure.digits, figure.scale));
    let targets = [figure.at_most, figure.at_least, figure.aim];
    if targets.iter().flatten().any(|it| !it.is_finite()) {
        mistakes.push("`at_most`, `at_least` and `aim` are numbers".to_owned());
    }
    if value::is_many(&figure.side) && !value::is_pattern(&figure.side) {
        mistakes.push(format!("side: `{}` is no row; write a name, `*` or `*: name`", figure.side));
    }
    mistakes.extend(figure.to.iter().filter_map(|it| many("to", it)));
    mistakes.extend(figure.less.iter().filter_map(|it| many("less", it)));
    mistakes.extend(figure.over.iter().flatten().filter_map(|it| many("over", it)));
    let is_compared = figure.to.is_some() || figure.less.is_some() || figure.over.is_some();
    if value::is_many(&figure.side) && is_compared {
        mistakes.push("a `side` of many rows is compared with nothing".to_owned());
    }
    if figure.to.is_some() && figure.less.is_some() {
        mistakes.push("write one of `to` and `less`".to_owned());
    }
    if figure.over.is_some() && figure.to.is_none() {
        mistakes.push("`over` divides a ratio, which needs `to`".to_owned());
    }
    if figure.to_case.is_some() && figure.to.is_none() && figure.less.is_none() {
        mistakes.push("`to_case` needs `to` or `less`".to_owned());
    }
    mistakes
}

fn no_number(digits: usize, scale: f64) -> Option<String> {
    let is_wrong = digits > DIGITS_MAX || !scale.is_finite();
    is_wrong.then(|| format!("`digits` goes to {DIGITS_MAX}, `scale` is a number"))
}

fn many(key: &str, row: &str) -> Option<String> {
    value::is_many(row).then(|| format!("{key}: `{row}` stands for many rows; name one"))
}

/// What is wrong with the keys of a grid.
fn of_grid_keys(grid: &Grid) -> BTreeSet<String> {
    let mut mistakes = BTreeSet::from_iter(no_name(&grid.scenario));
    for column in &grid.columns {
        mistakes.extend(no_number(column.digits, column.scale));
        mistakes.extend(column.to.iter().filter_map(|it| many("to", it)));
    }
    mistakes.extend(grid.rows.iter().filter_map(|row| many("side", &row.side)));
    mistakes
}

/// What a figure names that its scenario does not have.
fn of_figure(figure: &Figure, scenario: &Declaration) -> Vec<String> {
    let (mut mistakes, mut quantities) = (Vec::new(), BTreeSet::new());
    let quantity = Some(&figure.quantity);
    let to_case = figure.to_case.as_ref();
    let base = to_case.unwrap_or(&figure.case);
    for (key, name) in [("case", Some(&figure.case)), ("to_case", to_case)] {
        mistakes.extend(name.and_then(|name| no_case(key, name, scenario)));
    }
    let mut rows = vec![("side", &figure.case, &figure.side)];
    rows.extend(figure.to.iter().map(|name| ("to", base, name)));
    rows.extend(figure.less.iter().map(|name| ("less", base, name)));
    rows.extend(figure.over.iter().flatten().map(|name| ("over", &figure.case, name)));
    for (key, case, name) in rows {
        let Some(case) = scenario.case(case) else { continue };
        match rows_of(case, name, key) {
            Err(mistake) => mistakes.push(mistake),
            Ok(rows) => {
                let of = figure.of.as_ref().filter(|_| key == "side");
                for (key, quantity) in [("quantity", quantity), ("of", of)] {
                    let mistake = quantity.and_then(|it| no_quantity(key, it, case, name, &rows));
                    quantities.extend(mistake);
                }
            }
        }
    }
    mistakes.extend(quantities);
    mistakes
}

/// What a grid names that its scenario does not have. A row may be in one case and not in others.
fn of_grid(grid: &Grid, scenario: &Declaration) -> BTreeSet<String> {
    let mut mistakes = BTreeSet::new();
    for column in &grid.columns {
        let Some(case) = scenario.case(&column.case) else {
            mistakes.extend(no_case("case", &column.case, scenario));
            continue;
        };
        if let Some(to) = &column.to
            && let Err(mistake) = rows_of(case, to, "to")
        {
            mistakes.insert(mistake);
        }
        let sides = grid.rows.iter().flat_map(|row| case.rows(&row.side));
        let sides: Vec<&DeclaredRow> = sides.collect();
        if !sides.is_empty() {
            let title = &column.title;
            mistakes.extend(no_quantity("quantity", &column.quantity, case, title, &sides));
        }
    }
    let cases: Vec<&DeclaredCase> =
        grid.columns.iter().filter_map(|column| scenario.case(&column.case)).collect();
    for row in grid.rows.iter().filter(|_| !cases.is_empty()) {
        if !cases.iter().any(|case| case.rows(&row.side).next().is_some()) {
            let names = cases.iter().flat_map(|case| case.rows.iter().map(|row| &row.name[..]));
            let known = known(&row.side, names);
            mistakes.insert(format!("side: no case has a row `{}`; {known}", row.side));
        }
    }
    mistakes
}

fn no_case(key: &str, name: &str, scenario: &Declaration) -> Option<String> {
    let known = || known(name, scenario.case_names());
    let missing = scenario.case(name).is_none();
    missing.then(|| format!("{key}: the scenario has no case `{name}`; {}", known()))
}

/// The rows of a case that a name stands for.
///
/// # Errors
/// There is none. The text says so.
fn rows_of<'a>(
    case: &'a DeclaredCase,
    name: &'a str,
    key: &str,
) -> Result<Vec<&'a DeclaredRow>, String> {
    let rows: Vec<&DeclaredRow> = if value::is_many(name) {
        case.rows.iter().filter(|row| value::is_among(name, &row.name)).collect()
    } else {
        case.rows(name).collect()
    };
    if rows.is_empty() {
        let known = known(name, case.rows.iter().map(|row| &row.name[..]));
        return Err(format!("{key}: the case `{}` has no row `{name}`; {known}", case.name));
    }
    Ok(rows)
}

/// `None` if one of the rows has the quantity.
fn no_quantity(
    key: &str,
    quantity: &str,
    case: &DeclaredCase,
    row: &str,
    rows: &[&DeclaredRow],
) -> Option<String> {
    let all: BTreeSet<&str> =
        rows.iter().flat_map(|row| &row.quantities).map(String::as_str).collect();
    (!all.contains(quantity)).then(|| {
        let known = known(quantity, all.iter().copied());
        format!("{key}: `{row}` of the case `{}` has no `{quantity}`; {known}", case.name)
    })
}

/// The names to choose from, in words: all of them, or the one that is most like `name`.
fn known<'a>(name: &str, names: impl Iterator<Item = &'a str>) -> String {
    let mut seen = BTreeSet::new();
    let names: Vec<&str> = names.filter(|name| seen.insert(*name)).collect();
    match names.iter().min_by_key(|it| edits(name, it)) {
        None => "there are none".to_owned(),
        Some(nearest) if names.len() > NAMES_MAX => format!("the nearest is `{nearest}`"),
        Some(_) => format!("there are `{}`", names.join("`, `")),
    }
}

/// How many characters have to be added, removed or replaced to make `to` of `from`: the distance
/// of Levenshtein.
fn edits(from: &str, to: &str) -> usize {
    let to: Vec<char> = to.chars().collect();
    let mut row: Vec<usize> = (0..=to.len()).collect();
    for (at, from) in from.chars().enumerate() {
        let mut diagonal = row[0];
        row[0] = at + 1;
        for (column, to) in to.iter().enumerate() {
            let replaced = diagonal + usize::from(from != *to);
            diagonal = row[column + 1];
            row[column + 1] = replaced.min(diagonal + 1).min(row[column] + 1);
        }
    }
    row[to.len()]
}

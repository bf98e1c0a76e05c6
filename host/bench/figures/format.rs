//! The figures file as it is written: its tables and keys.
//!
//! Knows nothing of runs. The docs of `figures.rs` list the keys with what they mean.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde::Deserialize;

#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FiguresFile {
    #[serde(default)]
    pub runs: BTreeMap<String, String>,
    #[serde(default, rename = "figure")]
    pub figures: Vec<Figure>,
    #[serde(default, rename = "table")]
    pub tables: Vec<FigureTable>,
    #[serde(default, rename = "grid")]
    pub grids: Vec<Grid>,
}

/// One figure as it is declared; the keys are in the docs of `figures.rs`.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Figure {
    pub name: String,
    pub title: String,
    pub scenario: String,
    pub run: Option<String>,
    pub case: String,
    pub side: String,
    pub quantity: String,
    pub to: Option<String>,
    pub to_case: Option<String>,
    pub less: Option<String>,
    pub over: Option<[String; 2]>,
    #[serde(default)]
    pub pick: Pick,
    pub of: Option<String>,
    #[serde(default = "one")]
    pub scale: f64,
    #[serde(default)]
    pub unit: String,
    #[serde(default = "two")]
    pub digits: usize,
    pub at_most: Option<f64>,
    pub at_least: Option<f64>,
    pub aim: Option<f64>,
    #[serde(default)]
    pub may_fail: bool,
    #[serde(default)]
    pub headline: bool,
}

/// How the values of the rounds become one value.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Pick {
    #[default]
    Median,
    Sum,
    Max,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FigureTable {
    pub name: String,
    pub file: PathBuf,
    pub figures: Vec<String>,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Grid {
    pub name: String,
    pub file: PathBuf,
    pub scenario: String,
    pub corner: String,
    pub columns: Vec<GridColumn>,
    pub rows: Vec<GridRow>,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct GridColumn {
    pub title: String,
    pub case: String,
    pub quantity: String,
    pub to: Option<String>,
    #[serde(default = "one")]
    pub scale: f64,
    #[serde(default)]
    pub unit: String,
    #[serde(default = "two")]
    pub digits: usize,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct GridRow {
    pub title: String,
    pub side: String,
}

fn one() -> f64 {
    1.0
}

fn two() -> usize {
    2
}

/// The path of a scenario's file. `folder` is the folder of the figures file.
pub fn scenario_path(folder: &Path, name: &str) -> PathBuf {
    folder.join(format!("scenarios/{name}.toml"))
}

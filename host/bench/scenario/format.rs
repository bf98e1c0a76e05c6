//! The format of a scenario file: its tables and keys, each with its place in the file.
//!
//! Values stay as they are written, since they may have placeholders. The docs of `scenario.rs` say
//! what each key means. `cases.rs`, `requests.rs` and `servers.rs` interpret the keys.

use std::collections::BTreeMap;
use std::fmt;
use std::ops::Range;

use serde::Deserialize;
use toml::Spanned;

/// A value and its place in the file.
pub type At<T> = Spanned<T>;

/// Placeholders with all their values. A table with such keys stands for each combination.
pub type Each = BTreeMap<String, At<Vec<Scalar>>>;

/// A number, or a text, which may have placeholders and may also stand for a number.
#[derive(Clone, Debug, Deserialize)]
#[serde(untagged, expecting = "expected a number or a text")]
pub enum Scalar {
    /// As in `50`.
    Integer(i64),
    /// As in `0.5`.
    Float(f64),
    /// As in `"{connections}"`.
    Text(String),
}

impl fmt::Display for Scalar {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Scalar::Integer(number) => number.fmt(out),
            Scalar::Float(number) => number.fmt(out),
            Scalar::Text(text) => text.fmt(out),
        }
    }
}

/// The whole file.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Scenario {
    pub title: String,
    pub rounds: Option<At<Scalar>>,
    pub duration: Option<At<Scalar>>,
    #[serde(default)]
    pub vars: BTreeMap<String, At<Scalar>>,
    #[serde(default)]
    pub mini: Mini,
    #[serde(default)]
    pub request: RequestTable,
    #[serde(default)]
    pub load: LoadTable,
    #[serde(default, rename = "prepare")]
    pub preparations: Vec<At<ServerTable>>,
    #[serde(default, rename = "server")]
    pub servers: Vec<At<ServerTable>>,
    #[serde(rename = "case")]
    pub cases: Vec<At<CaseTable>>,
}

/// The table `[mini]`.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Mini {
    #[serde(default)]
    pub vars: BTreeMap<String, At<Scalar>>,
}

/// A table `[[server]]` or `[[prepare]]`.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ServerTable {
    pub name: At<Scalar>,
    #[serde(default)]
    pub each: Each,
    pub command: At<Vec<At<Scalar>>>,
    #[serde(default)]
    pub version: Vec<At<Scalar>>,
    #[serde(default)]
    pub env: BTreeMap<String, At<Scalar>>,
    pub dir: Option<At<Scalar>>,
    pub ready: Option<At<Scalar>>,
    pub ready_within: Option<At<Scalar>>,
    pub settle_within: Option<At<Scalar>>,
    pub cpus: Option<At<Cpus>>,
    pub restart: Option<At<Scalar>>,
    #[serde(default)]
    pub files: BTreeMap<String, At<Scalar>>,
    pub needs: Option<At<Scalar>>,
    #[serde(default)]
    pub counters: Vec<At<Scalar>>,
}

/// The CPUs of a server or a generator.
#[derive(Clone, Debug, Deserialize)]
#[serde(untagged, expecting = "expected a list of numbers, `all`, `first N` or `after N`")]
pub enum Cpus {
    /// Places in the list of CPUs that may be used, from 0.
    Places(Vec<usize>),
    /// `all`, `first N` or `after N`, with placeholders.
    Words(String),
}

/// A table `[[case]]`.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CaseTable {
    pub name: At<Scalar>,
    pub measure: Option<At<Scalar>>,
    #[serde(default)]
    pub each: Each,
    pub rounds: Option<At<Scalar>>,
    pub duration: Option<At<Scalar>>,
    #[serde(default)]
    pub request: RequestTable,
    #[serde(default)]
    pub load: LoadTable,
    #[serde(default)]
    pub beside: Vec<At<BesideTable>>,
    pub versions: Option<At<VersionsTable>>,
    pub at_rest: Option<At<Scalar>>,
    pub overload: Option<At<OverloadTable>>,
    #[serde(default)]
    pub curve: CurveTable,
    #[serde(default)]
    pub sides: Vec<At<Scalar>>,
    #[serde(default, rename = "side")]
    pub tables: Vec<At<SideTable>>,
}

impl CaseTable {
    /// Its sides: those that are servers by name alone, and then the tables.
    pub fn all_sides(&self) -> Vec<SideTable> {
        let servers = self.sides.iter().cloned();
        let plain = servers.map(|it| SideTable { server: Some(it), ..SideTable::default() });
        plain.chain(self.tables.iter().map(|it| it.get_ref().clone())).collect()
    }

    /// The streams beside the first one of this side.
    pub fn beside_of<'a>(&'a self, side: &'a SideTable) -> &'a [At<BesideTable>] {
        if side.beside.is_empty() { &self.beside } else { &side.beside }
    }
}

/// A table `[[case.side]]`.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SideTable {
    pub name: Option<At<Scalar>>,
    #[serde(default)]
    pub each: Each,
    pub server: Option<At<Scalar>>,
    pub url: Option<At<Scalar>>,
    pub pid: Option<At<Scalar>>,
    #[serde(default)]
    pub request: RequestTable,
    #[serde(default)]
    pub load: LoadTable,
    #[serde(default)]
    pub beside: Vec<At<BesideTable>>,
    pub swaps: Option<At<VersionsTable>>,
    pub along: Option<At<AlongTable>>,
}

/// A table `along`.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AlongTable {
    pub command: At<Vec<At<Scalar>>>,
    pub lead: Option<At<Scalar>>,
    #[serde(default)]
    pub may_end: bool,
    pub needs: Option<At<Scalar>>,
}

/// A table `overload`.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct OverloadTable {
    pub times: Option<At<Scalar>>,
    pub unloaded: Option<At<Scalar>>,
    pub capacity_connections: Option<At<Scalar>>,
    pub longer: Option<At<Scalar>>,
}

/// A table in the list `beside`.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BesideTable {
    pub name: At<Scalar>,
    #[serde(default)]
    pub request: RequestTable,
    #[serde(default)]
    pub load: LoadTable,
    #[serde(default)]
    pub may_fail: bool,
}

/// A table `request`.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RequestTable {
    pub method: Option<At<Scalar>>,
    pub path: Option<At<Scalar>>,
    pub paths: Option<At<Vec<PathLine>>>,
    pub paths_file: Option<At<Scalar>>,
    pub paths_folder: Option<At<PathsFolder>>,
    pub spread: Option<At<SpreadValue>>,
    #[serde(default)]
    pub headers: BTreeMap<String, At<Scalar>>,
    pub body: Option<At<Scalar>>,
    pub body_file: Option<At<Scalar>>,
    pub body_bytes: Option<At<Scalar>>,
    pub status: Option<At<Scalar>>,
    pub bodies: Option<At<Scalar>>,
}

/// A line of `paths`. Its path may have ranges and placeholders.
#[derive(Clone, Debug, Deserialize)]
#[serde(untagged, expecting = "expected a path, or a table with `path` and `times`")]
pub enum PathLine {
    /// A path that is listed once.
    Once(String),
    /// A path that is listed several times.
    Times {
        /// The path.
        path: String,
        /// How often it is listed.
        times: usize,
    },
}

/// A table `paths_folder`.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PathsFolder {
    /// A folder of handlers.
    pub folder: At<Scalar>,
    /// The beginning of each path. The name of the handler follows it.
    pub prefix: At<Scalar>,
}

/// The value of `spread`.
#[derive(Clone, Debug, Deserialize)]
#[serde(untagged, expecting = "expected `uniform`, `once` or a table with `zipf`")]
pub enum SpreadValue {
    /// `uniform` or `once`.
    Word(String),
    /// Zipf's law.
    Zipf {
        /// Its exponent.
        zipf: f64,
    },
}

/// A table `load`.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LoadTable {
    pub connections: Option<At<Scalar>>,
    pub threads: Option<At<Scalar>>,
    pub pipeline: Option<At<Scalar>>,
    pub rate: Option<At<Scalar>>,
    pub arrivals: Option<At<Scalar>>,
    pub timeout: Option<At<Scalar>>,
    pub cpus: Option<At<Cpus>>,
    pub spin: Option<At<bool>>,
    pub nice: Option<At<Scalar>>,
}

/// A table `versions` or `swaps`.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct VersionsTable {
    #[serde(default)]
    pub files: Vec<At<Scalar>>,
    pub template: Option<At<Scalar>>,
    pub count: Option<At<Scalar>>,
    pub path: At<Scalar>,
    pub every: Option<At<Scalar>>,
    #[serde(default)]
    pub in_place: bool,
}

/// A table `curve`.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CurveTable {
    pub loads: Option<At<Vec<f64>>>,
    pub slowdown_max: Option<At<Scalar>>,
    pub quantile: Option<At<Scalar>>,
}

impl CurveTable {
    /// The place of its first key. `None` if it has no key.
    pub fn written_at(&self) -> Option<Range<usize>> {
        let scalars = [&self.slowdown_max, &self.quantile];
        let scalars = scalars.into_iter().flatten().map(At::span);
        self.loads.iter().map(At::span).chain(scalars).min_by_key(|at| at.start)
    }
}

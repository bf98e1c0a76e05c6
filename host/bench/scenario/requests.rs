//! Makes requests and loads of the `request` and `load` tables.
//!
//! For each key, the table nearest to the stream counts. All keys for paths are one key in this
//! sense, and so are all keys for the body.

use std::collections::BTreeMap;
use std::time::Duration;

use super::environment::Environment;
use super::format::{
    At, PathLine, PathsFolder, RequestTable as Table, Scalar, SpreadValue as SpreadTable,
};
use super::servers::cpus;
use super::text::{Reader, Vars};
use super::{format, paths};
use crate::file;
use crate::load::{Arrivals, Bodies, Load, PathDistribution, Request};
use crate::suite::Measure;

const BODY_BYTES_MAX: usize = 1 << 30;
const TIMEOUT: Duration = Duration::from_secs(10);
/// Stands for as many connections as this machine allows.
const MOST: &str = "most";

/// Reads the tables of one stream.
pub struct Context<'a, 'text> {
    /// Collects the mistakes.
    pub reader: &'a mut Reader<'text>,
    /// The machine.
    pub environment: &'a Environment,
    /// The placeholders of the stream's side.
    pub vars: &'a Vars,
    /// What the stream's case measures.
    pub measure: &'a Measure,
    /// A side of the case has a rate, or all have.
    pub has_rates: bool,
}

impl Context<'_, '_> {
    /// The request of a stream. `layers` are its tables, the nearest first. Mistakes go to the
    /// reader.
    ///
    /// # Errors
    /// This machine lacks a file. The text says which.
    pub fn request(&mut self, layers: &[&Table]) -> Result<Request, String> {
        let method = first(layers, |it| it.method.as_ref());
        let method = method.map_or("GET".to_owned(), |value| {
            let method = self.reader.text(value, self.vars);
            if method.is_empty() || !method.bytes().all(|byte| byte.is_ascii_uppercase()) {
                let reason = format!("method: {method:?} is none; write capital letters");
                self.reader.mistake(value.span(), reason);
            }
            method
        });
        let status = first(layers, |it| it.status.as_ref());
        let status =
            status.map(|value| self.reader.number("status", value, self.vars, 100_u16..=599));
        let paths = self.paths(layers)?;
        let bodies = self.bodies(layers, &paths)?;
        Ok(Request {
            method,
            paths,
            bodies,
            spread: self.spread(layers),
            headers: self.headers(layers),
            body: self.body(layers),
            status,
        })
    }

    fn paths(&mut self, layers: &[&Table]) -> Result<Vec<String>, String> {
        let table = paths_table(layers);
        let Some(table) = table else { return Ok(vec!["/".to_owned()]) };
        let mut found = Vec::new();
        let mut given_keys = Vec::new();
        if let Some(value) = &table.path {
            given_keys.push(("path", value.span()));
            let line = self.reader.text(value, self.vars);
            found.extend(self.expand(&line, value));
        }
        if let Some(value) = &table.paths {
            given_keys.push(("paths", value.span()));
            for line in value.get_ref() {
                let (line, times) = match line {
                    PathLine::Once(line) => (line, 1),
                    PathLine::Times { path, times } => (path, *times),
                };
                let line = self.reader.fill(line, value.span(), self.vars);
                let expanded = self.expand(&line, value);
                let times = times.min(paths::PATHS_MAX / expanded.len().max(1));
                found.extend(std::iter::repeat_n(expanded, times).flatten());
            }
        }
        if let Some(value) = &table.paths_file {
            given_keys.push(("paths_file", value.span()));
            let file = self.environment.existing(&self.reader.text(value, self.vars))?;
            let text = file::text(&file, BODY_BYTES_MAX as u64);
            let text = text.map_err(|error| format!("cannot read {}: {error}", file.display()))?;
            match paths::lines(&text) {
                Ok(lines) => found.extend(lines),
                Err(reason) => self.reader.mistake(value.span(), format!("paths_file: {reason}")),
            }
        }
        if let Some(value) = &table.paths_folder {
            given_keys.push(("paths_folder", value.span()));
            let folder = &value.get_ref().folder;
            let folder = self.environment.existing(&self.reader.text(folder, self.vars))?;
            let prefix = self.reader.text(&value.get_ref().prefix, self.vars);
            let failed = |error| format!("cannot read {}: {error}", folder.display());
            let files = paths::handlers(&folder).map_err(failed)?;
            if files.is_empty() {
                return Err(format!("there is no handler in {}", folder.display()));
            }
            match paths::of_handlers(&prefix, &files) {
                Ok(listed) => found.extend(listed),
                Err(reason) => self.reader.mistake(value.span(), format!("paths_folder: {reason}")),
            }
        }
        let (key, at) = given_keys.last().cloned().unwrap_or(("path", 0..0));
        if given_keys.len() > 1 {
            self.reader.mistake(at, format!("{key}: there are paths already; tell them one way"));
        } else if found.is_empty() && table.paths_folder.is_none() {
            self.reader.mistake(at, format!("{key}: there is no path in it"));
        } else if found.len() > paths::PATHS_MAX {
            let reason = format!("{key}: more than {} paths", paths::PATHS_MAX);
            self.reader.mistake(at, reason);
        }
        Ok(found)
    }

    fn expand<T>(&mut self, line: &str, value: &At<T>) -> Vec<String> {
        paths::expand(line).unwrap_or_else(|reason| {
            self.reader.mistake(value.span(), reason);
            Vec::new()
        })
    }

    fn spread(&mut self, layers: &[&Table]) -> PathDistribution {
        let Some(value) = first(layers, |it| it.spread.as_ref()) else {
            return PathDistribution::Uniform;
        };
        match value.get_ref() {
            SpreadTable::Word(word) if word == "uniform" => PathDistribution::Uniform,
            SpreadTable::Word(word) if word == "once" => {
                if *self.measure == Measure::Load {
                    return PathDistribution::Once;
                }
                // The file's own table has defaults, which need not suit each measure.
                let is_default = layer(layers, |it| it.spread.is_some()) == layers.len() - 1;
                if matches!(self.measure, Measure::Overload(_)) && !is_default {
                    let reason = "spread: \"once\" is for measure = \"load\"; write another one";
                    self.reader.mistake(value.span(), reason);
                }
                PathDistribution::Uniform
            }
            SpreadTable::Zipf { zipf } if (0.0..=10.0).contains(zipf) => {
                PathDistribution::Zipf { exponent: *zipf }
            }
            _ => {
                let reason = "spread: write \"uniform\", \"once\" or { zipf = 1.0 }, with 0 to 10";
                self.reader.mistake(value.span(), reason);
                PathDistribution::Uniform
            }
        }
    }

    /// The bodies that answers may have.
    fn bodies(&mut self, layers: &[&Table], paths: &[String]) -> Result<Bodies, String> {
        let value = first(layers, |it| it.bodies.as_ref());
        let Some(value) = value.filter(|_| *self.measure == Measure::Load) else {
            return Ok(Bodies::Any);
        };
        let choices = [("any", 0), ("as before", 1), ("answer", 2)];
        match self.reader.choice("bodies", value, self.vars, &choices) {
            0 => Ok(Bodies::Any),
            1 => Ok(Bodies::AsBefore),
            _ => {
                let folder = paths_table(layers).and_then(|it| it.paths_folder.as_ref());
                let Some(PathsFolder { folder, prefix }) = folder.map(toml::Spanned::get_ref)
                else {
                    let reason = "bodies: \"answer\" is for the handlers of `paths_folder`";
                    self.reader.mistake(value.span(), reason);
                    return Ok(Bodies::Any);
                };
                if !self.reader.text(prefix, self.vars).ends_with('/') {
                    let reason = "prefix: \"answer\" needs one that ends in a slash: it finds a \
                                  handler by the last part of its path";
                    self.reader.mistake(prefix.span(), reason);
                    return Ok(Bodies::Any);
                }
                let folder = self.environment.existing(&self.reader.text(folder, self.vars))?;
                if let Some(text) = paths.iter().find_map(|path| paths::text_of(&folder, path)) {
                    let text = text.display();
                    let reason = format!(
                        "bodies: \"answer\" is read from `.wasm` files, and {text} is none; \
                         compile it, or leave it out of the folder"
                    );
                    self.reader.mistake(value.span(), reason);
                    return Ok(Bodies::Any);
                }
                let answers = paths.iter().map(|path| paths::answer(&folder, path));
                Ok(Bodies::Each(answers.collect::<Result<_, _>>()?))
            }
        }
    }

    fn headers(&mut self, layers: &[&Table]) -> Vec<(String, String)> {
        let mut headers = BTreeMap::new();
        for (name, value) in layers.iter().rev().flat_map(|it| &it.headers) {
            let text = self.reader.text(value, self.vars);
            let token = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_';
            if name.is_empty() || !name.bytes().all(token) {
                let reason = format!("headers: {name:?} cannot be the name of a header");
                self.reader.mistake(value.span(), reason);
            } else if text.bytes().any(|byte| byte.is_ascii_control()) {
                let reason = format!("headers.{name}: its value has a control character");
                self.reader.mistake(value.span(), reason);
            }
            headers.insert(name.to_ascii_lowercase(), text);
        }
        headers.into_iter().collect()
    }

    fn body(&mut self, layers: &[&Table]) -> Vec<u8> {
        let table = layers
            .iter()
            .find(|it| it.body.is_some() || it.body_file.is_some() || it.body_bytes.is_some());
        let Some(table) = table else { return Vec::new() };
        match (&table.body, &table.body_file, &table.body_bytes) {
            (Some(value), None, None) => self.reader.text(value, self.vars).into_bytes(),
            (None, Some(value), None) => {
                let file = self.environment.path(&self.reader.text(value, self.vars));
                file::read(&file, BODY_BYTES_MAX as u64).unwrap_or_else(|error| {
                    let reason = format!("body_file: cannot read {}: {error}", file.display());
                    self.reader.mistake(value.span(), reason);
                    Vec::new()
                })
            }
            (None, None, Some(value)) => {
                let range = 0..=BODY_BYTES_MAX;
                let count = self.reader.number("body_bytes", value, self.vars, range);
                vec![b'x'; count]
            }
            (body, file, bytes) => {
                let all = [body, file, bytes];
                let at = all.into_iter().flatten().last().map_or(0..0, At::span);
                let reason = "body: write one of `body`, `body_file` and `body_bytes`";
                self.reader.mistake(at, reason);
                Vec::new()
            }
        }
    }

    /// The load of a stream that draws from its paths like this. `layers` are its tables, the
    /// nearest first, and that of the file last; `requests` are the tables of its request, which
    /// stand in the same places. Mistakes go to the reader.
    ///
    /// # Errors
    /// This machine has too few CPUs. The text says so.
    pub fn load(
        &mut self,
        layers: &[&format::LoadTable],
        requests: &[&Table],
        spread: PathDistribution,
    ) -> Result<Load, String> {
        if *self.measure == Measure::Load {
            self.check_rate(layers, requests, spread);
        }
        let get = |pick: fn(&format::LoadTable) -> Option<&At<Scalar>>| first(layers, pick);
        let cpus = match first(layers, |it| it.cpus.as_ref()) {
            Some(value) => cpus(value, self.reader, self.environment, self.vars)?,
            None => Vec::new(),
        };
        let (reader, vars) = (&mut *self.reader, self.vars);
        let connections = match get(|it| it.connections.as_ref()) {
            Some(value) if reader.text(value, vars) == MOST => self.environment.connections_max(),
            Some(value) => reader.number("connections", value, vars, 1..=1_000_000),
            None => 50,
        };
        let mut count = |key, value: Option<&At<Scalar>>| {
            value.map_or(1, |value| reader.number(key, value, vars, 1..=1024))
        };
        let threads = count("threads", get(|it| it.threads.as_ref()));
        let pipeline = count("pipeline", get(|it| it.pipeline.as_ref()));
        let rate = get(|it| it.rate.as_ref());
        let rate = rate.map(|value| reader.number("rate", value, vars, 0.001..=1e9));
        let rate = rate.filter(|_| spread != PathDistribution::Once);
        let choices = [("constant", Arrivals::Constant), ("poisson", Arrivals::Poisson)];
        let arrivals = get(|it| it.arrivals.as_ref());
        let arrivals = arrivals
            .map_or(Arrivals::Constant, |value| reader.choice("arrivals", value, vars, &choices));
        let timeout = get(|it| it.timeout.as_ref());
        let timeout = timeout.map_or(TIMEOUT, |value| reader.length("timeout", value, vars));
        // More threads than connections would have nothing to do.
        let threads = threads.min(connections);
        let spin = first(layers, |it| it.spin.as_ref()).is_some_and(|it| *it.get_ref());
        let nice = get(|it| it.nice.as_ref());
        let nice = nice.map_or(0, |value| reader.number("nice", value, vars, -20..=19));
        Ok(Load { connections, threads, pipeline, rate, arrivals, timeout, cpus, spin, nice })
    }

    /// Notes a mistake for a rate, or for arrivals, that have no effect. A table is for all streams
    /// of its case or file, so what it has may be without effect for some of them.
    fn check_rate(
        &mut self,
        layers: &[&format::LoadTable],
        requests: &[&Table],
        spread: PathDistribution,
    ) {
        let rate = first(layers, |it| it.rate.as_ref());
        let is_chosen =
            layer(layers, |it| it.rate.is_some()) <= layer(requests, |it| it.spread.is_some());
        let arrivals_at = layer(layers, |it| it.arrivals.is_some());
        let is_own = arrivals_at == 0 || (arrivals_at + 1 < layers.len() && !self.has_rates);
        let arrivals = layers.get(arrivals_at).and_then(|it| it.arrivals.as_ref());
        let arrivals = arrivals.filter(|_| is_own);
        if let (PathDistribution::Once, Some(rate), true) = (spread, rate, is_chosen) {
            let reason = "rate: paths that are asked for once have none; leave it out, or write \
                          another `spread`";
            self.reader.mistake(rate.span(), reason);
        } else if let (None, Some(arrivals)) = (rate, arrivals) {
            let reason = "arrivals: they are for requests with a `rate`; write one, or leave them \
                          out";
            self.reader.mistake(arrivals.span(), reason);
        }
    }
}

/// The first table that says what the paths are.
fn paths_table<'a>(layers: &[&'a Table]) -> Option<&'a Table> {
    let has_paths = |it: &&&Table| {
        it.path.is_some()
            || it.paths.is_some()
            || it.paths_file.is_some()
            || it.paths_folder.is_some()
    };
    layers.iter().find(has_paths).copied()
}

/// The place of the first table that has it, or how many tables there are.
fn layer<L>(layers: &[&L], has_it: impl Fn(&L) -> bool) -> usize {
    layers.iter().position(|layer| has_it(layer)).unwrap_or(layers.len())
}

/// The value in the first table that has it.
fn first<'a, L, T>(layers: &[&'a L], pick: impl Fn(&'a L) -> Option<&'a T>) -> Option<&'a T> {
    layers.iter().find_map(|layer| pick(layer))
}

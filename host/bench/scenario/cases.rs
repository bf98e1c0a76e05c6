//! Makes cases of the `[[case]]` tables, and leaves out those that this machine cannot run.
//!
//! Owns the order of the tables from which a stream inherits: its side's, its case's, the file's.

use std::collections::BTreeSet;
use std::ops::Range;
use std::time::Duration;

use toml::Spanned;

use super::environment::Environment;
use super::format::{self, At, BesideTable, Scalar, Scenario};
use super::measure_keys;
use super::requests::Context;
use super::servers::Servers;
use super::text::{Reader, Vars};
use crate::load::{Bodies, Request};
use crate::suite::{
    Along, Case, Curve, Measure, Origin, Overload, Pace, Side, Skipped, Stream, Version, Versions,
};

const ROUNDS: u32 = 5;
const DURATION: Duration = Duration::from_secs(10);
/// The limit in the papers on scheduling: the 99.9th percentile of slowdown is at most 10.
const SLOWDOWN_MAX: f64 = 10.0;
const QUANTILE: f64 = 0.999;
const LOADS: [f64; 9] = [0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9];
/// The memory of an idle server is read once it has not changed for so long.
const AT_REST: Duration = Duration::from_millis(200);
const SWAP_EVERY: Duration = Duration::from_millis(100);
/// Stands for a time between swaps: the next one comes once the last version has answered.
const SEEN: &str = "seen";
const VERSIONS_MAX: usize = 10_000;
const OVERLOAD_TIMES: f64 = 2.0;
const UNLOADED: f64 = 0.1;
const CAPACITY_CONNECTIONS: usize = 8;
/// How long a program runs before the measurement beside it begins.
const ALONG_LEAD: Duration = Duration::from_secs(2);

/// Reads the cases one after the other, and notes mistakes and missing things.
pub struct Cases<'a, 'text> {
    /// The scenario file.
    pub file: &'a Scenario,
    /// Collects the mistakes.
    pub reader: &'a mut Reader<'text>,
    /// The machine.
    pub environment: &'a Environment,
    /// The servers of the file, by name.
    pub servers: &'a Servers,
    /// The names of the servers in use, in the order of their first use. An `Origin` has a place
    /// in this list.
    pub used: Vec<String>,
    /// Sides and cases that this machine cannot run.
    pub skipped: Vec<Skipped>,
    /// Whether only a few combinations of `each` are read.
    pub mini: bool,
}

impl Cases<'_, '_> {
    /// All cases that this machine can run. `vars` are the placeholders of the file.
    pub fn read(&mut self, vars: &Vars) -> Vec<Case> {
        let file = self.file;
        let mut names = BTreeSet::new();
        let mut cases = Vec::new();
        for table in &file.cases {
            let table = table.get_ref();
            for vars in self.reader.combinations(&table.each, vars, self.mini) {
                let name = self.reader.text(&table.name, &vars);
                if !names.insert(name.clone()) {
                    let reason = format!(
                        "name: two cases are called `{name}`; every key of \
                                          `each` has to be in the name"
                    );
                    self.reader.mistake(table.name.span(), reason);
                }
                cases.extend(self.case(table, name, &vars));
            }
        }
        cases
    }

    /// `None` if this machine can measure nothing of it.
    fn case(&mut self, table: &format::CaseTable, name: String, vars: &Vars) -> Option<Case> {
        let word = self.measure_word(table, vars);
        // The same mistakes whatever this machine lacks.
        measure_keys::check(table, word, self.reader);
        let measure = match self.measure(table, word, vars) {
            Ok(measure) => measure,
            Err(reason) => {
                self.skip(&name, reason);
                return None;
            }
        };
        let rounds = table.rounds.as_ref().or(self.file.rounds.as_ref());
        let rounds = rounds.map_or(ROUNDS, |it| self.reader.number("rounds", it, vars, 1..=1000));
        let duration = table.duration.as_ref().or(self.file.duration.as_ref());
        let duration = duration.map_or(DURATION, |it| self.reader.length("duration", it, vars));
        let mut sides: Vec<Side> = Vec::new();
        for side in &table.all_sides() {
            for vars in self.reader.combinations(&side.each, vars, false) {
                let at = side.url.as_ref().map_or(table.name.span(), At::span);
                let Some(side) = self.side(table, &measure, side, &name, &vars) else { continue };
                if sides.iter().any(|it| it.name == side.name) {
                    let reason = format!("name: two sides are called `{}`", side.name);
                    self.reader.mistake(table.name.span(), reason);
                }
                let is_started = matches!(side.origin, Origin::Started(_));
                if !is_started && matches!(measure, Measure::Start | Measure::Drop(_)) {
                    let reason = "url: this measure needs a server that is started for it";
                    self.reader.mistake(at, reason);
                }
                sides.push(side);
            }
        }
        if table.sides.is_empty() && table.tables.is_empty() {
            let reason = "sides: there is nothing to measure; write sides = [\"a server\"]";
            self.reader.mistake(table.name.span(), reason);
        } else if sides.is_empty() {
            self.skip(&name, "none of its sides can be measured here".to_owned());
            return None;
        }
        Some(Case { name, measure, rounds, duration, sides })
    }

    fn measure_word(&mut self, table: &format::CaseTable, vars: &Vars) -> &'static str {
        let words = ["load", "idle", "start", "drop", "curve", "overload"];
        let choices = words.map(|word| (word, word));
        let word = table.measure.as_ref();
        word.map_or("load", |word| self.reader.choice("measure", word, vars, &choices))
    }

    fn measure(
        &mut self,
        table: &format::CaseTable,
        word: &str,
        vars: &Vars,
    ) -> Result<Measure, String> {
        if let (false, Some(at)) = (word == "curve", table.curve.written_at()) {
            self.reader.mistake(at, "curve: it is for measure = \"curve\"");
        }
        if let (true, Some(at_rest)) = (word != "idle", &table.at_rest) {
            self.reader.mistake(at_rest.span(), "at_rest: it is for measure = \"idle\"");
        }
        if let (true, Some(overload)) = (word != "overload", &table.overload) {
            self.reader.mistake(overload.span(), "overload: it is for measure = \"overload\"");
        }
        match (word, &table.versions) {
            ("drop", Some(versions)) => {
                let read = self.versions(versions, vars)?;
                let table = versions.get_ref();
                if table.in_place || table.every.is_some() {
                    let reason = "versions: `every` and `in_place` are for `swaps`; leave them out";
                    self.reader.mistake(versions.span(), reason);
                } else if read.versions.len() > 2 {
                    let reason = "versions: the second is dropped over the first; write no more";
                    self.reader.mistake(versions.span(), reason);
                }
                Ok(Measure::Drop(read))
            }
            ("drop", None) => {
                let reason = "versions: what is dropped? Write { files = [.., ..], path = .. }";
                self.reader.mistake(table.name.span(), reason);
                Ok(Measure::Load)
            }
            (_, Some(versions)) => {
                let reason = "versions: they are for measure = \"drop\"; a side has `swaps`";
                self.reader.mistake(versions.span(), reason);
                Ok(Measure::Load)
            }
            ("idle", None) => {
                let at_rest = table.at_rest.as_ref();
                let at_rest =
                    at_rest.map_or(AT_REST, |it| self.reader.duration("at_rest", it, vars));
                Ok(Measure::Idle { at_rest })
            }
            ("overload", None) => {
                let table = table.overload.as_ref().map(Spanned::get_ref);
                Ok(Measure::Overload(self.overload(table, vars)))
            }
            ("start", None) => Ok(Measure::Start),
            ("curve", None) => Ok(Measure::Curve(self.curve(&table.curve, vars))),
            (_, None) => Ok(Measure::Load),
        }
    }

    fn curve(&mut self, table: &format::CurveTable, vars: &Vars) -> Curve {
        let loads = table.loads.as_ref().map_or(LOADS.to_vec(), |value| {
            let loads = value.get_ref();
            let rising = loads.is_sorted_by(|low, high| low < high);
            if loads.is_empty() || !rising || loads.iter().any(|it| !(0.0..=2.0).contains(it)) {
                let reason = "curve.loads: write parts of the capacity that rise, from 0 to 2";
                self.reader.mistake(value.span(), reason);
            }
            loads.clone()
        });
        let mut number = |key, value: Option<&At<Scalar>>, default: f64, range| {
            value.map_or(default, |value| self.reader.number(key, value, vars, range))
        };
        let slowdown = table.slowdown_max.as_ref();
        let slowdown_max = number("curve.slowdown_max", slowdown, SLOWDOWN_MAX, 1.0..=1e6);
        let quantile = table.quantile.as_ref();
        let quantile = number("curve.quantile", quantile, QUANTILE, 0.5..=1.0);
        Curve { loads, slowdown_max, quantile }
    }

    fn overload(&mut self, table: Option<&format::OverloadTable>, vars: &Vars) -> Overload {
        let default = format::OverloadTable::default();
        let table = table.unwrap_or(&default);
        let mut number = |key, value: Option<&At<Scalar>>, default: f64, range| {
            value.map_or(default, |value| self.reader.number(key, value, vars, range))
        };
        let times = number("overload.times", table.times.as_ref(), OVERLOAD_TIMES, 1.0..=100.0);
        let unloaded = table.unloaded.as_ref();
        let unloaded = number("overload.unloaded", unloaded, UNLOADED, 0.001..=1.0);
        let longer = number("overload.longer", table.longer.as_ref(), 1.0, 0.1..=1000.0);
        let count = table.capacity_connections.as_ref();
        let capacity_connections = count.map_or(CAPACITY_CONNECTIONS, |it| {
            self.reader.number("overload.capacity_connections", it, vars, 1..=100_000)
        });
        Overload { times, unloaded, capacity_connections, longer }
    }

    fn versions(
        &mut self,
        at: &At<format::VersionsTable>,
        vars: &Vars,
    ) -> Result<Versions, String> {
        let table = at.get_ref();
        let mut file = |value| self.environment.existing(&self.reader.text(value, vars));
        let mut versions = Vec::new();
        for value in &table.files {
            versions.push(Version::File(file(value)?));
        }
        if let Some(template) = &table.template {
            let path = file(template)?;
            let count = table.count.as_ref();
            let count =
                count.map_or(2, |it| self.reader.number("count", it, vars, 2..=VERSIONS_MAX));
            versions
                .extend((0..count).map(|number| Version::Template { path: path.clone(), number }));
        }
        if versions.len() < 2 || (table.template.is_some() && !table.files.is_empty()) {
            let reason = "versions: write two `files` at least, or a `template` and a `count`";
            self.reader.mistake(at.span(), reason);
        } else if let (None, Some(count)) = (&table.template, &table.count) {
            let reason = "count: it is for a `template`; leave it out";
            self.reader.mistake(count.span(), reason);
        }
        let path = self.reader.text(&table.path, vars).into();
        let pace = match &table.every {
            Some(value) if self.reader.text(value, vars) == SEEN => Pace::Seen,
            Some(value) => Pace::Every(self.reader.duration("every", value, vars)),
            None => Pace::Every(SWAP_EVERY),
        };
        Ok(Versions { versions, path, pace, in_place: table.in_place })
    }

    /// `None` if this machine cannot measure it.
    fn side(
        &mut self,
        case: &format::CaseTable,
        measure: &Measure,
        side: &format::SideTable,
        case_name: &str,
        vars: &Vars,
    ) -> Option<Side> {
        let (default_name, origin) = self.origin(side, case.name.span(), vars)?;
        let name = side.name.as_ref().map_or(default_name, |name| self.reader.text(name, vars));
        // Read the streams even without the server, because mistakes do not depend on the machine.
        match (self.streams(case, measure, side, &name, vars), origin) {
            (Ok((streams, swaps)), Some(origin)) => {
                let along = match self.along(side, vars) {
                    Ok(along) => along,
                    Err(reason) => {
                        self.skip(&format!("{case_name}: {name}"), reason);
                        return None;
                    }
                };
                Some(Side { name, origin, streams, swaps, along })
            }
            (_, None) => None,
            (Err(reason), Some(_)) => {
                self.skip(&format!("{case_name}: {name}"), reason);
                None
            }
        }
    }

    /// The server's name, and its origin unless this machine cannot run it. `None` for a mistake.
    fn origin(
        &mut self,
        side: &format::SideTable,
        at: Range<usize>,
        vars: &Vars,
    ) -> Option<(String, Option<Origin>)> {
        match (&side.server, &side.url) {
            (Some(value), None) => {
                let name = self.reader.text(value, vars);
                if let Some(pid) = &side.pid {
                    let reason = "pid: it is for a `url`; the process of a `server` is known";
                    self.reader.mistake(pid.span(), reason);
                }
                let Some(launch) = self.servers.get(&name) else {
                    let known: Vec<&str> = self.servers.keys().map(String::as_str).collect();
                    let reason =
                        format!("server: there is no `{name}`; there are {}", known.join(", "));
                    self.reader.mistake(value.span(), reason);
                    return None;
                };
                if let Err(reason) = launch {
                    self.skip(&name, reason.clone());
                    return Some((name, None));
                }
                let place = self.used.iter().position(|used| *used == name).unwrap_or_else(|| {
                    self.used.push(name.clone());
                    self.used.len() - 1
                });
                Some((name, Some(Origin::Started(place))))
            }
            (None, Some(value)) => {
                let url = self.reader.text(value, vars);
                let authority = url.strip_prefix("http://").map(|rest| rest.trim_end_matches('/'));
                let Some(authority) = authority.filter(|it| !it.contains('/') && it.contains(':'))
                else {
                    let reason = format!("url: {url:?} is not http://HOST:PORT");
                    self.reader.mistake(value.span(), reason);
                    return None;
                };
                let pid = side.pid.as_ref();
                let pid = pid.map(|pid| self.reader.number("pid", pid, vars, 1..=u32::MAX));
                let authority = authority.to_owned();
                Some((url, Some(Origin::Elsewhere { authority, pid })))
            }
            _ => {
                self.reader.mistake(at, "side: write one of `server` and `url`");
                None
            }
        }
    }

    fn streams(
        &mut self,
        case: &format::CaseTable,
        measure: &Measure,
        side: &format::SideTable,
        name: &str,
        vars: &Vars,
    ) -> Result<(Vec<Stream>, Option<Versions>), String> {
        let file = self.file;
        let (reader, environment) = (&mut *self.reader, self.environment);
        let sides = case.tables.iter().map(|it| &it.get_ref().load);
        let has_rates = sides.chain([&case.load]).any(|it| it.rate.is_some());
        let mut context = Context { reader, environment, vars, measure, has_rates };
        let requests = [&side.request, &case.request, &file.request];
        let request = context.request(&requests)?;
        let loads = [&side.load, &case.load, &file.load];
        let load = context.load(&loads, &requests, request.spread)?;
        let mut streams = vec![Stream { name: name.to_owned(), request, load, may_fail: false }];
        for table in case.beside_of(side) {
            let BesideTable { name, request, load, may_fail } = table.get_ref();
            let requests = [request, &file.request];
            let request = context.request(&requests)?;
            let load = context.load(&[load, &file.load], &requests, request.spread)?;
            let name = context.reader.text(name, vars);
            streams.push(Stream { name, request, load, may_fail: *may_fail });
        }
        let Some(table) = &side.swaps else { return Ok((streams, None)) };
        let swaps = self.versions(table, vars)?;
        // Of other paths and streams nobody knows which answers are of the file that is swapped.
        let own = &streams[0].request.paths;
        let is_unclear = |(number, stream): (usize, &Stream)| {
            let Request { bodies, paths, .. } = &stream.request;
            let has_own = paths.iter().any(|path| own.contains(path));
            *bodies == Bodies::AsBefore && if number == 0 { paths.len() > 1 } else { has_own }
        };
        if streams.iter().enumerate().any(is_unclear) {
            let reason = "swaps: only the first stream may ask for the file that is swapped if \
                          `bodies` are \"as before\", and for no other path";
            self.reader.mistake(table.span(), reason);
        }
        Ok((streams, Some(swaps)))
    }

    /// The program that runs beside a side.
    fn along(&mut self, side: &format::SideTable, vars: &Vars) -> Result<Option<Along>, String> {
        let Some(table) = side.along.as_ref().map(Spanned::get_ref) else { return Ok(None) };
        let words = table.command.get_ref().iter();
        let mut command: Vec<String> = words.map(|it| self.reader.text(it, vars)).collect();
        let Some(program) = command.first_mut() else {
            self.reader.mistake(table.command.span(), "command: there is no program in it");
            return Ok(None);
        };
        let needs = table.needs.as_ref().map(|needs| self.reader.text(needs, vars));
        let found = self.environment.program(program);
        let found = found.map_err(|reason| match needs {
            Some(needs) => format!("{reason}; {needs}"),
            None => reason,
        });
        *program = found?.display().to_string();
        let lead = table.lead.as_ref();
        let lead = lead.map_or(ALONG_LEAD, |it| self.reader.duration("lead", it, vars));
        Ok(Some(Along { command, lead, may_end: table.may_end }))
    }

    fn skip(&mut self, name: &str, reason: String) {
        let skipped = Skipped { name: name.to_owned(), reason };
        if !self.skipped.contains(&skipped) {
            self.skipped.push(skipped);
        }
    }
}

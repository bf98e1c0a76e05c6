//! Scenarios: files that say which servers to start, what to ask them, and how often.
//!
//! A scenario is TOML. All its tables and keys, with their defaults:
//!
//! ```toml
//! title = "Guests and their twins"
//! rounds = 5                # how often every side is measured
//! duration = "10s"          # how long each measurement takes, in us, ms, s or m
//!
//! [vars]                    # placeholders of your own; they may contain others
//! many = 10_000
//! [mini.vars]               # their values in miniature, as in `cargo test`
//! many = 100
//!
//! [request]                 # for all streams; each key may be written anew in a case,
//! path = "/hello"           # and again in a side
//! [load]                    # likewise
//! cpus = [1]
//!
//! [[prepare]]               # keys of [[server]]: a server that starts and ends before all others
//!
//! [[server]]
//! name = "guesthouse {isolation}"
//! each.isolation = ["fresh", "reuse"]          # a server for each
//! command = ["{guesthouse}", "demo", "--listen", "127.0.0.1:{port}"]
//! version = ["{guesthouse}", "--version"]      # the report has the first line that it prints
//! env = { NO_COLOR = "1" }
//! dir = "."                 # working directory; default: that of the command
//! ready = "/hello"          # the server is up once it answers this with less than 400
//! ready_within = "30s"
//! settle_within = "0s"      # then waits until the server has nothing left to do by itself
//! cpus = "first 1"          # or [0], "after 1", "all"
//! counters = ["turn_max_us"]  # which of its counters, logged after SIGUSR1, raw.csv has
//! restart = "case"          # or "round"; a server that is busy after a timeout starts anew, too
//! files = { "a.wasm" = "{guests}/hello.wasm" }  # files and folders to copy into {dir} first;
//!                           # a range "{00..99}.wat" is a hundred names
//! needs = "how to get it"   # the report says so if something is missing
//!
//! [[case]]                  # one table of the report
//! name = "{path} on {connections} connections"
//! measure = "load"          # or idle, start, drop, curve, overload; a key that it does not use
//!                           # is a mistake, unless it stands in the file's own tables
//! each = { path = ["/hello", "/json"], connections = [1, 50] }  # a case for each combination
//! rounds = 5
//! duration = "10s"
//! request = { path = "{path}" }
//! load = { connections = "{connections}" }
//! sides = ["guesthouse fresh"]                 # servers by name; [[case.side]] adds more
//! beside = []               # further streams for sides that have none of their own: see below
//! versions = { files = ["a.wasm", "b.wasm"], path = "a.wasm" }  # for measure = "drop"
//! at_rest = "200ms"         # for measure = "idle": how long memory has to stay the same
//! overload = { times = 2, unloaded = 0.1, capacity_connections = 8, longer = 1 }
//! curve = { loads = [0.1, 0.5], slowdown_max = 10, quantile = 0.999 }
//!
//! [[case.side]]
//! name = "beside"           # default: the server's name, or the URL
//! server = "guesthouse reuse"                  # or: url = "http://HOST:PORT", pid = 123
//! each = {}                 # a side for each combination
//! request.method = "GET"    # a table of its own, or dotted keys
//! request.path = "/hello"   # or one of the next three
//! request.paths = ["/{00..99}", { path = "/fib/30", times = 2 }]
//! request.paths_file = "paths.txt"             # one on each line
//! request.paths_folder = { folder = "{cache}/many/hostile", prefix = "/hostile/" }
//! request.spread = "uniform"                   # or { zipf = 1.0 }; or "once": each path once
//! request.bodies = "any"    # or "as before": the body that the path had before the measurement;
//!                           # or "answer": the custom section `answer` of its .wasm file in
//!                           # paths_folder
//! request.headers = { accept = "text/plain" }
//! request.body = "text"     # or body_file = "FILE", or body_bytes = 1024
//! request.status = 200      # default: any below 400
//! load.connections = 50     # or "most": as many as the machine allows
//! load.threads = 1
//! load.pipeline = 1         # most requests in flight on each connection
//! load.rate = 4000          # requests a second; default: as fast as answers come
//! load.arrivals = "constant"                   # or poisson; for requests with a rate
//! load.timeout = "10s"
//! load.cpus = "after 1"     # default: all
//! load.nice = 0             # priority of the generator, from -20 to 19 as for nice(1)
//! load.spin = false         # true: never sleep; exact to the microsecond, but takes a whole CPU
//! beside = [{ name = "fib", request.path = "/fib/32", load.connections = 4, may_fail = false }]
//! swaps = { files = ["a.wasm", "b.wasm"], path = "a.wasm", every = "100ms" }  # or "seen"
//! along = { command = ["ab", "http://127.0.0.1:{port}/"], lead = "2s", needs = "how to get it" }
//! ```
//!
//! `swaps` replace the file `path` in the server's `{dir}` during a load, with one version after
//! the other. If `every` is `"seen"`, the next version comes once the last one has answered. With
//! `in_place = true`, every second version is written in place; all others are renamed to `path`.
//! Instead of `files`, `swaps` and `versions` may have a `template`: a text file in which `VERSION`
//! becomes the number of each of `count` versions, of which there are two by default.
//!
//! `along` is a program that runs during a load, and starts `lead` before it. If it ends before
//! the load, the measurement fails; with `may_end = true` it may end with success. For `overload`,
//! a closed loop on `capacity_connections` finds the capacity. Then latency is measured at the
//! part `unloaded` of the capacity, and `times` the capacity is offered for `longer` times the
//! duration.
//!
//! Streams beside the first inherit from the file's tables only. A range `"1..4"` in `each` is four
//! values, and a range `{00..99}` in a path is a hundred paths. A number may be written as a text
//! with a placeholder.
//!
//! Placeholders are `{guesthouse}`, this program; `{here}`, the folder of the file; `{root}`, the
//! folder that has `benches`; `{guests}`, the demo guests that the build has left; `{peers}`, the
//! folder of installed peers (`GUESTHOUSE_PEERS`, else `../peers/installed`); `{cache}`, a folder
//! that stays (`GUESTHOUSE_BENCH_CACHE`, else in the user's cache folder); `{cpus}`, the number of
//! CPUs that may be used. The tables of servers also have `{port}` and `{dir}`, an empty folder;
//! the command of `along` has `{port}`. Relative paths begin at `{here}`, but a program without a
//! slash is looked for in the PATH.
//!
//! If this machine lacks something, the report names it with the reason, and leaves out a server
//! with all its sides, a side, or a case without sides. If the file has mistakes, nothing is
//! measured. All of them are listed, each with its line.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};

use super::launch::Launch;
use super::process::Server;
use super::suite::{Case, Measure, Origin, Skipped, Suite, draw_seed};
use crate::file;
use cases::Cases;
use declaration::{Declaration, TEXT_BYTES_MAX};
use environment::Environment;
use format::Scenario;
use servers::Servers;
use text::{Reader, Vars};

mod cases;
pub mod declaration;
mod environment;
mod format;
mod measure_keys;
mod mini;
mod paths;
mod requests;
mod servers;
mod text;

/// Settings of the command line that replace those of a scenario.
#[derive(Clone, Debug, Default)]
pub struct Overrides {
    /// How long each measurement takes.
    pub duration: Option<Duration>,
    /// How often each side is measured.
    pub rounds: Option<u32>,
    /// The longest duration of a measurement. Shorter ones stay as they are.
    pub duration_max: Option<Duration>,
    /// Connections of the first stream of each side.
    pub connections: Option<usize>,
    /// Runs everything once and as small as possible, to see that it works.
    pub mini: bool,
    /// The seed of the suite. `None` draws one.
    pub seed: Option<u64>,
    /// Names of cases; only these are measured. None means all.
    pub cases: Vec<String>,
    /// Parts of names. A case with one of them in its name is measured whole. Of another case, only
    /// sides with one of them in their names are. If this is empty, everything is measured.
    pub only: Vec<String>,
}

/// Reads a scenario. First starts the servers of its `[[prepare]]` tables and ends them again, and
/// blocks until then. `cache` is a folder of the user, in which a scenario may keep files that are
/// slow to make.
///
/// # Errors
/// The file cannot be read, or has mistakes, which the error lists one on each line; no name has
/// one of the parts in `only`; a preparation fails; or `interrupted` is set during one.
pub fn read(
    path: &Path,
    overrides: &Overrides,
    cache: Option<PathBuf>,
    interrupted: &AtomicBool,
) -> Result<Suite> {
    let shown = path.display().to_string();
    let text = file::text(path, TEXT_BYTES_MAX).with_context(|| format!("cannot read {shown}"))?;
    let here = path.canonicalize()?.parent().map(Path::to_path_buf).unwrap_or_default();
    let file: Scenario = match toml::from_str(&text) {
        Ok(file) => file,
        Err(error) => {
            let mut reader = Reader::new(&shown, &text);
            reader.mistake(error.span().unwrap_or_default(), error.message().trim());
            bail!(reader.into_mistakes().join("\n"));
        }
    };
    let mini = overrides.mini;
    let environment = Environment::new(here, cache, mini);
    let mut draft = draft(&file, Reader::new(&shown, &text), &environment, overrides)?;
    let mut skipped = Vec::new();
    if !file.preparations.is_empty() {
        check_only(&file, overrides)?;
        skipped = prepare(draft.preparations, interrupted)?;
        // Read again: the preparations may have made files that were missing.
        draft = self::draft(&file, Reader::new(&shown, &text), &environment, overrides)?;
    }
    skipped.extend(draft.skipped);
    let mut suite = Suite {
        title: file.title.clone(),
        servers: draft.servers,
        cases: keep_only(draft.cases, overrides, &skipped)?,
        seed: overrides.seed.unwrap_or_else(draw_seed),
        skipped,
    };
    apply(&mut suite.cases, overrides);
    if mini {
        mini::shrink(&mut suite.cases);
    }
    drop_impossible(&mut suite, &environment);
    forget_unused_servers(&mut suite);
    Ok(suite)
}

/// A scenario as this machine can run it now.
struct Draft {
    preparations: Servers,
    servers: Vec<Launch>,
    cases: Vec<Case>,
    skipped: Vec<Skipped>,
}

fn draft(
    file: &Scenario,
    mut reader: Reader<'_>,
    environment: &Environment,
    overrides: &Overrides,
) -> Result<Draft> {
    let mini = overrides.mini;
    let vars = vars(file, &mut reader, environment, mini);
    let preparations = servers::read(&file.preparations, &mut reader, environment, &vars, mini);
    servers::check_preparations(&file.preparations, &mut reader);
    let servers = servers::read(&file.servers, &mut reader, environment, &vars, mini);
    let mut all = Cases {
        file,
        reader: &mut reader,
        environment,
        servers: &servers,
        used: Vec::new(),
        skipped: Vec::new(),
        // Of cases that are named, none is left out.
        mini: mini && overrides.cases.is_empty(),
    };
    let cases = all.read(&vars);
    let (used, skipped) = (all.used, all.skipped);
    let mistakes = reader.into_mistakes();
    if !mistakes.is_empty() {
        bail!(mistakes.join("\n"));
    }
    let servers = used.iter().filter_map(|name| servers.get(name)?.clone().ok()).collect();
    Ok(Draft { preparations, servers, cases, skipped })
}

/// Placeholders of the place and of the file.
fn vars(file: &Scenario, reader: &mut Reader<'_>, environment: &Environment, mini: bool) -> Vars {
    let mut vars = environment.vars();
    for (name, value) in &file.vars {
        if vars.insert(name.clone(), value.get_ref().to_string()).is_some() {
            reader.mistake(value.span(), format!("vars.{name}: this name is taken"));
        }
    }
    for (name, value) in &file.mini.vars {
        if !file.vars.contains_key(name) {
            reader.mistake(value.span(), format!("mini.vars.{name}: it is not in [vars]"));
        } else if mini {
            vars.insert(name.clone(), value.get_ref().to_string());
        }
    }
    vars
}

/// Starts and ends the servers of `[[prepare]]`. Those that this machine cannot run are skipped.
fn prepare(preparations: Servers, interrupted: &AtomicBool) -> Result<Vec<Skipped>> {
    let mut skipped = Vec::new();
    for (name, launch) in preparations {
        match launch {
            Ok(launch) => {
                tracing::info!("{name}: is prepared");
                Server::start(&launch, interrupted)?.stop();
            }
            Err(reason) => skipped.push(Skipped { name, reason }),
        }
    }
    Ok(skipped)
}

/// Finds out that no name has one of the parts in `only` before minutes are spent on preparations.
fn check_only(file: &Scenario, overrides: &Overrides) -> Result<()> {
    let only = &overrides.only;
    let declared = Declaration::of(file);
    if only.is_empty() || declared.has_part(only, overrides.mini) {
        return Ok(());
    }
    let names: Vec<&str> = declared.case_names().collect();
    bail!(none_has(only, &names.join("\n  ")))
}

fn none_has(only: &[String], names: &str) -> String {
    let only = only.join(", ");
    format!("no case and no side has {only} in its name; the cases are:\n  {names}")
}

fn keep_only(
    mut cases: Vec<Case>,
    overrides: &Overrides,
    skipped: &[Skipped],
) -> Result<Vec<Case>> {
    let only = &overrides.only;
    // What of these cannot be measured here is among what is skipped.
    if !overrides.cases.is_empty() {
        cases.retain(|case| overrides.cases.contains(&case.name));
    }
    if only.is_empty() {
        return Ok(cases);
    }
    let is_wanted = |name: &str| only.iter().any(|part| name.contains(part.as_str()));
    let names: Vec<String> = cases.iter().map(|case| case.name.clone()).collect();
    let mut selected = cases;
    for case in selected.iter_mut().filter(|case| !is_wanted(&case.name)) {
        case.sides.retain(|side| is_wanted(&side.name));
    }
    selected.retain(|case| !case.sides.is_empty());
    if selected.is_empty() {
        let none_has = none_has(only, &names.join("\n  "));
        let skipped = skipped.iter().map(|it| format!("\nskipped: {}: {}", it.name, it.reason));
        let skipped: String = skipped.collect();
        bail!("{none_has}{skipped}");
    }
    Ok(selected)
}

fn apply(cases: &mut [Case], overrides: &Overrides) {
    for case in cases {
        let duration = overrides.duration.unwrap_or(case.duration);
        // Paths that are asked for once come to an end by themselves.
        if !case.asks_once() {
            case.duration = overrides.duration_max.map_or(duration, |it| duration.min(it));
        }
        case.rounds = overrides.rounds.unwrap_or(case.rounds);
        for stream in case.sides.iter_mut().filter_map(|side| side.streams.first_mut()) {
            let load = &mut stream.load;
            load.connections = overrides.connections.unwrap_or(load.connections);
            load.threads = load.threads.min(load.connections);
        }
    }
}

/// Leaves out the sides that need more connections than this machine allows.
fn drop_impossible(suite: &mut Suite, environment: &Environment) {
    let skipped = &mut suite.skipped;
    for case in &mut suite.cases {
        let counts = !matches!(case.measure, Measure::Start | Measure::Drop(_));
        case.sides.retain(|side| {
            let count = side.streams.iter().map(|stream| stream.load.connections).sum();
            let Err(reason) = environment.check_connections(count) else { return true };
            if counts {
                skipped.push(Skipped { name: format!("{}: {}", case.name, side.name), reason });
            }
            !counts
        });
        if case.sides.is_empty() {
            let reason = "none of its sides can be measured here".to_owned();
            skipped.push(Skipped { name: case.name.clone(), reason });
        }
    }
    suite.cases.retain(|case| !case.sides.is_empty());
}

fn forget_unused_servers(suite: &mut Suite) {
    let mut places = BTreeMap::new();
    for side in suite.cases.iter_mut().flat_map(|case| &mut case.sides) {
        if let Origin::Started(place) = &mut side.origin {
            let next = places.len();
            *place = *places.entry(*place).or_insert(next);
        }
    }
    let mut used: Vec<_> = places.into_iter().collect();
    used.sort_by_key(|(_, new)| *new);
    suite.servers = used.into_iter().map(|(old, _)| suite.servers[old].clone()).collect();
}

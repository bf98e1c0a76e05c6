//! Scenarios: files that say which servers to start, what to ask them, and how often.
//!
//! A scenario is TOML. All its tables and keys, with their defaults:
//!
//! ```toml
//! title = "Guests and their twins"
//! rounds = 5                # how often every side is visited
//! duration = "10s"          # how long, each time: us, ms, s or m
//!
//! [vars]                    # placeholders of one's own; they may contain others
//! many = 10_000
//! [mini.vars]               # what they are instead in miniature, as in `cargo test`
//! many = 100
//!
//! [request]                 # for all streams; a case and a side may have one of their own,
//! path = "/hello"           # which is asked first, key by key
//! [load]                    # likewise
//! cpus = [1]
//!
//! [[prepare]]               # keys of [[server]]: is started, and ended once it has settled
//!
//! [[server]]
//! name = "guesthouse {isolation}"
//! each.isolation = ["fresh", "reuse"]          # a server for each
//! command = ["{guesthouse}", "demo", "--listen", "127.0.0.1:{port}"]
//! version = ["{guesthouse}", "--version"]      # what it prints is put into the report
//! env = { NO_COLOR = "1" }
//! dir = "."                 # where it runs; default: where the command was given
//! ready = "/hello"          # up when this is answered with less than 400
//! ready_within = "30s"
//! settle_within = "0s"      # then also wait until it has nothing left to do by itself
//! cpus = "first 1"          # or [0], "after 1", "all"
//! counters = ["turn_max_us"]  # of those that it logs after SIGUSR1, `counter_NAME` in raw.csv
//! restart = "case"          # or "round"; one that is still busy after a timeout starts anew, too
//! files = { "a.wasm" = "{guests}/hello.wasm" }  # copied into {dir} first; or whole
//!                           # folders; "{00..99}.wat" is a hundred names
//! needs = "how to get it"   # is said where something is missing
//!
//! [[case]]                  # one table of the report
//! name = "{path} on {connections} connections"
//! measure = "load"          # or idle, start, drop, curve, overload
//! each = { path = ["/hello", "/json"], connections = [1, 50] }  # a case for each combination
//! rounds = 5
//! duration = "10s"
//! request = { path = "{path}" }
//! load = { connections = "{connections}" }
//! sides = ["guesthouse fresh"]                 # servers by name, then [[case.side]]
//! beside = []               # streams beside the first, for sides that have none: see below
//! versions = { files = ["a.wasm", "b.wasm"], path = "a.wasm" }  # for measure = "drop"
//! at_rest = "200ms"         # for measure = "idle": how long memory has to stand still
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
//! request.spread = "uniform"                   # or { zipf = 1.0 }; or "once": each once
//! request.bodies = "any"    # or "as before" the measurement; or "answer", the custom section of
//!                           # that name in each file of paths_folder
//! request.headers = { accept = "text/plain" }
//! request.body = "text"     # or body_file = "FILE", or body_bytes = 1024
//! request.status = 200      # default: any below 400
//! load.connections = 50     # or "most": as many as the machine allows
//! load.threads = 1
//! load.pipeline = 1         # requests in flight on each connection
//! load.rate = 4000          # requests a second; default: as fast as answers come
//! load.arrivals = "constant"                   # or poisson
//! load.timeout = "10s"
//! load.cpus = "after 1"     # default: all
//! load.nice = 0             # from -20 to 19, as for nice(1)
//! load.spin = false         # never sleep: exact to the microsecond, for a CPU of its own
//! beside = [{ name = "fib", request.path = "/fib/32", load.connections = 4, may_fail = false }]
//! swaps = { files = ["a.wasm", "b.wasm"], path = "a.wasm", every = "100ms" }  # or "seen"
//! along = { command = ["ab", "http://127.0.0.1:{port}/"], lead = "2s", needs = "how to get it" }
//! ```
//!
//! Versions, as of swaps, may be a `template` instead of files, a text in which `VERSION` becomes the
//! number of each of `count` versions; with `in_place = true` every second one is written in place
//! instead of being renamed. With `every = "seen"` the next one comes once the last has answered.
//! `along` is a program that runs beside the side; it may not end with a failure.
//!
//! Streams beside the first inherit from the file's tables only. `path` of versions is below the
//! server's `{dir}`. A range `"1..4"` in `each` is four values, a range `{00..99}` in a path a
//! hundred paths. A number may be written as a text with a placeholder.
//!
//! Placeholders are `{guesthouse}`, this program; `{here}`, the folder of the file; `{root}`, the
//! folder in which `benches` is; `{guests}`, the demo guests that the build has left; `{peers}`,
//! where peers are installed (`GUESTHOUSE_PEERS`, else `../peers/installed`); `{cache}`, a folder
//! that stays (`GUESTHOUSE_BENCH_CACHE`, else in the user's cache folder); `{cpus}`, how many may
//! be used. In what starts a server there are also `{port}` and `{dir}`, an empty folder. Relative
//! paths are below `{here}`, but programs without a slash are looked for in the PATH.
//!
//! What a machine does not have is left out and named with the reason: a server with all its
//! sides, a side, a case without sides. What the file has wrong ends the reading: all of it is
//! listed, each mistake with its line.

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
use environment::Environment;
use format::Scenario;
use servers::Servers;
use text::{Reader, Vars};

mod cases;
mod environment;
mod format;
mod mini;
mod paths;
mod requests;
mod servers;
mod text;

/// What a scenario may have: more than anybody writes.
const TEXT_BYTES_MAX: u64 = 16 << 20;

/// What the command line says otherwise.
#[derive(Clone, Debug, Default)]
pub struct Overrides {
    pub duration: Option<Duration>,
    pub rounds: Option<u32>,
    /// What no measurement takes longer than.
    pub duration_max: Option<Duration>,
    /// For the first stream of each side.
    pub connections: Option<usize>,
    /// Everything once and as small as can be, to see that it works.
    pub mini: bool,
    /// Drawn where there is none.
    pub seed: Option<u64>,
    /// Parts of names: of cases, which are then measured whole, or of sides. None means all.
    pub only: Vec<String>,
}

/// Reads a scenario. Starts what the scenario wants prepared, and ends it again; blocks for so
/// long, and ends early with an error once `interrupted` is set. `cache` is where it may keep what
/// is slow to make.
///
/// # Errors
/// All that is wrong with the file, one mistake on each line.
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
    let mut draft = draft(&file, Reader::new(&shown, &text), &environment, mini)?;
    let mut skipped = Vec::new();
    if !file.preparations.is_empty() {
        skipped = prepare(draft.preparations, interrupted)?;
        // Now there is what was missing.
        draft = self::draft(&file, Reader::new(&shown, &text), &environment, mini)?;
    }
    skipped.extend(draft.skipped);
    let mut suite = Suite {
        title: file.title.clone(),
        servers: draft.servers,
        cases: keep_only(draft.cases, &overrides.only)?,
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

/// A scenario on this machine as it is now.
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
    mini: bool,
) -> Result<Draft> {
    let vars = vars(file, &mut reader, environment, mini);
    let preparations = servers::read(&file.preparations, &mut reader, environment, &vars, mini);
    let servers = servers::read(&file.servers, &mut reader, environment, &vars, mini);
    let mut all = Cases {
        file,
        reader: &mut reader,
        environment,
        servers: &servers,
        used: Vec::new(),
        skipped: Vec::new(),
        mini,
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

/// Starts and ends what has to have run before. What is missing for it is left out.
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

fn keep_only(cases: Vec<Case>, only: &[String]) -> Result<Vec<Case>> {
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
        let (only, names) = (only.join(", "), names.join("\n  "));
        bail!("no case and no side has {only} in its name; the cases are:\n  {names}");
    }
    Ok(selected)
}

fn apply(cases: &mut [Case], overrides: &Overrides) {
    for case in cases {
        case.duration = overrides.duration.unwrap_or(case.duration);
        case.duration = overrides.duration_max.map_or(case.duration, |it| case.duration.min(it));
        case.rounds = overrides.rounds.unwrap_or(case.rounds);
        for stream in case.sides.iter_mut().filter_map(|side| side.streams.first_mut()) {
            let load = &mut stream.load;
            load.connections = overrides.connections.unwrap_or(load.connections);
            load.threads = load.threads.min(load.connections);
        }
    }
}

/// Leaves out the sides that take more connections than there can be.
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

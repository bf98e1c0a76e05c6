//! Makes launches of the `[[server]]` tables, or says why this machine cannot run a server.
//!
//! Starts nothing.

use std::collections::BTreeMap;
use std::path::{Component, Path, PathBuf};
use std::time::Duration;

use super::environment::{Environment, MissingResource};
use super::format::{At, Cpus, Scalar, ServerTable};
use super::paths;
use super::text::{Reader, Vars};
use crate::launch::{Launch, Restart};

const READY: &str = "/hello";
const READY_WITHIN: Duration = Duration::from_secs(30);

/// Every server of a scenario by its name: how to start it, or why this machine cannot.
pub type Servers = BTreeMap<String, Result<Launch, String>>;

/// Reads the tables. Mistakes go to the reader. With `mini`, servers restart as rarely as possible
/// and need not settle.
pub fn read(
    tables: &[At<ServerTable>],
    reader: &mut Reader<'_>,
    environment: &Environment,
    vars: &Vars,
    mini: bool,
) -> Servers {
    let mut servers = Servers::new();
    for table in tables {
        let server = table.get_ref();
        // Read all combinations even in miniature: cases name servers, and others cost nothing.
        for vars in reader.combinations(&server.each, vars, false) {
            let name = reader.text(&server.name, &vars);
            let launch = launch(server, &name, reader, environment, &vars, mini);
            if servers.insert(name.clone(), launch).is_some() {
                let reason = format!(
                    "name: two servers are called `{name}`; every key of `each` \
                                      has to be in the name"
                );
                reader.mistake(server.name.span(), reason);
            }
        }
    }
    servers
}

/// Notes a mistake for each key that a server does not use which ends before all others start.
pub fn check_preparations(tables: &[At<ServerTable>], reader: &mut Reader<'_>) {
    for table in tables.iter().map(At::get_ref) {
        let keys = [
            ("version", table.version.first()),
            ("restart", table.restart.as_ref()),
            ("counters", table.counters.first()),
        ];
        for (key, value) in keys {
            let Some(value) = value else { continue };
            let reason = format!("{key}: [[prepare]] does not use it; leave it out");
            reader.mistake(value.span(), reason);
        }
    }
}

fn launch(
    server: &ServerTable,
    name: &str,
    reader: &mut Reader<'_>,
    environment: &Environment,
    vars: &Vars,
    mini: bool,
) -> Result<Launch, String> {
    let mut missing = Vec::new();
    let mut command: Vec<String> =
        server.command.get_ref().iter().map(|word| reader.text(word, vars)).collect();
    match command.first_mut() {
        None => reader.mistake(server.command.span(), "command: there is no program in it"),
        Some(program) => match environment.program(program) {
            Ok(path) => *program = path.display().to_string(),
            Err(reason) => missing.push(reason),
        },
    }
    let version = server.version.iter().map(|word| reader.text(word, vars)).collect();
    let files = files(server, reader, environment, vars, &mut missing);
    let cpus = match &server.cpus {
        Some(value) => cpus(value, reader, environment, vars).unwrap_or_else(|reason| {
            missing.push(reason);
            Vec::new()
        }),
        None => Vec::new(),
    };
    let env = server.env.iter().map(|(key, value)| (key.clone(), reader.text(value, vars)));
    let env = env.collect();
    let dir = server.dir.as_ref().map(|dir| environment.path(&reader.text(dir, vars)));
    let text = |value: Option<&At<Scalar>>, reader: &mut Reader<'_>, default: &str| {
        value.map_or(default.to_owned(), |value| reader.text(value, vars))
    };
    let ready = text(server.ready.as_ref(), reader, READY);
    if !ready.starts_with('/') {
        reader.mistake(server.name.span(), format!("ready: {ready:?} does not begin with /"));
    }
    let time = |key, value: Option<&At<Scalar>>, reader: &mut Reader<'_>, default| {
        value.map_or(default, |value| reader.duration(key, value, vars))
    };
    let within = server.ready_within.as_ref();
    let ready_within = time("ready_within", within, reader, READY_WITHIN);
    let within = server.settle_within.as_ref();
    let settle_within = time("settle_within", within, reader, Duration::ZERO);
    let choices = [("case", Restart::Case), ("round", Restart::Round)];
    let restart = server.restart.as_ref();
    let restart =
        restart.map_or(Restart::Case, |value| reader.choice("restart", value, vars, &choices));
    let counters = server.counters.iter().map(|name| reader.text(name, vars)).collect();
    if !missing.is_empty() {
        let needs = server.needs.as_ref().map(|needs| reader.text(needs, vars));
        return Err(missing.into_iter().chain(needs).collect::<Vec<_>>().join("; "));
    }
    Ok(Launch {
        name: name.to_owned(),
        command,
        version,
        env,
        dir,
        files,
        ready,
        ready_within,
        settle_within: if mini { Duration::ZERO } else { settle_within },
        cpus,
        restart: if mini { Restart::Case } else { restart },
        counters,
    })
}

/// The files to copy into the server's folder: the source, and the path in the folder. Files that
/// do not exist go to `missing`.
fn files(
    server: &ServerTable,
    reader: &mut Reader<'_>,
    environment: &Environment,
    vars: &Vars,
    missing: &mut Vec<String>,
) -> Vec<(PathBuf, PathBuf)> {
    let mut files = Vec::new();
    for (name, value) in &server.files {
        let names = paths::expand_ranges(name).unwrap_or_else(|reason| {
            reader.mistake(value.span(), format!("files: {reason}"));
            Vec::new()
        });
        let is_below = |name: &String| {
            Path::new(name).components().all(|part| matches!(part, Component::Normal(_)))
        };
        if !names.iter().all(is_below) {
            let reason = format!("files: {name:?} is no name below the server's folder");
            reader.mistake(value.span(), reason);
        }
        match environment.existing(&reader.text(value, vars)) {
            Ok(from) => {
                files.extend(names.iter().map(|to| (from.clone(), PathBuf::from(to))));
            }
            Err(reason) if missing.contains(&reason) => {}
            Err(reason) => missing.push(reason),
        }
    }
    files
}

/// The CPUs that a value names. Empty means all. Mistakes go to the reader.
///
/// # Errors
/// This machine does not have them.
pub fn cpus(
    value: &At<Cpus>,
    reader: &mut Reader<'_>,
    environment: &Environment,
    vars: &Vars,
) -> Result<Vec<usize>, String> {
    let words = match value.get_ref() {
        Cpus::Words(words) => reader.fill(words, value.span(), vars),
        Cpus::Places(_) => String::new(),
    };
    match environment.cpus(value.get_ref(), &words) {
        Ok(cpus) => Ok(cpus),
        Err(MissingResource::Here(reason)) => Err(reason),
        Err(MissingResource::Mistake(reason)) => {
            reader.mistake(value.span(), reason);
            Ok(Vec::new())
        }
    }
}

//! Finds the things that a scenario needs on this machine: programs, files, CPUs, open files.
//!
//! If one is missing, says so in words that tell the user what to do. Knows no table of a scenario.

use std::env;
use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use super::format::Cpus;
use super::text::Vars;
use crate::process::{cpus_allowed, files_max, ports_max};

/// The variable with the folder of installed peers. The default is a folder beside the scenarios.
const PEERS: &str = "GUESTHOUSE_PEERS";
/// The variable with the folder for files that are slow to make. The default is in the user's
/// cache folder.
const CACHE: &str = "GUESTHOUSE_BENCH_CACHE";
/// A generous number of files that a process has open besides its connections.
const FILES_RESERVED: usize = 256;

/// The placeholders that every scenario has. Their values depend on the machine.
pub const PLACEHOLDERS: [&str; 7] =
    ["cache", "cpus", "guesthouse", "guests", "here", "peers", "root"];

/// Why a resource is missing.
#[derive(Debug, PartialEq, Eq)]
pub enum MissingResource {
    /// No machine can have it: the scenario has a mistake. The text says which.
    Mistake(String),
    /// This machine does not have it. The text says what is missing.
    Here(String),
}

/// This machine, and the place of the scenario on it.
pub struct Environment {
    /// The folder of the scenario file.
    here: PathBuf,
    /// The placeholders that stand for paths, and the paths. An inner folder stands before an
    /// outer one.
    folders: Vec<(&'static str, PathBuf)>,
    cpus: Vec<usize>,
    connections_max: usize,
    /// Whether servers and generators get CPUs of their own. In miniature they do not, because
    /// there the numbers do not matter.
    pinning: bool,
}

impl Environment {
    /// Looks at this machine, and raises the limit of open files as far as the user may. `here` is
    /// the folder of the scenario file, and `cache` a folder of the user that stays.
    pub fn new(here: PathBuf, cache: Option<PathBuf>, mini: bool) -> Environment {
        let connections_max = files_max().min(ports_max()).saturating_sub(FILES_RESERVED);
        let folders = folders(&here, cache);
        Environment { here, folders, cpus: cpus_allowed(), connections_max, pinning: !mini }
    }

    /// The [`PLACEHOLDERS`] with their values.
    pub fn vars(&self) -> Vars {
        let folders = self.folders.iter();
        let folders = folders.map(|(name, path)| ((*name).to_owned(), path.display().to_string()));
        // In miniature, a scenario does not grow with the machine.
        let cpus = if self.pinning { self.cpus.len() } else { self.cpus.len().min(2) };
        let vars: Vars = folders.chain([("cpus".to_owned(), cpus.to_string())]).collect();
        debug_assert!(vars.keys().eq(PLACEHOLDERS), "all of them in their order");
        vars
    }

    /// A path for a report. Folders that only this machine has become placeholders.
    fn shown(&self, path: &Path) -> String {
        let inside = self.folders.iter().find_map(|(name, folder)| {
            path.strip_prefix(folder).ok().map(|rest| format!("{{{name}}}/{}", rest.display()))
        });
        inside.unwrap_or_else(|| path.display().to_string())
    }

    /// A path. If it is relative, it begins at the scenario's folder.
    pub fn path(&self, text: &str) -> PathBuf {
        self.here.join(text)
    }

    /// The path of a file or folder that must exist.
    ///
    /// # Errors
    /// There is no such file or folder. The text says so.
    pub fn existing(&self, text: &str) -> Result<PathBuf, String> {
        let path = self.path(text);
        let missing = format!("there is no {}", self.shown(&path));
        if path.exists() { Ok(path) } else { Err(missing) }
    }

    /// The path of a program. If its name has no slash, it is looked for in the PATH.
    ///
    /// # Errors
    /// There is no such program. The text says so.
    pub fn program(&self, name: &str) -> Result<PathBuf, String> {
        if name.contains('/') {
            let path = self.path(name);
            let missing = format!("there is no program {}", self.shown(&path));
            return if is_program(&path) { Ok(path) } else { Err(missing) };
        }
        let path = env::var_os("PATH").unwrap_or_default();
        let mut programs = env::split_paths(&path).map(|folder| folder.join(name));
        let missing = || format!("there is no program `{name}` in the PATH");
        programs.find(|path| is_program(path)).ok_or_else(missing)
    }

    /// The CPUs that a scenario names; empty means all. Places count from 0 among the CPUs that
    /// this process may use. `words` is the text of [`Cpus::Words`] with placeholders filled in.
    ///
    /// # Errors
    /// The words name no set of CPUs, or this machine has too few.
    pub fn cpus(&self, cpus: &Cpus, words: &str) -> Result<Vec<usize>, MissingResource> {
        let found = match cpus {
            Cpus::Places(places) => {
                let found: Option<Vec<usize>> =
                    places.iter().map(|place| self.cpus.get(*place).copied()).collect();
                let wanted = places.iter().max().map_or(0, |place| place + 1);
                found.ok_or_else(|| self.too_few(wanted))
            }
            Cpus::Words(_) => {
                let form = || {
                    let reason = "is no set of CPUs; write `all`, `first 2`, `after 2` or `[0, 1]`";
                    MissingResource::Mistake(format!("cpus: {words:?} {reason}"))
                };
                let (word, count) = words.split_once(' ').unwrap_or((words, "0"));
                let count: usize = count.parse().map_err(|_| form())?;
                match word {
                    "all" => Ok(Vec::new()),
                    "first" if count > 0 => self
                        .cpus
                        .get(..count)
                        .map(<[usize]>::to_vec)
                        .ok_or_else(|| self.too_few(count)),
                    "after" => self
                        .cpus
                        .get(count..)
                        .filter(|rest| !rest.is_empty())
                        .map(<[usize]>::to_vec)
                        .ok_or_else(|| self.too_few(count + 1)),
                    _ => return Err(form()),
                }
            }
        };
        if self.pinning { found.map_err(MissingResource::Here) } else { Ok(Vec::new()) }
    }

    fn too_few(&self, wanted: usize) -> String {
        format!("it takes {wanted} CPUs, and {} may be used here", self.cpus.len())
    }

    /// How many connections are possible between one client and one server.
    pub fn connections_max(&self) -> usize {
        self.connections_max
    }

    /// Checks that so many connections are possible.
    ///
    /// # Errors
    /// They are not. The text says what to do.
    pub fn check_connections(&self, count: usize) -> Result<(), String> {
        let most = self.connections_max;
        if count <= most {
            return Ok(());
        }
        Err(format!(
            "{count} connections are more than the {most} that are possible here: raise the limit \
             of open files (`ulimit -Hn`), and widen net.ipv4.ip_local_port_range"
        ))
    }
}

fn folders(here: &Path, cache: Option<PathBuf>) -> Vec<(&'static str, PathBuf)> {
    let program = env::current_exe().unwrap_or_else(|_| PathBuf::from("guesthouse"));
    let root = here.ancestors().find(|folder| folder.join("benches").is_dir()).unwrap_or(here);
    let target = program.ancestors().nth(2).unwrap_or(Path::new("target"));
    let guests = target.join("guests/wasm32-wasip1/release");
    // As a relative path it is below the folder of the command, and not below the scenario's.
    let given = |name| {
        let path = PathBuf::from(env::var_os(name)?);
        Some(std::path::absolute(&path).unwrap_or(path))
    };
    let cache = given(CACHE).or(cache);
    let cache = cache.unwrap_or_else(|| env::temp_dir().join("guesthouse-bench"));
    let beside = here.parent().unwrap_or(here).join("peers/installed");
    let peers = given(PEERS).unwrap_or(beside);
    let root = root.to_path_buf();
    let here = here.to_path_buf();
    let all = [("peers", peers), ("here", here), ("guests", guests), ("cache", cache)];
    all.into_iter().chain([("guesthouse", program), ("root", root)]).collect()
}

fn is_program(path: &Path) -> bool {
    fs::metadata(path).is_ok_and(|it| it.is_file() && it.permissions().mode() & 0o111 != 0)
}

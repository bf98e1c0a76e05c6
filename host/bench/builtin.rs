//! Suites without a scenario file: servers by URL, and the demo's guests against their twins.
//!
//! Reads no file and no environment variable.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use anyhow::bail;

use super::launch::{Launch, Restart};
use super::load::{Load, Request};
use super::reading::Quantity;
use super::run::Run;
use super::statistics::{self, number};
use super::suite::{Case, Measure, Origin, Side, Stream, Suite};
use super::url::Url;

/// How long the demo may take to start. At its first start it compiles its guests.
const DEMO_READY_WITHIN: Duration = Duration::from_secs(60);

/// The demo's handlers that have a native twin: the case's name, and the path below `/` and below
/// `/native/`.
const DEMO: [(&str, &str); 3] = [("hello", "hello"), ("fib", "fib/20"), ("json", "json")];

/// The options of a command line, which hold for all of its targets.
#[derive(Clone, Debug)]
pub struct SharedOptions {
    /// The request that is sent. Without paths, each target is asked for its own path.
    pub request: Request,
    /// How requests are sent.
    pub load: Load,
    /// How often each target is measured, at least 1.
    pub rounds: u32,
    /// How long each target is measured in one round.
    pub duration: Duration,
    /// The number that decides the order of the targets and which paths are drawn.
    pub seed: u64,
}

/// A suite of servers that run already, with one side for each URL. If `common` has paths, they
/// replace the path of each URL. `pids` are the processes of the first URLs, in their order. URLs
/// with the same host and port share a process.
///
/// # Errors
/// There are more processes than URLs.
pub fn of_urls(urls: &[Url], pids: &[u32], common: &SharedOptions) -> anyhow::Result<Suite> {
    if pids.len() > urls.len() {
        bail!("there are more --pid than URLs: give one for each URL, in their order");
    }
    let mut sides = Vec::new();
    let mut known: BTreeMap<String, u32> = BTreeMap::new();
    for (number, url) in urls.iter().enumerate() {
        let Url { text, authority, path } = url.clone();
        let mut request = common.request.clone();
        if request.paths.is_empty() {
            request.paths.push(path);
        }
        if let Some(pid) = pids.get(number) {
            known.insert(authority.clone(), *pid);
        }
        // Two URLs may name the same server.
        let pid = known.get(&authority).copied();
        let load = common.load.clone();
        let stream = Stream { name: text.clone(), request, load, may_fail: false };
        sides.push(Side {
            name: text,
            origin: Origin::Elsewhere { authority, pid },
            streams: vec![stream],
            swaps: None,
            along: None,
        });
    }
    let case = case("", sides, common);
    Ok(Suite {
        title: "Servers side by side".to_owned(),
        servers: Vec::new(),
        cases: vec![case],
        seed: common.seed,
        skipped: Vec::new(),
    })
}

/// A suite that starts the demo of `program`, and compares three of its guests with their native
/// twins. If there are two `cpus` or more, the server gets the first and the generator the last,
/// unless `common` names CPUs for the generator.
pub fn of_demo(program: &Path, cpus: &[usize], common: &SharedOptions) -> Suite {
    let (server_cpus, client_cpus) = match cpus {
        [first, .., last] => (vec![*first], vec![*last]),
        _ => (Vec::new(), Vec::new()),
    };
    let program = program.to_string_lossy().into_owned();
    let words = ["demo", "--also", "none", "--listen", "127.0.0.1:{port}", "--workers", "1"];
    let launch = Launch {
        name: "demo".to_owned(),
        command: std::iter::once(program).chain(words.map(str::to_owned)).collect(),
        env: BTreeMap::new(),
        version: Vec::new(),
        dir: None,
        files: Vec::new(),
        ready: "/hello".to_owned(),
        ready_within: DEMO_READY_WITHIN,
        settle_within: Duration::ZERO,
        cpus: server_cpus,
        restart: Restart::Case,
        counters: Vec::new(),
    };
    let cases = DEMO.map(|(name, path)| {
        let sides = [("native", format!("/native/{path}")), ("guest", format!("/{path}"))];
        let side = |(name, path): (&str, String)| {
            let mut request = common.request.clone();
            request.paths = vec![path];
            let mut load = common.load.clone();
            if load.cpus.is_empty() {
                load.cpus.clone_from(&client_cpus);
            }
            Side {
                name: name.to_owned(),
                origin: Origin::Started(0),
                streams: vec![Stream { name: name.to_owned(), request, load, may_fail: false }],
                swaps: None,
                along: None,
            }
        };
        case(name, sides.map(side).into(), common)
    });
    Suite {
        title: "The demo's handlers against their native twins".to_owned(),
        servers: vec![launch],
        cases: cases.into(),
        seed: common.seed,
        skipped: Vec::new(),
    }
}

/// One sentence that says how much CPU time the sandbox cost in a run of [`of_demo`]. `None` if a
/// number is missing, for example because the run was interrupted.
pub fn cost(run: &Run) -> Option<String> {
    let mut parts = Vec::new();
    for case in &run.cases {
        let [native, guest] = &case.rows[..] else { return None };
        let cpu = Quantity::CpuUsPerReq;
        let more = statistics::difference(guest, native, cpu)?.median;
        let ratio = statistics::ratio(guest, native, cpu)?.median;
        let (more, ratio) = (number(more), number(ratio));
        parts.push(match parts.is_empty() {
            true => format!(
                "{more} µs of CPU time for each request to {} ({ratio} times what its native twin \
                 takes)",
                case.name
            ),
            false => format!("{more} µs for {} ({ratio} times)", case.name),
        });
    }
    let last = parts.pop()?;
    let all = if parts.is_empty() { last } else { format!("{} and {last}", parts.join(", ")) };
    Some(format!("The sandbox cost {all}."))
}

fn case(name: &str, sides: Vec<Side>, common: &SharedOptions) -> Case {
    let (rounds, duration) = (common.rounds, common.duration);
    Case { name: name.to_owned(), measure: Measure::Load, rounds, duration, sides }
}

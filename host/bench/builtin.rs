//! The suites that need no file: servers by their URLs, and the demo's guests against their twins.
//!
//! Reads nothing but what it is given.

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

/// How long the demo may take to start: its guests are compiled when it does so for the first time.
const DEMO_READY_WITHIN: Duration = Duration::from_secs(60);

/// What the demo has twice, with what is put behind `/` and `/native/`.
const DEMO: [(&str, &str); 3] = [("hello", "hello"), ("fib", "fib/20"), ("json", "json")];

/// What all targets of a command line share.
#[derive(Clone, Debug)]
pub struct SharedOptions {
    pub request: Request,
    pub load: Load,
    pub rounds: u32,
    pub duration: Duration,
    pub seed: u64,
}

/// Servers that run already, side by side. Where `common` names paths, they stand for that of each
/// URL. The processes are those of the URLs, in their order.
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
        // One server may have more than one URL.
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

/// The demo of `program`: every guest is compared with its native twin. With more than one of
/// `cpus`, the server has the first and the generator the last.
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

/// What the sandbox cost in a run of [`of_demo`], in one sentence; `None` where a number is missing,
/// as in a run that was interrupted.
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

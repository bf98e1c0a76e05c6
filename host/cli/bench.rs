//! The verb `bench`: what its flags mean, where its results go, and its exit code.
//!
//! Decides what is measured. `guesthouse_bench` decides how.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::{Context as _, bail};
use clap::Args;
use guesthouse_bench::builtin::{self, SharedOptions};
use guesthouse_bench::scenario::{self, Overrides};
use guesthouse_bench::url::Url;
use guesthouse_bench::{
    Arrivals, Bodies, Load, PathDistribution, Request, Run, Suite, file, report,
};
use tokio::signal::unix::{Signal, SignalKind, signal};

use self::figures::FigureOptions;
use self::output::{make_empty, write, write_run};
use crate::config::{self, Mistakes};

mod figures;
mod output;

pub const EXAMPLES: &str = "\
Examples:
  guesthouse bench                                   the demo's handlers against their native twins
  guesthouse bench http://127.0.0.1:8080/hello http://127.0.0.1:8081/hello
  guesthouse bench --rate 4000 --html run.html http://127.0.0.1:8080/json
  guesthouse bench --scenario benches/scenarios/twins.toml --json run.json
  guesthouse bench --figures benches/figures.toml --out run

Every round visits each target in turn, in shuffled order; the table has the medians of the rounds.
The exit code is 1 if any request failed.";

const CONNECTIONS: u32 = 50;
/// How long each side of the demo is measured in a round: all of it ends within 40 seconds.
const DEMO: Duration = Duration::from_secs(1);
/// How long each URL is measured in a round.
const URL: Duration = Duration::from_secs(10);
/// How many files this process has open besides its connections.
const FILES_BESIDE: usize = 64;

/// How many bytes a body, or a file of paths, may have.
const FILE_BYTES_MAX: u64 = 1 << 30;

/// The flags that name a file which says how requests are sent.
const FILES: [&str; 3] = ["scenario", "figures", "tables"];

const LOAD: &str = "Load";
const REQUEST: &str = "Request";
const OUTPUT: &str = "Output";

/// The flags of `guesthouse bench`.
#[derive(Args)]
pub struct BenchFlags {
    /// Servers that run already; without any, the demo is started
    #[arg(value_name = "URL", conflicts_with = "scenario")]
    urls: Vec<String>,

    /// A file that says what to start and to measure
    #[arg(long, value_name = "FILE")]
    scenario: Option<PathBuf>,
    /// Only the cases and sides of the scenario with this in their name (repeatable)
    #[arg(long, value_name = "TEXT", conflicts_with_all = ["urls", "tables"])]
    only: Vec<String>,
    /// Everything in miniature, to see that a scenario works; the numbers mean nothing
    #[arg(long, conflicts_with = "urls")]
    mini: bool,
    /// Measures the figures of a file by their scenarios, and says which miss their targets; with
    /// --only, those of these names
    #[arg(long, value_name = "FILE",
          conflicts_with_all = ["urls", "scenario", "json", "html", "csv"])]
    figures: Option<PathBuf>,
    /// The headline figures alone, in a second each: whether requests fail, not how fast they are
    #[arg(long, requires = "figures",
          conflicts_with_all = ["urls", "scenario", "tables", "rounds", "duration", "mini"])]
    quick: bool,
    /// Draws the tables of a file of figures anew, from the runs that it names; measures nothing
    #[arg(long, value_name = "FILE", conflicts_with_all = ["urls", "scenario", "figures", "mini"])]
    tables: Option<PathBuf>,
    /// Only says which lines of tables are not as their runs have them
    #[arg(long, requires = "tables", conflicts_with_all = ["urls", "scenario", "figures"])]
    check: bool,

    /// Open connections [default: 50, or what the scenario says]
    #[arg(short, long, help_heading = LOAD, conflicts_with = "tables",
          value_parser = clap::value_parser!(u32).range(1..))]
    connections: Option<u32>,
    /// Threads that send
    #[arg(short, long, help_heading = LOAD, default_value_t = 1, conflicts_with_all = FILES,
          value_parser = clap::value_parser!(u32).range(1..=1024))]
    threads: u32,
    /// How long each target is measured in each round [default: 10s; for the demo 1s; or what the
    /// scenario says]
    #[arg(short, long, value_name = "TIME", help_heading = LOAD, conflicts_with = "tables",
          value_parser = duration)]
    duration: Option<Duration>,
    /// How often each target is measured [default: 5, or what the scenario says]
    #[arg(short, long, help_heading = LOAD, conflicts_with = "tables",
          value_parser = clap::value_parser!(u32).range(1..))]
    rounds: Option<u32>,
    /// Requests a second, sent whether or not answers come; without it, as fast as they come
    #[arg(short = 'R', long, value_name = "REQ_PER_S", help_heading = LOAD,
          conflicts_with_all = FILES, value_parser = rate)]
    rate: Option<f64>,
    /// Requests at a rate come at random instead of at equal distances
    #[arg(long, help_heading = LOAD, requires = "rate", conflicts_with_all = FILES)]
    poisson: bool,
    /// Requests in flight on one connection
    #[arg(short, long, value_name = "DEPTH", help_heading = LOAD, default_value_t = 1,
          conflicts_with_all = FILES, value_parser = clap::value_parser!(u32).range(1..=65536))]
    pipeline: u32,
    /// A request without an answer for so long has failed
    #[arg(long, value_name = "TIME", help_heading = LOAD, default_value = "10s",
          conflicts_with_all = FILES, value_parser = duration)]
    timeout: Duration,
    /// CPUs that the generator may use, as in 1 or 2,3 [default: all; for the demo the last]
    #[arg(long, value_name = "LIST", help_heading = LOAD, value_delimiter = ',',
          conflicts_with_all = FILES, value_parser = cpu)]
    cpus: Vec<usize>,
    /// Never sleep: steadier figures, for a whole CPU for each thread
    #[arg(long, help_heading = LOAD, conflicts_with_all = FILES)]
    spin: bool,
    /// What shuffles targets and draws paths [default: another one each time; it is printed]
    #[arg(long, help_heading = LOAD, conflicts_with = "tables")]
    seed: Option<u64>,

    /// Method of all requests
    #[arg(short = 'X', long, help_heading = REQUEST, default_value = "GET",
          conflicts_with_all = FILES, value_parser = method)]
    method: String,
    /// A header field of all requests (repeatable)
    #[arg(short = 'H', long, value_name = "NAME: VALUE", help_heading = REQUEST,
          conflicts_with_all = FILES, value_parser = header)]
    header: Vec<(String, String)>,
    /// Body of all requests, as text or from a file
    #[arg(long, value_name = "TEXT|@FILE", help_heading = REQUEST, conflicts_with_all = FILES)]
    body: Option<String>,
    /// A file with a path a line; requests are spread over them
    #[arg(long, value_name = "FILE", help_heading = REQUEST, requires = "urls",
          conflicts_with_all = FILES)]
    paths: Option<PathBuf>,
    /// The n-th path of the file is drawn in proportion to n^-EXPONENT; without it, all alike
    #[arg(long, value_name = "EXPONENT", help_heading = REQUEST, requires = "paths",
          conflicts_with_all = FILES, value_parser = exponent)]
    zipf: Option<f64>,
    /// The status to expect [default: any below 400]
    #[arg(long, value_name = "CODE", help_heading = REQUEST, conflicts_with_all = FILES,
          value_parser = clap::value_parser!(u16).range(200..=599))]
    status: Option<u16>,

    /// Process of a URL's server, for its CPU time and memory (repeatable, in the URLs' order)
    #[arg(long, help_heading = OUTPUT, requires = "urls", conflicts_with_all = FILES)]
    pid: Vec<u32>,
    /// Write everything as JSON
    #[arg(long, value_name = "FILE", help_heading = OUTPUT, conflicts_with = "tables")]
    json: Option<PathBuf>,
    /// Write one page with tables and plots
    #[arg(long, value_name = "FILE", help_heading = OUTPUT, conflicts_with = "tables")]
    html: Option<PathBuf>,
    /// Write the numbers of every round
    #[arg(long, value_name = "FILE", help_heading = OUTPUT, conflicts_with = "tables")]
    csv: Option<PathBuf>,
    /// Write the table to summary.txt and the numbers to raw.csv in a new or empty folder
    #[arg(long, value_name = "DIR", help_heading = OUTPUT, conflicts_with = "tables")]
    out: Option<PathBuf>,
    /// Exit with 0 even if requests failed
    #[arg(long, help_heading = OUTPUT, conflicts_with = "tables")]
    allow_errors: bool,
}

/// Runs the measurement. Returns the text for stdout and the exit code.
pub fn run(flags: &BenchFlags, version: &str) -> anyhow::Result<(String, ExitCode)> {
    if let Some(path) = &flags.tables {
        return figures::draw(path, flags.check);
    }
    let needs_file = flags.scenario.is_none() && flags.figures.is_none();
    if needs_file && (flags.mini || !flags.only.is_empty()) {
        let mistake = "--mini and --only are for --scenario FILE or --figures FILE";
        return Err(Mistakes(vec![mistake.to_owned()]).into());
    }
    let stop = Arc::new(AtomicBool::new(false));
    stop_at_signal(&stop)?;
    if let Some(path) = &flags.figures {
        let options = FigureOptions {
            names: &flags.only,
            is_quick: flags.quick,
            out: flags.out.as_deref(),
            overrides: overrides(flags),
            allow_errors: flags.allow_errors,
        };
        return figures::measure(path, &options, version, &stop);
    }
    let suite = suite(flags, &stop)?;
    // Find out now whether the reports can be written, and not after minutes of measuring.
    let mut files = BTreeMap::new();
    for path in [&flags.json, &flags.html, &flags.csv].into_iter().flatten() {
        write(path, "")?;
        // Compare inodes: two names of one file would make one report overwrite the other.
        let file = fs::metadata(path).ok().filter(fs::Metadata::is_file);
        let first = file.and_then(|it| files.insert((it.dev(), it.ino()), path));
        if let Some(first) = first {
            let (first, path) = (first.display(), path.display());
            bail!("{first} and {path} are one file: each report needs one of its own");
        }
    }
    if let Some(dir) = &flags.out {
        make_empty(dir)?;
    }
    let mut run = guesthouse_bench::run(&suite, std::env::args().collect(), &stop);
    run.about.insert(0, ("guesthouse".to_owned(), version.to_owned()));
    if let Some(path) = &flags.json {
        write(path, &format!("{:#}\n", report::json(&run)))?;
    }
    if let Some(path) = &flags.html {
        write(path, &report::html(&run))?;
    }
    if let Some(path) = &flags.csv {
        write(path, &report::csv(&run))?;
    }
    let mut text = report::text(&run);
    if flags.urls.is_empty() && flags.scenario.is_none() {
        text += &builtin::cost(&run).map(|cost| format!("\n{cost}\n")).unwrap_or_default();
    }
    if let Some(dir) = &flags.out {
        write_run(dir, &text, &report::csv(&run))?;
    }
    Ok((text, exit_code(&run, flags.allow_errors)))
}

fn exit_code(run: &Run, allow_errors: bool) -> ExitCode {
    match (run.errors(), run.interrupted) {
        (errors, _) if errors > 0 && !allow_errors => ExitCode::FAILURE,
        // The code that a shell reports for a program ended by SIGINT.
        (_, true) => ExitCode::from(130),
        _ => ExitCode::SUCCESS,
    }
}

/// What the flags say otherwise than a scenario.
fn overrides(flags: &BenchFlags) -> Overrides {
    Overrides {
        duration: flags.duration,
        rounds: flags.rounds,
        connections: flags.connections.map(|it| it as usize),
        mini: flags.mini,
        seed: flags.seed,
        cases: Vec::new(),
        only: flags.only.clone(),
        duration_max: None,
    }
}

fn suite(flags: &BenchFlags, stop: &AtomicBool) -> anyhow::Result<Suite> {
    if let Some(path) = &flags.scenario {
        let overrides = overrides(flags);
        let cache = config::user_cache_folder("guesthouse-bench");
        return scenario::read(path, &overrides, cache, stop);
    }
    let connections = flags.connections.unwrap_or(CONNECTIONS) as usize;
    let files_max = guesthouse_bench::files_max();
    if connections + FILES_BESIDE > files_max {
        bail!(
            "{connections} connections need as many open files, and {files_max} are allowed here: \
             raise the limit (ulimit -n), or take fewer"
        );
    }
    let common = SharedOptions {
        request: request(flags)?,
        load: Load {
            connections,
            threads: flags.threads as usize,
            pipeline: flags.pipeline as usize,
            rate: flags.rate,
            arrivals: if flags.poisson { Arrivals::Poisson } else { Arrivals::Constant },
            timeout: flags.timeout,
            cpus: flags.cpus.clone(),
            spin: flags.spin,
            nice: 0,
        },
        rounds: flags.rounds.unwrap_or(5),
        duration: flags.duration.unwrap_or(if flags.urls.is_empty() { DEMO } else { URL }),
        seed: flags.seed.unwrap_or_else(guesthouse_bench::draw_seed),
    };
    if flags.urls.is_empty() {
        let program = std::env::current_exe().context("cannot find this program")?;
        return Ok(builtin::of_demo(&program, &guesthouse_bench::cpus_allowed(), &common));
    }
    builtin::of_urls(&urls(&flags.urls)?, &flags.pid, &common)
}

/// Parses the URLs of the servers to be measured, and collects all mistakes.
fn urls(texts: &[String]) -> anyhow::Result<Vec<Url>> {
    let (mut urls, mut mistakes) = (Vec::new(), Mistakes(Vec::new()));
    for text in texts {
        match Url::parse(text) {
            Ok(url) => urls.push(url),
            Err(mistake) => mistakes.0.push(mistake),
        }
    }
    if mistakes.0.is_empty() { Ok(urls) } else { Err(mistakes.into()) }
}

fn request(flags: &BenchFlags) -> anyhow::Result<Request> {
    let body = match flags.body.as_deref().map(|text| (text, text.strip_prefix('@'))) {
        None => Vec::new(),
        Some((_, Some(file))) => file::read(Path::new(file), FILE_BYTES_MAX)
            .with_context(|| format!("cannot read the body from {file}"))?,
        Some((text, None)) => text.as_bytes().to_vec(),
    };
    Ok(Request {
        method: flags.method.clone(),
        paths: flags.paths.as_deref().map(paths).transpose()?.unwrap_or_default(),
        spread: flags
            .zipf
            .map_or(PathDistribution::Uniform, |exponent| PathDistribution::Zipf { exponent }),
        headers: flags.header.clone(),
        body,
        status: flags.status,
        bodies: Bodies::Any,
    })
}

/// Reads paths from a file, one on each line.
fn paths(file: &Path) -> anyhow::Result<Vec<String>> {
    let text = file::text(file, FILE_BYTES_MAX)
        .with_context(|| format!("cannot read paths from {}", file.display()))?;
    let mut paths = Vec::new();
    for (number, line) in text.lines().map(str::trim).enumerate() {
        if line.is_empty() {
            continue;
        }
        if !line.starts_with('/') || line.contains(|it: char| it == ' ' || it.is_control()) {
            bail!("{}:{}: a path begins with / and has no spaces", file.display(), number + 1);
        }
        paths.push(line.to_owned());
    }
    if paths.is_empty() {
        bail!("{}: there is no path in it; write one a line, as in /hello", file.display());
    }
    Ok(paths)
}

/// Whether this process was started with SIGHUP ignored, as nohup does.
fn ignores_hangup() -> bool {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let ignored = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    let ignored = ignored.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok());
    // The first bit is that of signal 1.
    ignored.is_some_and(|mask| mask & 1 == 1)
}

async fn hung_up(hangup: &mut Option<Signal>) {
    match hangup {
        Some(hangup) => drop(hangup.recv().await),
        None => std::future::pending().await,
    }
}

/// Makes the first SIGINT, SIGTERM or SIGHUP end the measurement: its results so far are printed,
/// and its servers are stopped. A second SIGINT or SIGTERM ends the process. A closing terminal may
/// send SIGHUP twice, so that never ends the process. Under nohup SIGHUP is ignored.
fn stop_at_signal(stop: &Arc<AtomicBool>) -> anyhow::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let (mut interrupt, mut terminate, mut hangup) = {
        let _inside = runtime.enter();
        let (interrupt, terminate) = (SignalKind::interrupt(), SignalKind::terminate());
        let hangup = (!ignores_hangup()).then(|| signal(SignalKind::hangup()));
        (signal(interrupt)?, signal(terminate)?, hangup.transpose()?)
    };
    let stop = Arc::clone(stop);
    std::thread::spawn(move || {
        runtime.block_on(async {
            loop {
                tokio::select! {
                    _ = interrupt.recv() => {}
                    _ = terminate.recv() => {}
                    () = hung_up(&mut hangup) => {
                        stop.store(true, Ordering::Relaxed);
                        continue;
                    }
                }
                if stop.swap(true, Ordering::Relaxed) {
                    std::process::exit(130);
                }
            }
        });
    });
    Ok(())
}

fn duration(text: &str) -> Result<Duration, String> {
    match humantime::parse_duration(text) {
        Ok(time) if time >= Duration::from_millis(1) && time <= Duration::from_secs(86_400) => {
            Ok(time)
        }
        Ok(_) => Err("choose from 1ms to 24h".to_owned()),
        Err(_) => Err("not a time; write 500ms, 10s or 2m".to_owned()),
    }
}

fn cpu(text: &str) -> Result<usize, String> {
    let number = text.trim().parse();
    number
        .map_err(|_| "not the number of a CPU; write a list of numbers, as in 1 or 2,3".to_owned())
}

fn rate(text: &str) -> Result<f64, String> {
    match text.parse() {
        Ok(rate) if (1e-3..=1e7).contains(&rate) => Ok(rate),
        _ => Err("not a rate; write how many requests a second, as in 4000 or 0.5, from 0.001 to \
                   10000000"
            .to_owned()),
    }
}

fn exponent(text: &str) -> Result<f64, String> {
    match text.parse() {
        Ok(exponent) if (0.0..=10.0).contains(&exponent) => Ok(exponent),
        _ => Err("choose from 0 (all alike) to 10; 1 is usual".to_owned()),
    }
}

fn method(text: &str) -> Result<String, String> {
    match http::Method::from_bytes(text.as_bytes()) {
        Ok(method) => Ok(method.to_string()),
        Err(_) => Err("not a method; write GET, POST, ...".to_owned()),
    }
}

fn header(text: &str) -> Result<(String, String), String> {
    let (name, value) = text.split_once(':').ok_or("write NAME: VALUE")?;
    let (name, value) = (name.trim(), value.trim());
    let is_value = http::HeaderValue::from_str(value).is_ok();
    if http::HeaderName::from_bytes(name.as_bytes()).is_err() || !is_value {
        return Err("not a header field; write NAME: VALUE in plain ASCII".to_owned());
    }
    if ["content-length", "transfer-encoding"].iter().any(|it| name.eq_ignore_ascii_case(it)) {
        return Err("framing is the generator's; give the body with --body".to_owned());
    }
    Ok((name.to_owned(), value.to_owned()))
}

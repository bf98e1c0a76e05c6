//! Micro-benchmarks of the request path: route, admit, checkout, call, renew, headers.
//!
//! `cargo bench --bench hot_path` prints a table. It has nanoseconds per operation as the median of
//! rounds with the lowest and the highest, and instructions if valgrind is installed. A word
//! selects the rows that have it in their names. `--record=FILE` writes the instructions of all
//! rows, and `--gate=FILE` fails if a row takes more than 1.1 times those of such a file.
//! `cargo test` runs each row a few times and prints no figure.
//!
//! Everything runs on one thread in one process, without a socket. `guesthouse bench` measures
//! whole requests.

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::Result;
use guesthouse::message::{Origin, Peer, Request, RequestBody, RequestId, RouteMatch, Scheme};
use http::uri::PathAndQuery;
use http::{HeaderMap, HeaderName, HeaderValue, Method, Version};

use case::Row;

#[path = "hot_path/case.rs"]
mod case;
#[path = "hot_path/count.rs"]
mod count;
#[path = "hot_path/guests.rs"]
mod guests;
#[path = "hot_path/routes.rs"]
mod routes;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Each round measures every row, so that a machine that slows down slows all of them.
const ROUNDS: usize = 11;
/// How long a row is measured in a round.
const SHARE: Duration = Duration::from_millis(20);
/// A batch of turns takes at least so long. Beside that, reading the clock takes no time.
const BATCH: Duration = Duration::from_micros(100);
/// Turns of a row under `cargo test`.
const TEST_TURNS: usize = 3;

/// The header fields of a browser.
const HEADERS: [(&str, &str); 8] = [
    ("host", "example.com"),
    ("user-agent", "Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0"),
    ("accept", "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8"),
    ("accept-language", "en-US,en;q=0.5"),
    ("accept-encoding", "gzip, deflate, br, zstd"),
    ("cookie", "session=0123456789abcdef0123456789abcdef; theme=dark"),
    ("connection", "keep-alive"),
    ("upgrade-insecure-requests", "1"),
];

/// Why this process was started.
#[derive(Clone, PartialEq, Eq)]
enum Purpose {
    Test,
    Bench,
    /// Runs the rows under valgrind, for the process that prints the table.
    Count,
    /// To compare the instructions of all rows with those of this file.
    Gate(PathBuf),
    /// To write the instructions of all rows into this file.
    Record(PathBuf),
}

fn main() -> ExitCode {
    match run(std::env::args().skip(1)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("hot_path: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(args: impl Iterator<Item = String>) -> Result<()> {
    let Some((purpose, filter)) = parse(args) else { return Ok(()) };
    match &purpose {
        Purpose::Gate(file) => return count::gate(file),
        Purpose::Record(file) => return count::record(file),
        Purpose::Test | Purpose::Bench | Purpose::Count => {}
    }
    let mut rows = routes::rows(request("/hello?name=world"))?;
    rows.extend(guests::rows(request, purpose != Purpose::Count)?);
    match purpose {
        Purpose::Count => count::run(&mut rows),
        Purpose::Test => {
            for row in &mut rows {
                row.measure(TEST_TURNS);
            }
            println!("{} rows of the request path: each was taken {TEST_TURNS} times", rows.len());
        }
        _ => print(&mut rows, &filter),
    }
    Ok(())
}

/// Parses those arguments of cargo and of the test harness that make a difference. `None` if there
/// is nothing to run.
fn parse(args: impl Iterator<Item = String>) -> Option<(Purpose, String)> {
    let (mut purpose, mut filter) = (Purpose::Test, String::new());
    for arg in args {
        match arg.as_str() {
            // Cargo puts it behind the other options.
            "--bench" if purpose == Purpose::Test => purpose = Purpose::Bench,
            "--bench" => {}
            count::OPTION => purpose = Purpose::Count,
            "--list" => return None,
            option if option.starts_with("--gate=") => {
                purpose = Purpose::Gate(option["--gate=".len()..].into());
            }
            option if option.starts_with("--record=") => {
                purpose = Purpose::Record(option["--record=".len()..].into());
            }
            option if option.starts_with('-') => {}
            _ => filter = arg,
        }
    }
    // A filter under `cargo test` names a test, and these rows are none.
    (purpose != Purpose::Test || filter.is_empty()).then_some((purpose, filter))
}

/// Makes the request that guests get. The first segment of its path is the route.
fn request(target: &'static str) -> Request {
    let fields = HEADERS
        .iter()
        .map(|(name, value)| (HeaderName::from_static(name), HeaderValue::from_static(value)));
    let mut headers = HeaderMap::with_capacity(HEADERS.len());
    headers.extend(fields);
    let route = target.split(['/', '?']).nth(1).unwrap_or_default();
    let local = ([127, 0, 0, 1], 8080).into();
    let peer = Peer { address: ([127, 0, 0, 1], 50_000).into() };
    let origin = Origin { scheme: Scheme::Http, local, peer };
    Request {
        id: RequestId::default(),
        method: Method::GET,
        uri: PathAndQuery::from_static(target),
        version: Version::HTTP_11,
        headers,
        is_host_set: false,
        body: RequestBody::default(),
        origin,
        route_match: RouteMatch::new("/".len() + route.len(), Vec::new()),
    }
}

/// Measures the rows that the filter selects, and prints the table.
fn print(rows: &mut [Row], filter: &str) {
    let mut chosen: Vec<&mut Row> =
        rows.iter_mut().filter(|row| row.name.contains(filter)).collect();
    let batches: Vec<usize> = chosen.iter_mut().map(|row| batch(row)).collect();
    let mut times = vec![Vec::with_capacity(ROUNDS); chosen.len()];
    for _ in 0..ROUNDS {
        for ((row, batch), times) in chosen.iter_mut().zip(&batches).zip(&mut times) {
            times.push(nanoseconds(row, *batch));
        }
    }
    let counts = count::instructions();
    println!("{:36} {:>9} {:>9} {:>9} {:>13}", "", "ns/op", "least", "most", "instructions");
    for (row, times) in chosen.iter().zip(&mut times) {
        times.sort_by(f64::total_cmp);
        let count = counts.as_ref().ok().and_then(|counts| counts.get(row.name));
        let count = count.map_or("-".to_owned(), |count| format!("{count:.0}"));
        let (least, median, most) = (times[0], times[ROUNDS / 2], times[ROUNDS - 1]);
        println!("{:36} {median:>9.1} {least:>9.1} {most:>9.1} {count:>13}", row.name);
    }
    println!("\nMedian of {ROUNDS} rounds, one thread. Instructions are those outside the kernel.");
    if let Err(error) = counts {
        println!("None here: {error:#}.");
    }
}

/// How many turns of a row take long enough to be timed.
fn batch(row: &mut Row) -> usize {
    let mut turns = 1;
    while row.measure(turns) < BATCH {
        turns *= 2;
    }
    turns
}

/// Measures a row for one round, in nanoseconds per operation.
fn nanoseconds(row: &mut Row, batch: usize) -> f64 {
    let begun = Instant::now();
    let (mut spent, mut turns) = (Duration::ZERO, 0);
    while begun.elapsed() < SHARE {
        spent += row.measure(batch);
        turns += batch;
    }
    spent.as_secs_f64() * 1e9 / (turns * row.ops_per_turn) as f64
}

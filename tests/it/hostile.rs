//! Guests that misbehave: one `.wat` file in `guests/hostile` for each way.
//!
//! Each test asserts the same three things: the documented status, without details of the host in
//! the answer; that the next request to the same guest and one to another guest work; and that
//! every instance and every permit is back, which is checked once for all guests of a host.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use crate::client::Response;
use crate::host::{HELLO, Host, Setup};
use crate::patience::patience;

mod arguments;
mod capabilities;
mod disconnecting;
mod growth;
mod isolation;
mod loading;
mod pausing;
mod startup;
mod straight;
mod words;

/// Both modes of isolation.
pub const ISOLATIONS: [&str; 2] = ["fresh", "reuse"];

/// Guests that break on a GET and answer a POST, each with the status of the GET.
const BREAKING: &[(&str, u16)] = &[
    ("divide", 500),
    ("exit_three", 500),
    ("exit_zero", 500),
    ("header_evasion", 500),
    ("header_flood", 500),
    ("null_call", 500),
    ("out_of_bounds", 500),
    ("read_nothing", 500),
    ("recursion", 500),
    ("response_splitting", 500),
    ("unreachable", 500),
    ("write_forever", 500),
    ("wrong_call", 500),
];

/// The same for guests that go on until the deadline.
const OVERRUNNING: &[(&str, u16)] = &[
    ("fill_in_a_row", 504),
    ("log_forever", 504),
    ("loop", 504),
    ("random_in_a_row", 504),
    ("sleep", 504),
    ("stdout_forever", 504),
];

/// A file of `guests/hostile`.
pub fn text(name: &str) -> String {
    let path = folder().join(name).with_extension("wat");
    fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("guests/hostile")
}

/// The names of all files, sorted.
pub fn names() -> BTreeSet<String> {
    let listed = fs::read_dir(folder()).expect("the folder of hostile guests");
    let paths = listed.map(|entry| entry.expect("an entry").path());
    let name = |path: PathBuf| path.file_stem().expect("a name").to_string_lossy().into_owned();
    paths.map(name).collect()
}

/// A host with these hostile guests, and `/good` as another guest.
pub fn host<'a>(names: impl IntoIterator<Item = &'a str>, isolation: &str) -> Setup {
    let good = Host::with("good.wat", HELLO).arg("--isolation").arg(isolation);
    let with = |setup: Setup, name: &str| setup.file(&format!("{name}.wat"), text(name));
    names.into_iter().fold(good, with)
}

/// Sends a GET. Asserts that the host answers it with this status, and that nobody else is harmed.
#[track_caller]
pub fn assert_contained(host: &Host, path: &str, status: u16) {
    let answer = host.get(path);
    assert_discreet(path, &answer, status);
    host.assert_serves("/good");
}

/// Asserts an answer of the host that does not reveal what happened inside.
#[track_caller]
pub fn assert_discreet(path: &str, answer: &Response, status: u16) {
    assert_eq!(answer.status, status, "{path}: {}", answer.text());
    answer.assert_problem(status);
    let inside = [
        "wasm",
        "backtrace",
        "unreachable",
        "a_secret_name",
        "0x",
        "pointer",
        "proc_exit",
        "write_body",
        ".wat",
    ];
    let told = format!("{:?} {}", answer.headers, answer.text());
    for word in inside {
        assert!(!told.contains(word), "{path} tells of {word:?}: {told}");
    }
}

/// Breaks each guest twice. The guest has to answer in between and afterwards.
fn break_each(guests: &[(&str, u16)], isolation: &str, flags: &[&str]) {
    let names = guests.iter().map(|(name, _)| *name);
    let host = host(names, isolation).args(flags).start();
    host.settled();
    for (name, status) in guests {
        let path = format!("/{name}");
        for _ in 0..2 {
            assert_contained(&host, &path, *status);
            let next = host.request("POST", &path, &[], b"");
            assert_eq!(next.status, 200, "{name}, the next one: {}", next.text());
        }
    }
    let rejected: u64 = host.at_rest().rejects.values().sum();
    assert_eq!(rejected, 2 * guests.len() as u64);
}

#[test]
fn a_guest_that_breaks_harms_nobody_under_fresh() {
    break_each(BREAKING, "fresh", &[]);
}

#[test]
fn a_guest_that_breaks_harms_nobody_under_reuse() {
    break_each(BREAKING, "reuse", &[]);
}

#[test]
fn a_guest_that_does_not_end_is_stopped_under_fresh() {
    break_each(OVERRUNNING, "fresh", &["--deadline", "300ms"]);
}

#[test]
fn a_guest_that_does_not_end_is_stopped_under_reuse() {
    break_each(OVERRUNNING, "reuse", &["--deadline", "300ms"]);
}

#[test]
fn a_guest_that_computes_too_long_is_stopped_before_the_deadline() {
    let host = host(["loop"], "fresh").args(["--cpu-max", "50ms"]).start();
    assert_contained(&host, "/loop", 504);
    assert_eq!(host.at_rest().rejects("cpu_time"), 1);
}

/// While one guest runs without end, another one answers on the same worker.
#[test]
fn a_loop_does_not_hold_up_its_worker() {
    let flags = ["--workers", "1", "--deadline", "3s"];
    let host = host(["loop"], "fresh").args(flags).start();
    host.assert_serves("/good");
    let mut looping = host.connect();
    looping.send("GET /loop HTTP/1.1\r\nhost: guest.test\r\n\r\n");
    host.status_when("looping", patience(), |status| status.in_flight > 0);
    for _ in 0..20 {
        host.assert_serves("/good");
    }
    // None of them had to wait for the guest to end.
    assert!(host.status().in_flight > 0, "the loop has ended");
    assert_eq!(looping.read().status, 504);
    host.at_rest();
}

/// If a guest has no start-up code, its instances are made without waiting, even on a busy machine
/// and while the ticker runs for other guests.
#[test]
fn making_an_instance_does_not_wait() {
    let segment = |at: u32| format!("(data (i32.const {}) \"filled\")\n", 1000 + 50 * at);
    let segments: String = (0..1000).map(segment).collect();
    let wide = "(memory 400) (memory 400) (table 20000 funcref) (table 20000 funcref)";
    let guest = HELLO.replace("(func (export", &format!("{wide} {segments} (func (export"));
    let flags = ["--workers", "1", "--deadline", "4s"];
    let host = host(["loop"], "fresh").file("filled.wat", guest).args(flags).start();
    let mut looping: Vec<_> = (0..2).map(|_| host.connect()).collect();
    for connection in &mut looping {
        connection.send("GET /loop HTTP/1.1\r\nhost: guest.test\r\n\r\n");
    }
    std::thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| {
                let mut connection = host.connect();
                for _ in 0..100 {
                    assert_eq!(connection.get("/filled").status, 200);
                }
            });
        }
    });
    for connection in &mut looping {
        assert_eq!(connection.read().status, 504);
    }
    host.at_rest();
}

/// Every file in the folder is in one of the tables.
#[test]
fn every_hostile_guest_is_tested() {
    let files = names();
    let tables = [BREAKING, OVERRUNNING].into_iter().flatten();
    let names = tables.map(|(name, _)| *name);
    let tested: BTreeSet<String> = names
        .chain(loading::names())
        .chain(startup::GUESTS.iter().copied())
        .chain(growth::GUESTS.iter().copied())
        .chain(straight::GUESTS.iter().copied())
        .chain(words::GUESTS.iter().copied())
        .map(str::to_owned)
        .collect();
    assert_eq!(files, tested);
    for file in &files {
        let comment = text(file);
        assert!(comment.starts_with(";; "), "{file} does not say what it does");
    }
}

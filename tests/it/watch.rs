//! The handler folder while the host runs: files that come, change and go, and what clients see of
//! that.
//!
//! Owns the ways to write, save and remove files, and the client that never stops sending requests.
//! Each theme has a file, and every test leaves its host at rest.

use std::cell::Cell;
use std::fs::{self, File};
use std::io::Write as _;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread::ScopedJoinHandle;
use std::time::{Duration, Instant};

use rustix::process::Signal;

use crate::client::Response;
use crate::host::{Host, Line, until};
use crate::patience::patience;
use crate::wat;

mod access;
mod bad;
mod copies;
mod descriptors;
mod folders;
mod links;
mod many;
mod routes;
mod saves;
mod swap;

/// The pause between two requests of a client that sends all the time.
const BREATH: Duration = Duration::from_millis(2);

/// If the machine holds a writer up for much longer, the host has to assume that it is done. The
/// result of a test then means nothing, and the test begins again.
const LATE: Duration = Duration::from_secs(1);

/// The log's words when a bad version is not served.
const STILL_SERVED: &str = "the version before it is still served";

/// A file in the handler folder.
fn path(host: &Host, name: &str) -> PathBuf {
    host.handlers().join(name)
}

/// A path beside the handler folder, which the host does not watch.
fn beside(host: &Host, name: &str) -> PathBuf {
    host.handlers().with_file_name(name)
}

/// Writes a file in place: it is truncated, written and closed.
#[track_caller]
fn write(host: &Host, name: &str, contents: impl AsRef<[u8]>) {
    fs::write(path(host, name), contents).expect("a file");
}

/// Writes a file by a rename, so that it never exists in part.
#[track_caller]
fn put(host: &Host, name: &str, contents: impl AsRef<[u8]>) {
    let temp = beside(host, "put");
    fs::write(&temp, contents).expect("a file");
    fs::rename(temp, path(host, name)).expect("a rename");
}

/// The offset of a module's data section. The module is valid without it, and then answers with
/// zeros.
fn data_start(module: &[u8]) -> usize {
    const DATA: u8 = 11;
    let mut at = 8;
    while module[at] != DATA {
        // A section is its id, its size as LEB128, and its bytes.
        let (mut bytes, mut shift, mut end) = (0, 0, at + 1);
        loop {
            bytes |= usize::from(module[end] & 0x7f) << shift;
            shift += 7;
            end += 1;
            if module[end - 1] < 0x80 {
                break;
            }
        }
        at = end + bytes;
    }
    at
}

/// Writes a file in two parts, of which the first one is a valid module, and makes the host scan
/// the folder in between. Returns whether that was in time, see [`LATE`].
#[track_caller]
#[must_use]
fn write_in_parts(host: &Host, file: &Path, text: &str) -> bool {
    let whole = ::wat::parse_str(wat::says(text)).expect("a module");
    let (head, tail) = whole.split_at(data_start(&whole));
    let mut file = File::create(file).expect("a file");
    file.write_all(head).expect("a write");
    let written = Instant::now();
    for _ in 0..3 {
        // The test is about these pauses.
        std::thread::sleep(Duration::from_millis(150));
        host.signal(Signal::HUP);
    }
    std::thread::sleep(Duration::from_millis(150));
    file.write_all(tail).expect("a write");
    written.elapsed() < LATE
}

/// Runs a test until its writer was in time, which the test records.
fn until_in_time(test: impl Fn(&Cell<bool>)) {
    for _ in 0..5 {
        let is_in_time = Cell::new(true);
        let ended = catch_unwind(AssertUnwindSafe(|| test(&is_in_time)));
        match ended {
            Err(panic) if is_in_time.get() => resume_unwind(panic),
            _ if is_in_time.get() => return,
            _ => {}
        }
    }
    panic!("this machine is too busy for tests with pauses");
}

#[track_caller]
fn remove(host: &Host, name: &str) {
    fs::remove_file(path(host, name)).expect("the file");
}

#[track_caller]
fn rename(host: &Host, from: &str, to: &str) {
    fs::rename(path(host, from), path(host, to)).expect("a rename");
}

/// A response in short: the text of a 200, or else the status.
fn told(answer: &Response) -> String {
    if answer.status == 200 { answer.text() } else { answer.status.to_string() }
}

/// The response to a GET, in short.
#[track_caller]
fn ask(host: &Host, path: &str) -> String {
    told(&host.get(path))
}

/// Waits until a GET gets this answer.
#[track_caller]
fn wait_for(host: &Host, path: &str, wanted: &str) {
    let what = format!("answer {wanted:?} from {path}");
    until(&what, patience(), || (ask(host, path) == wanted).then_some(()));
}

/// Records the end of something when it is dropped, even by a panic, so that the waiting client
/// ends.
struct Over<'a>(&'a AtomicBool);

impl Drop for Over<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Release);
    }
}

/// The answers that a client sees in short while `change` runs. Repeated answers are left out.
#[track_caller]
fn seen_during(host: &Host, path: &str, change: impl FnOnce()) -> Vec<String> {
    let [seen] = each_seen_during(host, [path], change);
    seen
}

/// The same for several clients, each with a path of its own.
#[track_caller]
fn each_seen_during<const N: usize>(
    host: &Host,
    paths: [&str; N],
    change: impl FnOnce(),
) -> [Vec<String>; N] {
    let (is_over, begun) = (AtomicBool::new(false), AtomicUsize::new(0));
    std::thread::scope(|scope| {
        let over = Over(&is_over);
        let clients = paths.map(|path| scope.spawn(|| watch(host, path, &is_over, &begun)));
        let have_begun = || (begun.load(Ordering::Acquire) == N).then_some(());
        until("first answers", patience(), have_begun);
        change();
        drop(over);
        let seen = |client: ScopedJoinHandle<'_, Vec<String>>| client.join();
        clients.map(seen).map(|seen| seen.unwrap_or_else(|panic| resume_unwind(panic)))
    })
}

/// One of these clients.
fn watch(host: &Host, path: &str, is_over: &AtomicBool, begun: &AtomicUsize) -> Vec<String> {
    let mut connection = host.connect();
    let mut seen = vec![told(&connection.get(path))];
    begun.fetch_add(1, Ordering::Release);
    loop {
        let is_last = is_over.load(Ordering::Acquire);
        let told = told(&connection.get(path));
        if seen.last() != Some(&told) {
            seen.push(told);
        }
        if is_last {
            return seen;
        }
        std::thread::sleep(BREATH);
    }
}

/// Asserts that these answers were seen in this order, and no others. A client may have missed an
/// answer that was soon followed by the next, but not the last one.
#[track_caller]
fn assert_in_order(seen: &[String], expected: &[&str]) {
    let mut rest = expected.iter();
    let is_known = seen.iter().all(|answer| rest.any(|it| it == answer));
    let is_last = seen.last().map(String::as_str) == expected.last().copied();
    assert!(is_known && is_last, "{seen:?} where {expected:?} were to be seen");
}

/// The number of log lines with all these words.
#[track_caller]
fn lines(host: &Host, words: &[&str]) -> usize {
    // All earlier lines have arrived once the status has.
    host.status();
    host.lines().iter().filter(|line| line.has(words)).count()
}

/// The number of error lines with all these words.
#[track_caller]
fn errors(host: &Host, words: &[&str]) -> usize {
    host.status();
    let is_error = |line: &&Line| line.level() == "ERROR" && line.has(words);
    host.lines().iter().filter(is_error).count()
}

/// Makes the host scan its folder, and waits until it has.
#[track_caller]
fn look(host: &Host) {
    host.signal(Signal::HUP);
    // Only a scan notices that a file came and went.
    put(host, "looked.wat", wat::says("yes"));
    wait_for(host, "/looked", "yes");
    remove(host, "looked.wat");
    wait_for(host, "/looked", "404");
}

/// Waits until the host has no more descriptors and threads than it had.
#[track_caller]
fn wait_footprint(host: &Host, before: (usize, usize)) {
    let (fds, threads) = before;
    until(&format!("{fds} descriptors and {threads} threads"), patience(), || {
        let now = footprint(host);
        (now.0 <= fds && now.1 <= threads).then_some(())
    });
}

/// The descriptors and threads of the host.
fn footprint(host: &Host) -> (usize, usize) {
    let count = |what: &str| {
        let folder = format!("/proc/{}/{what}", host.pid().as_raw_nonzero());
        fs::read_dir(folder).expect("the host runs").count()
    };
    (count("fd"), count("task"))
}

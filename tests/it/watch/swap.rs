//! A new version while requests run: each request is answered by one version, completely, and
//! nothing is left of the old one.

use std::fs::{File, FileTimes};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Instant, SystemTime};

use super::{
    LATE, Over, ask, footprint, lines, look, path, put, remove, rename, until_in_time,
    wait_footprint, wait_for, write,
};
use crate::client::{Connection, message};
use crate::host::{Host, until};
use crate::patience::{patience, soon};
use crate::wat;

/// The bytes in an answer of [`letters`]: more than one write to a socket takes.
const LETTERS: usize = 8 * 1024;

/// Reads the whole request body, then answers with this text.
fn reads(text: &str) -> String {
    let body = format!(
        "(loop $more
      (local.set $size (call $read_body (i32.const 0) (i32.const 4096) (i32.const 4096)))
      (br_if $more (i64.eqz (i64.shr_u (local.get $size) (i64.const 32)))))
    (call $write_body (i32.const 1) (i32.const 0) (i32.const {}))",
        text.len()
    );
    wat::guest(&format!(r#"(data (i32.const 0) "{text}")"#), &body)
}

/// Answers with this letter and a character that advances with each request to an instance: `a0`,
/// `a1`, `a2`.
fn counts(letter: char) -> String {
    wat::guest(
        &format!(r#"(data (i32.const 0) "{letter}/")"#),
        "(i32.store8 (i32.const 1) (i32.add (i32.load8_u (i32.const 1)) (i32.const 1)))
    (call $write_body (i32.const 1) (i32.const 0) (i32.const 2))",
    )
}

/// Answers with this letter, repeated many times.
fn letters(letter: u8) -> String {
    let letter = char::from(letter);
    let body = format!("(call $write_body (i32.const 1) (i32.const 0) (i32.const {LETTERS}))");
    let data = letter.to_string().repeat(LETTERS);
    wat::guest(&format!(r#"(data (i32.const 0) "{data}")"#), &body)
}

/// Sends the head and half the body of a request. Waits until this many requests are in guests.
#[track_caller]
fn begin(host: &Host, path: &str, running: u64) -> Connection {
    let mut connection = host.connect();
    connection.send(message("POST", path, &["content-length: 8"], b"half"));
    host.status_when("running", patience(), |status| status.instances_out == running);
    connection
}

/// Sends the rest of the body.
#[track_caller]
fn end(mut connection: Connection) -> (String, Connection) {
    connection.assert_silent();
    connection.send("half");
    let answer = connection.read();
    assert_eq!(answer.status, 200, "{answer:?}");
    (answer.text(), connection)
}

#[test]
fn a_request_ends_on_the_version_on_which_it_began() {
    for isolation in ["fresh", "reuse"] {
        let host = Host::with("page.wat", reads("one")).args(["--isolation", isolation]).start();
        host.settled();
        let on_one = begin(&host, "/page", 1);
        put(&host, "page.wat", reads("two"));
        wait_for(&host, "/page", "two");
        let on_two = begin(&host, "/page", 2);
        put(&host, "page.wat", reads("three"));
        wait_for(&host, "/page", "three");
        let (text, mut connection) = end(on_one);
        assert_eq!(text, "one");
        // The connection does not belong to a version: its next request gets the current one.
        assert_eq!(connection.get("/page").text(), "three");
        assert_eq!(end(on_two).0, "two");
        for _ in 0..20 {
            assert_eq!(ask(&host, "/page"), "three");
        }
        let status = host.at_rest();
        assert_eq!((status.handlers, status.ready), (1, 1), "{status:?}");
    }
}

#[test]
fn a_request_ends_though_its_file_is_gone() {
    let host = Host::with("page.wat", reads("one")).file("hello.wat", wat::says("hi")).start();
    host.settled();
    let running = begin(&host, "/page", 1);
    remove(&host, "page.wat");
    wait_for(&host, "/page", "404");
    let (text, mut connection) = end(running);
    assert_eq!(text, "one");
    connection.get("/page").assert_problem(404);
    // The slot of the old version may be another's by now.
    write(&host, "next.wat", reads("next"));
    wait_for(&host, "/next", "next");
    let running = begin(&host, "/next", 1);
    rename(&host, "next.wat", "moved.wat");
    wait_for(&host, "/moved", "next");
    assert_eq!(end(running).0, "next");
    assert_eq!(ask(&host, "/hello"), "hi");
    host.at_rest();
}

#[test]
fn a_request_that_waits_for_a_file_is_answered_when_it_goes() {
    until_in_time(|is_in_time| {
        let host = Host::with("hello.wat", wat::says("hi")).start();
        host.settled();
        // While the file is being written, it is not loaded.
        let began = Instant::now();
        let file = File::create(path(&host, "page.wat")).expect("a file");
        host.wait_log_with(&["page.wat", "a new route"]);
        let mut connections = [host.connect(), host.connect()];
        for connection in &mut connections {
            connection.send(message("GET", "/page", &[], b""));
        }
        host.status_when("waiting", patience(), |status| status.in_flight == 2);
        remove(&host, "page.wat");
        is_in_time.set(began.elapsed() < LATE);
        for connection in &mut connections {
            connection.read().assert_problem(404);
        }
        drop(file);
        let status = host.at_rest();
        assert_eq!((status.handlers, status.ready), (1, 1), "{status:?}");
    });
}

/// Changes a file, and waits until the host has loaded it again.
#[track_caller]
fn touch(host: &Host, change: impl FnOnce()) {
    let before = lines(host, &["handlers: "]);
    change();
    until("look at what was touched", patience(), || {
        (lines(host, &["handlers: "]) > before).then_some(())
    });
}

/// Waits until `page.wat` has had this many new versions.
#[track_caller]
fn wait_versions(host: &Host, count: usize) {
    until(&format!("version {count}"), patience(), || {
        (lines(host, &["page.wat", "a new version"]) == count).then_some(())
    });
    // The log line comes before the swap. A scan comes after it.
    look(host);
}

#[test]
fn what_has_not_changed_is_not_swapped() {
    let host = Host::with("page.wat", counts('a'))
        .file("other.wat", wat::says("other 0"))
        .args(["--isolation", "reuse", "--workers", "1"])
        .start();
    host.settled();
    let mut connection = host.connect();
    let mut expect = |wanted: &str| assert_eq!(connection.get("/page").text(), wanted);
    expect("a0");
    expect("a1");
    let page = path(&host, "page.wat");
    let set_modified = |at: SystemTime| {
        let file = File::options().append(true).open(&page).expect("the file");
        file.set_times(FileTimes::new().set_modified(at)).expect("a time");
    };
    touch(&host, || set_modified(SystemTime::now()));
    expect("a2");
    touch(&host, || set_modified(SystemTime::UNIX_EPOCH));
    expect("a3");
    touch(&host, || write(&host, "page.wat", counts('a')));
    expect("a4");
    touch(&host, || put(&host, "page.wat", counts('a')));
    expect("a5");
    for number in 1..=3 {
        let text = format!("other {number}");
        put(&host, "other.wat", wat::says(&text));
        wait_for(&host, "/other", &text);
        let name = format!("new{number}.wat");
        write(&host, &name, wat::says(&text));
        wait_for(&host, &format!("/new{number}"), &text);
    }
    remove(&host, "other.wat");
    wait_for(&host, "/other", "404");
    expect("a6");
    assert_eq!(lines(&host, &["page.wat", "a new version"]), 0);
    // A new version begins with new instances.
    put(&host, "page.wat", counts('b'));
    wait_versions(&host, 1);
    expect("b0");
    expect("b1");
    put(&host, "page.wat", counts('a'));
    wait_versions(&host, 2);
    expect("a0");
    host.at_rest();
}

/// Requests until it is told to stop. Every answer has to be one letter, [`LETTERS`] times.
fn client(host: &Host, is_over: &AtomicBool, answered: &AtomicUsize) {
    let mut connection = host.connect();
    while !is_over.load(Ordering::Acquire) {
        let answer = connection.get("/page");
        assert_eq!(answer.status, 200, "{answer:?}");
        assert_eq!(answer.body.len(), LETTERS);
        let first = answer.body[0];
        assert!(answer.body.iter().all(|byte| *byte == first), "two versions in one answer");
        assert!(first.is_ascii_lowercase(), "{first}");
        answered.fetch_add(1, Ordering::Relaxed);
    }
}

#[test]
fn a_hundred_swaps_under_load_lose_no_request() {
    for isolation in ["fresh", "reuse"] {
        let setup = Host::with("page.wat", letters(b'a')).file("hello.wat", wat::says("hi"));
        let host = setup.args(["--isolation", isolation]).start();
        host.settled();
        host.assert_serves("/page");
        let no_client = |status: &crate::host::Status| status.connections == 0;
        host.status_when("without clients", soon(), no_client);
        let before = footprint(&host);
        let (is_over, answered) = (AtomicBool::new(false), AtomicUsize::new(0));
        let mut last = 'a';
        // All versions, open for reading: deleting a file for good waits for the disk.
        let mut versions = Vec::new();
        std::thread::scope(|scope| {
            for _ in 0..8 {
                scope.spawn(|| client(&host, &is_over, &answered));
            }
            let over = Over(&is_over);
            for number in 1..=100_u8 {
                // Eight versions. In all but the first round they come from the cache.
                let letter = b'a' + number % 8;
                versions.push(File::open(path(&host, "page.wat")).expect("the file"));
                put(&host, "page.wat", letters(letter));
                last = char::from(letter);
                let is_served = || ask(&host, "/page").starts_with(last).then_some(());
                until(&format!("swap {number}"), patience(), is_served);
            }
            drop(over);
        });
        assert!(answered.load(Ordering::Relaxed) > 100, "hardly any request: {answered:?}");
        assert_eq!(lines(&host, &["page.wat", "a new version is served"]), 100);
        let expected = last.to_string().repeat(LETTERS);
        for _ in 0..100 {
            assert_eq!(ask(&host, "/page"), expected);
        }
        let status = host.at_rest();
        assert!(status.rejects.is_empty(), "{status:?}");
        host.status_when("without clients", soon(), no_client);
        wait_footprint(&host, before);
    }
}

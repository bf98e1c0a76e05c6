//! A kernel that is short of mappings, descriptors or address space. The host unloads handlers and
//! lets requests wait before the kernel refuses. If the kernel does refuse, no file is blamed.

use std::sync::atomic::{AtomicBool, Ordering};

use rustix::process::{Resource, Rlimit, getrlimit, prlimit};

use super::{PATIENTLY, assert_no_compilers, assert_says, read, with};
use crate::client::{Connection, message};
use crate::host::{HELLO, Host, Line, Setup, command};
use crate::patience::patience;
use crate::wat;

fn text(at: usize) -> String {
    format!("I am {at}")
}

/// A host with this many small handlers.
fn small(count: usize) -> Setup {
    let file =
        |setup: Setup, at: usize| setup.file(&format!("small-{at}.wat"), wat::says(&text(at)));
    (0..count).fold(Host::empty(), file).args(PATIENTLY).env("GUESTHOUSE_LOG", "debug")
}

/// The same with handlers whose memory image is a mapped file that stays open.
fn large(count: usize) -> Setup {
    let bytes = "x".repeat(80 * 1024);
    let data = format!(r#"(data (i32.const 1024) "{bytes}")"#);
    let file = |setup: Setup, at: usize| {
        setup.file(&format!("large-{at}.wat"), with(&wat::says(&text(at)), &data))
    };
    (0..count).fold(Host::empty(), file).args(PATIENTLY).env("GUESTHOUSE_LOG", "debug")
}

/// Requests every handler, on a few connections at once, while `look` watches the host.
#[track_caller]
fn ask_all(host: &Host, kind: &str, count: usize, look: impl Fn() + Sync) {
    const CONNECTIONS: usize = 4;
    let is_over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let looking = scope.spawn(|| {
            while !is_over.load(Ordering::Relaxed) {
                look();
                std::thread::yield_now();
            }
        });
        let asking: Vec<_> = (0..CONNECTIONS)
            .map(|first| {
                scope.spawn(move || {
                    let mut connection = host.connect();
                    for at in (first..count).step_by(CONNECTIONS) {
                        let path = format!("/{kind}-{at}");
                        connection.send(message("GET", &path, &[], b""));
                        let answer = read(&mut connection);
                        assert_eq!((answer.status, answer.text()), (200, text(at)), "{path}");
                    }
                })
            })
            .collect();
        let asked: Vec<_> = asking.into_iter().map(std::thread::ScopedJoinHandle::join).collect();
        is_over.store(true, Ordering::Relaxed);
        looking.join().expect("the host is within its limits");
        assert!(asked.iter().all(Result::is_ok), "answers were wrong");
    });
}

/// The number of loads from the cache: of handlers that had been unloaded.
fn loaded_again(host: &Host) -> usize {
    host.lines().iter().filter(|line| line.has(&["loaded (", "from the cache"])).count()
}

fn mappings(host: &Host) -> usize {
    let path = format!("/proc/{}/maps", host.pid().as_raw_nonzero());
    std::fs::read_to_string(path).expect("the host runs").lines().count()
}

#[test]
fn more_handlers_than_there_are_mappings_for_are_all_answered() {
    const HANDLERS: usize = 320;
    const MAPPINGS_MAX: usize = 2_000;
    let host = small(HANDLERS).args(["--mappings-max", "2000", "--workers", "2"]).start();
    for _ in 0..2 {
        ask_all(&host, "small", HANDLERS, || {
            let mappings = mappings(&host);
            assert!(mappings <= MAPPINGS_MAX, "{mappings} mappings");
        });
    }
    let status = host.at_rest();
    assert_eq!((status.failed, status.rejects.len()), (0, 0), "{status:?}");
    assert_eq!(status.mappings_max, MAPPINGS_MAX as u64);
    assert!(loaded_again(&host) > 0, "all of them fitted: {status:?}");
    // The counts of the status are taken once a second at most.
    let counted = host.status_when("counted", patience(), |status| {
        let (told, counted) = (status.mappings_used as usize, mappings(&host));
        told <= MAPPINGS_MAX && told.abs_diff(counted) < 100
    });
    assert!(counted.mappings_used > 500, "{counted:?}");
}

#[test]
fn more_large_handlers_than_there_are_descriptors_for_are_all_answered() {
    const HANDLERS: usize = 40;
    const FILES_MAX: u64 = 128;
    let limit = format!("ulimit -n {FILES_MAX} && exec \"$@\"");
    let host = large(HANDLERS).through(["sh", "-c", &limit, "sh"]).start();
    ask_all(&host, "large", HANDLERS, || ());
    // Seven eighths of a half of a quarter.
    host.status_when("trimmed", patience(), |status| status.ready <= FILES_MAX / 8 * 7 / 8);
    ask_all(&host, "large", HANDLERS, || ());
    let status = host.at_rest();
    assert_eq!((status.failed, status.rejects.len()), (0, 0), "{status:?}");
    assert!(status.descriptors_used < status.descriptors_max, "{status:?}");
    assert_eq!(status.descriptors_max, FILES_MAX);
    assert!(loaded_again(&host) > 0, "all of them fitted: {status:?}");
    let is_blamed = |line: &Line| line.level() == "ERROR";
    assert!(!host.lines().iter().any(is_blamed), "{:?}", host.lines());
}

/// A host with one loaded handler, and another one that has to wait, because the memory is only
/// enough for the first; and a connection to the host.
fn half_loaded(deadline: &str) -> (Host, Connection, String) {
    let bytes = "x".repeat(48 * 1024);
    let data = format!(r#"(data (i32.const 1024) "{bytes}")"#);
    let file = |setup: Setup, at: usize| {
        setup.file(&format!("handler-{at}.wat"), with(&wat::says(&text(at)), &data))
    };
    let setup = (0..60).fold(Host::with("good.wat", HELLO), file);
    let host = setup
        .args(["--loaded-max", "1MiB", "--deadline", deadline])
        .env("GUESTHOUSE_LOG", "debug")
        .start();
    // Once all that fit are loaded.
    host.wait_log_with(&["handlers: ", " cold, ", " ready"]);
    host.status_when("full", patience(), |status| status.loading == 0 && status.cold > 0);
    assert_no_compilers(&host);
    let mut connection = host.connect();
    assert_eq!(connection.get("/good").status, 200);
    let lines = host.lines();
    let is_loaded = |path: &String| {
        let name = format!("{}.wat", &path[1..]);
        lines.iter().any(|line| line.has(&[&name, "loaded ("]))
    };
    let mut paths = (0..60).map(|at| format!("/handler-{at}"));
    let cold = paths.find(|path| !is_loaded(path)).expect("one that is cold");
    (host, connection, cold)
}

/// Sets a limit of the running host, and returns the old one.
fn set(host: &Host, resource: Resource, limit: Rlimit) -> Rlimit {
    prlimit(Some(host.pid()), resource, limit).expect("a child's limit")
}

/// Lets the host have this much.
fn limit(host: &Host, resource: Resource, current: u64) -> Rlimit {
    let maximum = getrlimit(resource).maximum;
    set(host, resource, Rlimit { current: Some(current), maximum })
}

/// Leaves the host this many descriptors beside those that it has open.
fn leave_descriptors(host: &Host, free: usize) -> Rlimit {
    let used = host.descriptors();
    // The limit is on the numbers of descriptors, and some below the highest one in use are free.
    let mut unused = (0..).filter(|number| !used.contains(number));
    let enough = unused.nth(free).expect("there is no end of numbers");
    limit(host, Resource::Nofile, enough)
}

fn wait_for_the_warning(host: &Host) {
    host.wait_log_with(&["no handler can be loaded now", "open files (ulimit -n)"]);
}

#[test]
fn a_handler_that_there_are_no_descriptors_for_is_waited_for() {
    for free in [0, 2, 5, 7] {
        let (host, mut connection, cold) = half_loaded("60s");
        let before = leave_descriptors(&host, free);
        connection.send(message("GET", &cold, &[], b""));
        wait_for_the_warning(&host);
        connection.assert_silent();
        set(&host, Resource::Nofile, before);
        let answer = read(&mut connection);
        assert_eq!((answer.status, answer.text()), (200, text_of(&cold)), "{free}");
        let status = host.at_rest();
        assert_eq!((status.failed, status.rejects.len()), (0, 0), "{status:?}");
    }
}

fn text_of(path: &str) -> String {
    let number = path.rsplit('-').next().and_then(|number| number.parse().ok());
    text(number.expect("a number"))
}

#[test]
fn a_wait_for_descriptors_ends_with_the_deadline() {
    let (host, mut connection, cold) = half_loaded("3s");
    let before = leave_descriptors(&host, 0);
    connection.send(message("GET", &cold, &[], b""));
    let answer = read(&mut connection);
    answer.assert_problem(503);
    assert_eq!(answer.header("retry-after"), Some("1"), "{answer:?}");
    set(&host, Resource::Nofile, before);
    assert_says(&host, &cold, &text_of(&cold));
    let status = host.at_rest();
    assert_eq!((status.failed, status.rejects("loading")), (0, 1), "{status:?}");
}

/// The kernel refuses: there is no address space for the code of one more handler.
#[test]
fn a_handler_that_the_kernel_has_no_memory_for_is_waited_for_and_not_blamed() {
    let (host, mut connection, cold) = half_loaded("60s");
    let statm = format!("/proc/{}/statm", host.pid().as_raw_nonzero());
    let statm = std::fs::read_to_string(statm).expect("the host runs");
    let pages: u64 = statm.split(' ').next().and_then(|pages| pages.parse().ok()).expect("pages");
    let before = limit(&host, Resource::As, pages * rustix::param::page_size() as u64);
    connection.send(message("GET", &cold, &[], b""));
    let file = format!("{}.wat", &cold[1..]);
    host.wait_log_with(&[&file, "Cannot allocate memory", "its requests wait"]);
    connection.assert_silent();
    assert_eq!(host.status().failed, 0);
    set(&host, Resource::As, before);
    let answer = read(&mut connection);
    assert_eq!((answer.status, answer.text()), (200, text_of(&cold)), "{answer:?}");
    let status = host.at_rest();
    assert_eq!((status.failed, status.rejects.len()), (0, 0), "{status:?}");
}

/// A module with this many globals, which are more than an instance has room for.
fn globals(count: usize) -> String {
    with(HELLO, &"(global (mut i64) (i64.const 0))\n".repeat(count))
}

/// No machine has room for it, so the host does not try again.
#[test]
fn a_module_that_no_instance_has_room_for_is_a_verdict() {
    let host = Host::with("good.wat", HELLO).file("globals.wat", globals(100_000)).start();
    let status = host.settled();
    assert_eq!((status.ready, status.failed), (1, 1), "{status:?}");
    let line = host.wait_log_with(&["globals.wat", "use fewer", "its route answers 503"]);
    assert!(!line.has(&["tried again"]), "{}", line.text);
    host.get("/globals").assert_problem(503);
    host.assert_serves("/good");
    let file = host.handlers().join("globals.wat");
    let check = command().arg("check").arg(file).output().expect("the program runs");
    assert!(!check.status.success());
    let said = String::from_utf8_lossy(&check.stdout).into_owned();
    assert!(said.contains("use fewer"), "{said}");
}

/// Waits for the request's body. Its memory image is mapped.
fn large_waiter() -> String {
    let bytes = "x".repeat(80 * 1024);
    let data = format!(r#"(data (i32.const 8192) "{bytes}")"#);
    wat::guest(
        &data,
        "(loop $read
          (br_if $read (i64.eqz (i64.shr_u
            (call $read_body (i32.const 0) (i32.const 4096) (i32.const 1024))
            (i64.const 32)))))",
    )
}

/// With few mappings there are few slots for large instances, and requests wait for one.
#[test]
fn requests_beyond_the_places_for_large_instances_wait() {
    const EACH: usize = 10;
    let host = Host::with("a.wat", large_waiter())
        .file("b.wat", large_waiter())
        .file("good.wat", HELLO)
        .args(["--mappings-max", "4000", "--workers", "1", "--queue-timeout", "60s"])
        .args(PATIENTLY)
        .start();
    host.settled();
    let head = |path: &str| {
        format!("POST {path} HTTP/1.1\r\nhost: guest.test\r\ncontent-length: 4\r\n\r\n")
    };
    let mut asked: Vec<Connection> = Vec::new();
    for path in ["/a", "/b"].repeat(EACH) {
        let mut connection = host.connect();
        connection.send(head(path));
        asked.push(connection);
    }
    let all = (2 * EACH) as u64;
    host.status_when("full", patience(), |status| status.in_flight == all);
    host.assert_serves("/good");
    for connection in &mut asked {
        connection.send("body");
    }
    for connection in &mut asked {
        let answer = connection.read_to("POST");
        assert_eq!(answer.status, 200, "{answer:?}");
    }
    let status = host.at_rest();
    assert!(status.rejects.is_empty(), "{status:?}");
}

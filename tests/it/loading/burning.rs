//! Guests that are too much for the compiler: they fail with a sentence that says what to do, and
//! hold up nobody else.

use std::fs;
use std::time::{Duration, Instant};

use rustix::process::Signal;

use super::{
    PATIENTLY, assert_ended, assert_no_compilers, assert_says, burner, compiler, compilers,
    stopped_compiler, with,
};
use crate::abi::probe::Probe;
use crate::host::{HELLO, Host, until};
use crate::patience::patience;
use crate::wat;

/// The least CPU time that can be set: a second to compile, and a second for start-up code.
const BRIEFLY: [&str; 6] = ["--compile-max", "1s", "--cpu-max", "1s", "--deadline", "60s"];

/// The least memory that can be set.
const NARROWLY: [&str; 2] = ["--compile-memory-max", "256MiB"];

/// Writes a file into the folder of a running host, and waits until it has a route.
#[track_caller]
fn drop_in(host: &Host, name: &str, text: &str) {
    let routes = host.status().handlers;
    fs::write(host.handlers().join(name).with_extension("wat"), text).expect("a file");
    host.status_when("a new route", patience(), |status| status.handlers > routes);
}

/// Each block is a target of one jump after which many locals are still live, so the compiler's
/// memory grows with the product of blocks and locals.
fn hoarder(blocks: usize, locals: usize) -> String {
    let block = |at: usize| {
        let (one, other) = (at * 13 % locals + 1, (at * 7 + 1) % locals + 1);
        format!(
            ") (local.set {one} (i64.add (local.get {one}) (local.get {other})))
             (local.set 0 (i32.add (local.get 0) (i32.const 1)))
             (br_if {} (local.get 0))\n",
            blocks - 1 - at
        )
    };
    let targets: Vec<String> = (0..blocks).map(|target| target.to_string()).collect();
    let (begin, targets, types) =
        ("(block ".repeat(blocks), targets.join(" "), "i64 ".repeat(locals));
    let body: String = (0..blocks).map(block).collect();
    let jump = format!("(br_table {targets} (local.get 0))");
    with(HELLO, &format!("(func (param i32) (local {types}) (loop {begin} {jump} {body}))"))
}

#[test]
fn a_guest_that_makes_the_compiler_burn_fails_and_holds_up_nobody() {
    let host = Host::with("burner.wat", burner("?")).file("good.wat", HELLO).args(BRIEFLY).start();
    let mut waiting = host.connect();
    waiting.send("GET /burner HTTP/1.1\r\nhost: guest.test\r\n\r\n");
    assert_says(&host, "/good", "Hello, World!");
    for text in ["one", "two"] {
        drop_in(&host, text, &wat::says(text));
        assert_says(&host, &format!("/{text}"), text);
    }
    // All of that happened while the guest was compiled.
    let status = host.status();
    assert_eq!((status.loading, status.ready, status.failed), (1, 3, 0), "{status:?}");
    super::read(&mut waiting).assert_problem(503);
    host.status_when("given up", patience(), |status| status.failed == 1);
    let line = host.wait_log_with(&["burner.wat", "--compile-max", "s of CPU time"]);
    assert_eq!(line.level(), "ERROR", "{}", line.text);
    assert_no_compilers(&host);
    host.get("/burner").assert_problem(503);
    host.assert_serves("/good");
    let status = host.at_rest();
    assert_eq!((status.loading, status.ready, status.failed), (0, 3, 1), "{status:?}");
}

/// A guest can log anything at start-up, but the host says why it failed.
#[test]
fn what_a_guest_logs_is_not_taken_for_the_reason_of_its_failure() {
    let lie = "memory allocation of 8 bytes failed";
    let start = format!("(call $log #0 '{lie}') (loop $on (br $on))");
    let host = Host::with("liar.wat", Probe::new("").start(&start).wat()).start();
    let compiler = compiler(&host);
    // Its output is in a file until the compiler has ended.
    let words = format!("/proc/{}/fd/2", compiler.pid.as_raw_nonzero());
    until("lie", patience(), || fs::read_to_string(&words).ok()?.contains(lie).then_some(()));
    compiler.signal(Signal::KILL);
    let line = host.wait_log(|line| line.level() == "ERROR" && line.has(&["liar.wat"]));
    assert!(line.has(&["its compiler was killed"]), "{}", line.text);
    host.wait_log_with(&[lie]);
    host.get("/liar").assert_problem(503);
    host.at_rest();
}

#[test]
fn a_guest_that_needs_much_memory_to_compile_fails() {
    let host = Host::with("hoarder.wat", hoarder(1000, 300))
        .file("good.wat", HELLO)
        .args(NARROWLY)
        .args(PATIENTLY)
        .start();
    assert_says(&host, "/good", "Hello, World!");
    host.status_when("given up", patience(), |status| status.failed == 1);
    let line = host.wait_log_with(&["hoarder.wat", "--compile-memory-max", "256 MiB"]);
    assert_eq!(line.level(), "ERROR", "{}", line.text);
    host.get("/hoarder").assert_problem(503);
    host.assert_serves("/good");
    assert_no_compilers(&host);
    host.at_rest();
}

/// Wherever the compiler runs out of memory, the log names memory as the cause.
#[test]
fn memory_that_runs_out_anywhere_is_named() {
    let sizes = [300, 400, 450, 500, 600, 700, 800, 1000];
    let file = |size: &usize| (format!("hoarder-{size}.wat"), hoarder(*size, 200));
    let files = sizes.iter().map(file);
    let setup = files.fold(Host::empty(), |setup, (name, text)| setup.file(&name, text));
    let host = setup.args(NARROWLY).args(PATIENTLY).start();
    let all = sizes.len() as u64;
    host.status_when("settled", patience(), |status| status.ready + status.failed == all);
    let status = host.status();
    assert!(status.ready > 0 && status.failed > 0, "not around the limit: {status:?}");
    let lines = host.lines().into_iter().filter(|line| line.level() == "ERROR");
    for line in lines {
        assert!(line.has(&["--compile-memory-max"]), "{}", line.text);
    }
    assert_no_compilers(&host);
    host.at_rest();
}

/// Trying a guest out takes the memory that the guest may have, in addition to that of the
/// compiler.
#[test]
fn a_guest_with_more_memory_than_its_compiler_is_served_or_told_why() {
    let large = HELLO.replace("\"memory\") 1)", "\"memory\") 8192)");
    let flags = ["--memory-max", "1GiB"].into_iter().chain(NARROWLY);
    let host = Host::with("large.wat", large).args(flags).args(PATIENTLY).start();
    let status =
        host.status_when("settled", patience(), |status| status.ready + status.failed == 1);
    if status.failed == 1 {
        let line = host.wait_log(|line| line.level() == "ERROR");
        assert!(line.has(&["--compile-memory-max"]), "{}", line.text);
    } else {
        host.assert_serves("/large");
    }
    host.at_rest();
}

/// A corrected file is compiled at once, and does not wait until the bad one has failed.
#[test]
fn a_burner_that_is_replaced_does_not_hold_up_its_better_version() {
    let host = Host::with("guest.wat", burner("bad")).args(PATIENTLY).start();
    let bad = stopped_compiler(&host);
    fs::write(host.handlers().join("guest.wat"), wat::says("good")).expect("a file");
    host.status_when("mended", patience(), |status| status.ready == 1);
    assert_says(&host, "/guest", "good");
    assert_ended(&[bad]);
    host.at_rest();
}

/// If no request can reach a guest any more, its compile is stopped.
#[test]
fn a_burner_that_is_removed_is_not_compiled_any_further() {
    let host = Host::with("guest.wat", burner("bad")).args(PATIENTLY).start();
    let bad = stopped_compiler(&host);
    fs::remove_file(host.handlers().join("guest.wat")).expect("a file");
    host.status_when("removed", patience(), |status| status.handlers == 0);
    assert_ended(&[bad]);
    assert_no_compilers(&host);
    host.at_rest();
}

/// More burners than there are places for slow loads. Each would keep its place for longer than
/// this test runs.
#[test]
fn ten_burners_at_once_do_not_keep_a_good_guest_from_being_served() {
    const WINDOW: Duration = Duration::from_secs(5);
    let burners = (0..10).fold(Host::empty(), |setup, at| {
        setup.file(&format!("burner-{at}.wat"), burner(&at.to_string()))
    });
    let host = burners.args(["--compile-max", "60s"]).args(PATIENTLY).start();
    until("burners", patience(), || (compilers(&host).len() > 1).then_some(()));
    let began = Instant::now();
    let mut good = 0;
    while began.elapsed() < WINDOW {
        let name = format!("good-{good}");
        drop_in(&host, &name, &wat::says(&name));
        assert_says(&host, &format!("/{name}"), &name);
        good += 1;
        let status = host.status();
        assert_eq!(status.ready, good, "a burner has ended before: {status:?}");
    }
    assert!(good > 1, "{good} in {WINDOW:?}");
    host.at_rest();
}

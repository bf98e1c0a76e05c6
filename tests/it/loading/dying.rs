//! Compilers and hosts that are killed in the middle of their work: no process and no damaged file
//! is left behind.

use std::fs;
use std::path::Path;

use rustix::process::{Signal, kill_process_group};
use tempfile::TempDir;

use super::{
    PATIENTLY, Process, WHILE, assert_ended, assert_no_compilers, assert_says, burner, compiler,
    compilers, slow_starter, stopped_compiler,
};
use crate::host::{HELLO, Host, Line, Setup, until};
use crate::patience::patience;
use crate::random::Xorshift;
use crate::wat;

#[test]
fn a_compiler_that_is_killed_is_tried_again() {
    let host = Host::with("slow.wat", slow_starter("slow", WHILE)).args(PATIENTLY).start();
    let mut waiting = host.connect();
    waiting.send("GET /slow HTTP/1.1\r\nhost: guest.test\r\n\r\n");
    compiler(&host).signal(Signal::KILL);
    super::read(&mut waiting).assert_problem(503);
    let line = host.wait_log_with(&["slow.wat", "its compiler was killed"]);
    assert_eq!(line.level(), "ERROR", "{}", line.text);
    // The host tries again by itself, whether or not there are requests.
    host.status_when("tried again", patience(), |status| status.ready == 1);
    assert_says(&host, "/slow", "slow");
    assert_no_compilers(&host);
    host.at_rest();
}

/// The same for a guest that was added while the host ran. Its first failure counts as uncertain.
#[test]
fn the_compiler_of_a_newcomer_that_is_killed_is_tried_again() {
    let host = Host::with("good.wat", HELLO).args(PATIENTLY).start();
    host.settled();
    let file = host.handlers().join("slow.wat");
    fs::write(file, slow_starter("slow", WHILE)).expect("a file");
    compiler(&host).signal(Signal::KILL);
    host.status_when("tried again", patience(), |status| status.ready == 2);
    assert_says(&host, "/slow", "slow");
    assert_no_compilers(&host);
    host.at_rest();
}

/// A host with guests that are being compiled, and with good ones.
fn busy(cache: &Path) -> Setup {
    let burners = Host::with("burner-1.wat", burner("1")).file("burner-2.wat", burner("2"));
    burners.file("good.wat", HELLO).arg("--cache-dir").arg(cache)
}

/// Waits until both burners are being compiled.
#[track_caller]
fn burning(host: &Host) -> Vec<Process> {
    host.status_when("a good guest loaded", patience(), |status| status.ready == 1);
    assert_says(host, "/good", "Hello, World!");
    until("two burners", patience(), || {
        let compilers = compilers(host);
        (compilers.len() == 2).then_some(compilers)
    })
}

#[test]
fn a_host_that_is_killed_leaves_no_compiler_behind() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let cache = folder.path().join("cache");
    let host = busy(&cache).start();
    let left = burning(&host);
    // A stopped compiler cannot react.
    left[0].signal(Signal::STOP);
    // This kills the host.
    drop(host);
    assert_ended(&left);
    let host = busy(&cache).start();
    assert_says(&host, "/good", "Hello, World!");
    host.at_rest();
}

#[test]
fn a_host_that_stops_leaves_no_compiler_behind() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let host = busy(&folder.path().join("cache")).start();
    let left = burning(&host);
    host.signal(Signal::TERM);
    assert!(host.wait_exit().success());
    assert_ended(&left);
    assert_blames_nobody(&host);
}

/// Ctrl-C in a terminal signals every process that was started there.
#[test]
fn an_interrupt_from_the_terminal_is_not_a_compilers_fault() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    // Makes the host the leader of a process group of its own.
    let setup = busy(&folder.path().join("cache")).through(["setsid"]);
    let host = setup.args(["--deadline", "5s"]).start();
    let left = burning(&host);
    let mut waiting = host.connect();
    waiting.send("GET /burner-1 HTTP/1.1\r\nhost: guest.test\r\n\r\n");
    host.status_when("waiting", patience(), |status| status.in_flight == 1);
    kill_process_group(host.pid(), Signal::INT).expect("a process group");
    super::read(&mut waiting).assert_problem(503);
    assert!(host.wait_exit().success());
    assert_ended(&left);
    assert_blames_nobody(&host);
}

/// Asserts that the log has no failed guest.
#[track_caller]
fn assert_blames_nobody(host: &Host) {
    let is_wrong = |line: &Line| matches!(line.level(), "WARN" | "ERROR");
    let wrong: Vec<Line> = host.lines().into_iter().filter(is_wrong).collect();
    assert!(wrong.is_empty(), "{wrong:?}");
}

/// The setting of a test whose starts are cut off.
struct Cold {
    folder: TempDir,
}

impl Cold {
    const GUESTS: usize = 10;

    fn host(&self) -> Setup {
        let file = |setup: Setup, at: usize| {
            setup.file(&format!("guest-{at}.wat"), wat::says(&format!("I am {at}")))
        };
        let setup = (0..Cold::GUESTS).fold(Host::empty(), file);
        setup.args(PATIENTLY).arg("--cache-dir").arg(self.cache())
    }

    fn cache(&self) -> std::path::PathBuf {
        self.folder.path().join("cache")
    }

    /// The files in the cache, finished or not.
    fn names(&self) -> Vec<String> {
        let files = fs::read_dir(self.cache()).into_iter().flatten().flatten();
        files.map(|file| file.file_name().to_string_lossy().into_owned()).collect()
    }
}

/// Each start is cut off after it has written an entry, at a random moment. The next one goes on
/// from there.
#[test]
fn starts_that_are_cut_off_leave_no_damaged_entry() {
    let cold = Cold { folder: tempfile::tempdir().expect("a temporary folder") };
    let mut random = Xorshift(0x9e37_79b9);
    for step in 0..Cold::GUESTS {
        let host = cold.host().start();
        let before = cold.names().len();
        until("another entry", patience(), || {
            let has_more = cold.names().len() > before || before >= Cold::GUESTS;
            has_more.then_some(())
        });
        // Some milliseconds, in which anything may be half done.
        (0..random.below(1 << 22)).for_each(|at| {
            std::hint::black_box(at);
        });
        assert_not_damaged(&host);
        let left = compilers(&host);
        drop(host);
        assert_ended(&left);
        assert!(cold.names().len() > step.min(Cold::GUESTS - 1), "nothing was kept");
    }
    let host = cold.host().start();
    host.status_when("loaded", patience(), |status| status.ready == Cold::GUESTS as u64);
    for at in 0..Cold::GUESTS {
        assert_says(&host, &format!("/guest-{at}"), &format!("I am {at}"));
    }
    assert_not_damaged(&host);
    let unfinished: Vec<String> =
        cold.names().into_iter().filter(|name| name.starts_with('.')).collect();
    // Files that were being written when the host was killed: one for each loader at most.
    assert!(unfinished.len() <= 2 * Cold::GUESTS, "{unfinished:?}");
    host.at_rest();
}

#[track_caller]
fn assert_not_damaged(host: &Host) {
    let damaged = host.lines().into_iter().find(|line| line.has(&["damaged"]));
    assert!(damaged.is_none(), "{damaged:?}");
}

/// A compiler that hangs does not keep a host from stopping.
#[test]
fn a_compiler_that_hangs_does_not_hold_up_the_end() {
    let host = Host::with("burner.wat", burner("?")).start();
    let stopped = stopped_compiler(&host);
    host.signal(Signal::TERM);
    assert!(host.wait_exit().success());
    assert_ended(&[stopped]);
}

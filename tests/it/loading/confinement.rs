//! What a compiler process has: its job, its limits, and nothing else.

use std::collections::BTreeMap;
use std::fmt::Display;
use std::fs;
use std::time::{Duration, Instant};

use rustix::process::Signal;

use super::{PATIENTLY, WHILE, assert_says, burner, compiler};
use crate::abi::probe::Probe;
use crate::host::{HELLO, Host, until};
use crate::patience::patience;
use crate::wat;

/// Parses lines of `name: value`.
fn fields(text: &str) -> BTreeMap<String, String> {
    let fields = text.lines().filter_map(|line| line.split_once(':'));
    fields.map(|(name, value)| (name.to_owned(), value.trim().to_owned())).collect()
}

/// The open descriptors of a process, by number.
fn files(pid: impl Display) -> BTreeMap<u32, String> {
    let files = fs::read_dir(format!("/proc/{pid}/fd")).expect("its open files");
    let number = |file: &fs::DirEntry| file.file_name().to_str()?.parse().ok();
    let named = |file: fs::DirEntry| {
        let link = fs::read_link(file.path()).ok()?;
        Some((number(&file)?, link.to_string_lossy().into_owned()))
    };
    files.flatten().filter_map(named).collect()
}

/// The kernel's status of each thread of a process.
fn threads(pid: impl Display) -> Vec<BTreeMap<String, String>> {
    let threads = fs::read_dir(format!("/proc/{pid}/task")).expect("its threads").flatten();
    let status = |thread: fs::DirEntry| fs::read_to_string(thread.path().join("status")).ok();
    threads.filter_map(status).map(|text| fields(&text)).collect()
}

#[test]
fn a_limit_on_files_is_named_where_it_keeps_a_handler_from_its_compiler() {
    let limited = ["sh", "-c", "ulimit -f 0 && exec \"$@\"", "sh"];
    let host = Host::with("good.wat", HELLO).through(limited).start();
    host.wait_log_with(&["good.wat", "File too large", "see ulimit -f"]);
    host.assert_no_panic();
}

#[test]
fn a_compiler_has_nothing_but_its_job() {
    let host = Host::with("burner.wat", burner("?"))
        .args(["--compile-max", "7s", "--cpu-max", "3s", "--compile-memory-max", "1500MiB"])
        .env("A_SECRET", "of the host")
        .env("GUESTHOUSE_LOG", "info")
        .through(["sh", "-c", r#"exec 7</etc/passwd 8>/dev/null; exec "$0" "$@""#])
        .start();
    let pid = compiler(&host).pid.as_raw_nonzero();
    let read = |name: &str| fs::read_to_string(format!("/proc/{pid}/{name}")).expect(name);
    // The kernel does not show Landlock itself, only the last of these, which it requires.
    until("threads", patience(), || (threads(pid).len() > 1).then_some(()));
    let own = [(0, "/memfd:job"), (1, "pipe:"), (2, "/memfd:words")];
    // No socket, no folder, and none of the descriptors that the host was started with.
    let files = files(pid);
    assert!(files.keys().copied().eq(own.map(|(number, _)| number)), "{files:?}");
    let as_wanted = own.iter().all(|(number, wanted)| files[number].starts_with(wanted));
    assert!(as_wanted, "{files:?}");
    let none = "0000000000000000";
    for thread in threads(pid) {
        assert_eq!(thread["NoNewPrivs"], "1", "{thread:?}");
        for set in ["CapInh", "CapPrm", "CapEff", "CapAmb"] {
            assert_eq!(thread[set], none, "{thread:?}");
        }
        // The thread that writes a host's log would have been started before the limits were set.
        assert_ne!(thread["Name"], "log");
    }
    let environment = "GUESTHOUSE_LOG=info\0MIMALLOC_ARENA_RESERVE=32MiB";
    assert_eq!(read("environ").trim_end_matches('\0'), environment);
    let limits = || -> Vec<Vec<String>> {
        let limits = read("limits");
        let names = ["Max cpu time", "Max data size", "Max core file size"];
        let rests =
            names.iter().filter_map(|name| limits.lines().find_map(|line| line.strip_prefix(name)));
        let words = |rest: &str| rest.split_whitespace().take(2).map(str::to_owned).collect();
        rests.map(words).collect()
    };
    // Its own memory, and that of an instance of the guest.
    let memory = ((1500_u64 + 128) << 20).to_string();
    let wanted = [["10", "11"], [&memory, &memory], ["0", "0"]];
    until("limits as they should be", patience(), || (limits() == wanted).then_some(()));
    host.at_rest();
}

/// An update replaces the file of the running program. The old program goes on.
#[test]
fn a_program_that_was_replaced_still_compiles() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let copy = folder.path().join("guesthouse");
    let run = r#"cp "$1" "$0" && shift && exec "$0" "$@""#;
    let copied = copy.to_string_lossy();
    let host = Host::with("good.wat", HELLO).through(["sh", "-c", run, &copied]).start();
    host.settled();
    fs::remove_file(&copy).expect("the program");
    fs::write(&copy, "another version").expect("a file");
    fs::write(host.handlers().join("late.wat"), wat::says("late")).expect("a file");
    host.status_when("loaded", patience(), |status| status.ready == 2);
    assert_says(&host, "/late", "late");
    host.at_rest();
}

/// The limit on start-up code is its own CPU time, not the time in which other programs have the
/// core.
#[test]
fn a_start_up_that_cannot_run_has_not_used_its_time() {
    const PAUSE: Duration = Duration::from_millis(2500);
    let start = format!(
        "(local $left i32)
         (call $log #0 'begun')
         (local.set $left #{WHILE})
         (loop $on (br_if $on (local.tee $left (i32.sub (local.get $left) #1))))"
    );
    let guest = Probe::new("(call $say 'started')").start(&start);
    let host =
        Host::with("late.wat", guest.wat()).args(["--cpu-max", "2s", "--deadline", "60s"]).start();
    let compiler = compiler(&host);
    let words = format!("/proc/{}/fd/2", compiler.pid.as_raw_nonzero());
    until("start-up code", patience(), || {
        fs::read_to_string(&words).ok()?.contains("begun").then_some(())
    });
    compiler.signal(Signal::STOP);
    let stopped = Instant::now();
    until("end of the pause", patience(), || (stopped.elapsed() > PAUSE).then_some(()));
    compiler.signal(Signal::CONT);
    assert_says(&host, "/late", "started");
    host.at_rest();
}

/// The host may have been started with a limit on the size of files that a guest's file exceeds.
#[test]
fn a_limit_on_the_size_of_files_does_not_stop_the_host() {
    // The unit is 512 or 1024 bytes.
    let limited = ["sh", "-c", r#"ulimit -f 100 && exec "$0" "$@""#];
    let large = format!("{}{HELLO}", " ".repeat(300_000));
    let host = Host::with("good.wat", HELLO)
        .file("large.wat", large)
        .through(limited)
        .args(PATIENTLY)
        .start();
    let status =
        host.status_when("settled", patience(), |status| status.ready + status.failed == 2);
    assert_says(&host, "/good", "Hello, World!");
    if status.failed > 0 {
        super::get(&host, "/large").assert_problem(503);
    }
    host.at_rest();
}

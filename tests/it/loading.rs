//! How guests are loaded: compiled in processes of their own, in the background and under limits,
//! waited for by requests, cached on disk, unloaded and loaded again.
//!
//! These tests share guests that are hard to compile or slow to start, and a way to find the
//! processes that compile them. A test can stop a compiler with a signal, so that its guest is not
//! loaded for as long as the test likes.

use std::fs;
use std::io;
use std::time::Instant;

use rustix::process::{Pid, Signal, kill_process};

use crate::client::{Connection, Response, message};
use crate::host::{Host, until};
use crate::patience::patience;
use crate::wat;

mod burning;
mod confinement;
mod dying;
mod many;
mod shortage;
mod ten_thousand;
mod unloading;
mod waiting;
mod words;

/// For hosts that must not give up a guest or a request on a busy machine.
pub const PATIENTLY: [&str; 4] = ["--deadline", "1h", "--cpu-max", "1h"];

/// A process, as the kernel shows it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Process {
    pub pid: Pid,
    parent: i32,
    /// The start time in the kernel's ticks. The process id may be reused later.
    started: u64,
}

impl Process {
    /// A running process. `None` for one that has ended, even if nobody has waited for it.
    fn read(name: &str) -> Option<Process> {
        let pid = Pid::from_raw(name.parse().ok()?)?;
        let stat = fs::read_to_string(format!("/proc/{name}/stat")).ok()?;
        // The name comes before, in parentheses, and may have any character in it.
        let fields: Vec<&str> = stat.rsplit_once(')')?.1.split_whitespace().collect();
        let (state, parent, started) = (fields.first()?, fields.get(1)?, fields.get(19)?);
        let process = Process { pid, parent: parent.parse().ok()?, started: started.parse().ok()? };
        (!matches!(*state, "Z" | "X")).then_some(process)
    }

    pub fn signal(&self, signal: Signal) {
        kill_process(self.pid, signal).unwrap_or_else(|error| panic!("{self:?}: {error}"));
    }

    /// Whether it has set its limits, which it does before it reads a guest. From then on it ends
    /// with its host.
    fn is_confined(&self) -> bool {
        let limits = fs::read_to_string(format!("/proc/{}/limits", self.pid.as_raw_nonzero()));
        let is_limit =
            |line: &str| line.starts_with("Max file size") && !line.contains("unlimited");
        limits.is_ok_and(|limits| limits.lines().any(is_limit))
    }

    fn is_there(&self) -> bool {
        let now = Process::read(&self.pid.as_raw_nonzero().to_string());
        now.is_some_and(|now| now.started == self.started)
    }
}

/// The processes that compile a host's guests.
pub fn compilers(host: &Host) -> Vec<Process> {
    let parent = host.pid().as_raw_nonzero().get();
    let names = fs::read_dir("/proc").expect("the processes").flatten();
    let processes = names.filter_map(|entry| Process::read(entry.file_name().to_str()?));
    processes.filter(|process| process.parent == parent).collect()
}

/// Waits for one compiler.
#[track_caller]
pub fn compiler(host: &Host) -> Process {
    compiler_beside(host, &[])
}

#[track_caller]
fn compiler_beside(host: &Host, known: &[Process]) -> Process {
    let is_new = |process: &Process| process.is_confined() && !known.contains(process);
    until("process that compiles", patience(), || compilers(host).into_iter().find(is_new))
}

/// Waits for one compiler and stops it. The state of its guest does not change until it is
/// continued.
#[track_caller]
pub fn stopped_compiler(host: &Host) -> Process {
    stopped_compiler_beside(host, &[])
}

/// The same for one more compiler.
#[track_caller]
pub fn stopped_compiler_beside(host: &Host, stopped: &[Process]) -> Process {
    let compiler = compiler_beside(host, stopped);
    compiler.signal(Signal::STOP);
    compiler
}

/// Asserts that nothing compiles any more. Processes that are about to end are waited for.
#[track_caller]
pub fn assert_no_compilers(host: &Host) {
    until("end of the compilers", patience(), || compilers(host).is_empty().then_some(()));
}

/// The same for these processes, whose host may have ended.
#[track_caller]
pub fn assert_ended(compilers: &[Process]) {
    let is_over = || !compilers.iter().any(Process::is_there);
    until("end of the compilers", patience(), || is_over().then_some(()));
}

/// A guest that answers with its name, and takes many seconds to compile.
pub fn burner(name: &str) -> String {
    with(&wat::says(name), &hard_function())
}

/// A few kilobytes that take the compiler many seconds: each of the nested loops passes on every
/// local. (300 of both: 16 s on the machine where this was written.)
pub fn hard_function() -> String {
    const LOOPS: usize = 300;
    const LOCALS: usize = 300;
    let add = |local: usize| {
        let other = local * 7 % LOCALS + 1;
        format!("(local.set {local} (i64.add (local.get {local}) (local.get {other})))\n")
    };
    let adds: String = (1..=LOCALS).map(add).collect();
    let (begin, end) = ("(loop ".repeat(LOOPS), "(br_if 0 (local.get 0)))".repeat(LOOPS));
    let locals = "i64 ".repeat(LOCALS);
    format!("(func (param i32) (local {locals}) {begin} {adds} {end})")
}

/// Rounds of start-up code that take long enough for a test to find its compiler: half a second on
/// the machine where this was written.
pub const WHILE: u32 = 2_000_000_000;

/// A guest that answers with this text, and has start-up code of this many rounds.
pub fn slow_starter(text: &str, rounds: u32) -> String {
    slowly(&wat::says(text), rounds)
}

/// A module with start-up code that computes.
pub fn slowly(module: &str, rounds: u32) -> String {
    let start = format!(
        r#"(func (export "_start") (local $left i32)
             (local.set $left (i32.const {rounds}))
             (loop $again
               (br_if $again
                 (local.tee $left (i32.sub (local.get $left) (i32.const 1))))))"#
    );
    with(module, &start)
}

/// A module with one more field.
pub fn with(module: &str, field: &str) -> String {
    let fields = module.trim_end().strip_suffix(')').expect("a module");
    format!("{fields}\n{field})")
}

/// The next response, which may take long.
#[track_caller]
pub fn read(connection: &mut Connection) -> Response {
    let deadline = Instant::now() + patience();
    loop {
        let error = match connection.next("GET") {
            Ok(Some(response)) => return response,
            Ok(None) => panic!("the connection was closed instead of an answer"),
            Err(error) => error,
        };
        let is_early = matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut);
        assert!(is_early && Instant::now() < deadline, "no answer: {error}");
    }
}

/// Sends a GET on a connection of its own. The answer may take long.
#[track_caller]
pub fn get(host: &Host, path: &str) -> Response {
    let mut connection = host.connect();
    connection.send(message("GET", path, &[], b""));
    read(&mut connection)
}

/// Asserts that a GET is answered with this text, however long it takes.
#[track_caller]
pub fn assert_says(host: &Host, path: &str, text: &str) {
    let answer = get(host, path);
    assert_eq!((answer.status, answer.text().as_str()), (200, text), "{path}: {answer:?}");
}

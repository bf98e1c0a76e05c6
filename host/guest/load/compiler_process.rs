//! Compiling in a child process: what strangers' bytes do to the compiler stays there.
//!
//! Owns both ends: the host starts its own program as `guesthouse compile`, hands it one job, and
//! takes one verdict; the child puts itself under limits before it reads the guest. The job is in
//! an anonymous file and the verdict comes through a pipe, so that a child needs neither the cache
//! nor the handlers; Landlock keeps it from all files. With the verdict the work is done: how long
//! the kernel takes to clear away the process is nobody's wait.

use std::fs::File;
use std::io::{self, PipeReader, Read, Seek, Write};
use std::os::fd::AsFd;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::process::{Child, Command, ExitStatus};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Sender, channel};
use std::sync::{Arc, LazyLock};
use std::time::{Duration, Instant};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use rustix::fs::{MemfdFlags, memfd_create};
use rustix::process::{Pid, Signal, WaitId, WaitIdOptions, waitid};
use serde::{Deserialize, Serialize};

use super::cache::ArtifactMetadata;
use super::compiler::CompileJob;
use crate::config::LogFormat;
use crate::grants::{CompileLimits, Grants};
use crate::guest::engine::load_failure::{LoadFailure, Reason};
use crate::log::escape;

pub use super::compiler_process::child_side::{restrict_access, run};

mod child_side;

/// The verb that makes this program a compiler.
pub const VERB: &str = "compile";
/// The running program itself, even if its file has been replaced since.
const PROGRAM: &str = "/proc/self/exe";
/// Machine code that one guest may have.
const CODE_BYTES_MAX: u64 = 1 << 30;
/// What a verdict may be besides.
const HEAD_BYTES_MAX: u64 = 1 << 20;
/// What a child may say on stderr, all in all.
const STDERR_BYTES_MAX: u64 = 1 << 20;
/// A child that waits, and does not compute, is given up after its CPU time this many times over.
const WALL_TIME_FACTOR: u32 = 20;

/// Two lengths in front of each frame.
const LENGTHS_BYTES: u64 = 16;
/// What is taken from the pipe at once: as much as it holds.
const CHUNK_BYTES: usize = 64 << 10;

/// Between two looks whether a job is still wanted.
const CANCEL_POLL_INTERVAL: Duration = Duration::from_millis(50);
/// The first pause, which grows, between two looks how a child has ended that has closed its pipe.
const EXIT_POLL_MIN: Duration = Duration::from_micros(200);

/// Ends a job whose result nobody wants any more.
#[derive(Clone, Debug, Default)]
pub struct CancelToken(Arc<AtomicBool>);

impl CancelToken {
    pub fn cancel(&self) {
        self.0.store(true, Ordering::Relaxed);
    }

    pub fn is_cancelled(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }
}

/// What bounds a job.
pub struct Bounds<'a> {
    pub cancel: &'a CancelToken,
    /// Takes memory for so many bytes of code, before there are any.
    pub take: &'a mut dyn FnMut(u64) -> Result<(), LoadFailure>,
}

/// How children are started.
#[derive(Clone, Copy, Debug)]
pub struct CompilerProcess {
    pub log: LogFormat,
}

/// A job as the child reads it.
#[derive(Serialize, Deserialize)]
struct CompileRequest {
    job: CompileJob,
    /// The process that asked.
    parent: u32,
}

type CompileResponse = Result<ArtifactMetadata, CompileError>;

/// Why a child has not compiled its guest.
#[derive(Serialize, Deserialize)]
enum CompileError {
    /// It is the guest's fault.
    Guest(LoadFailure),
    /// It is not: the child cannot work here, or not now.
    Machine(Reason),
    /// The compiler has panicked.
    Panic,
}

/// Why there is no verdict that could be used.
enum AttemptError {
    Load(LoadFailure),
    /// The compiler has failed, in this way.
    Crash(String),
}

/// A guest that any compiler can compile.
const SMALLEST: &str = r#"(module (memory (export "memory") 1)
    (func (export "handle_request") (result i64) (i64.const 0)))"#;

/// How a child's work ended.
enum ChildOutcome {
    /// With what may be a verdict.
    Frame(Vec<u8>),
    /// Without one.
    Exit(ExitStatus),
    /// It has taken too long.
    TimedOut,
    /// There is no memory for its code.
    OutOfMemory(LoadFailure),
}

impl CompilerProcess {
    /// Compiles one guest in a process of its own. Blocks until there is a verdict or can be none.
    ///
    /// # Errors
    /// Why the guest cannot be compiled, or why no child could be had.
    pub fn compile(
        &self,
        job: CompileJob,
        bytes: &[u8],
        bounds: &mut Bounds<'_>,
    ) -> Result<(ArtifactMetadata, Vec<u8>), LoadFailure> {
        let grants = job.grants.clone();
        self.attempt(job, bytes, bounds).map_err(|lost| match lost {
            AttemptError::Load(failure) => failure,
            AttemptError::Crash(how) if self.can_compile(&grants) => LoadFailure::of_file(format!(
                "the compiler failed on it{how}; please report the file as a bug"
            )),
            AttemptError::Crash(how) => LoadFailure::of_unclear(format!(
                "the compiler fails on any file{how}: is a system call refused here that it \
                 needs, or memory short?"
            )),
        })
    }

    /// Whether it is a guest that makes a compiler crash, or whatever is the matter with this
    /// machine.
    fn can_compile(&self, grants: &Arc<Grants>) -> bool {
        static COMPILES: AtomicBool = AtomicBool::new(false);
        if !COMPILES.load(Ordering::Relaxed) {
            let name = "smallest".to_owned();
            let job = CompileJob { name, is_text: true, grants: grants.clone() };
            let mut bounds = Bounds { cancel: &CancelToken::default(), take: &mut |_| Ok(()) };
            let tried = self.attempt(job, SMALLEST.as_bytes(), &mut bounds);
            COMPILES.store(tried.is_ok(), Ordering::Relaxed);
        }
        COMPILES.load(Ordering::Relaxed)
    }

    fn attempt(
        &self,
        job: CompileJob,
        bytes: &[u8],
        bounds: &mut Bounds<'_>,
    ) -> Result<(ArtifactMetadata, Vec<u8>), AttemptError> {
        let grants = job.grants.clone();
        let order = CompileRequest { job, parent: std::process::id() };
        let no_child = |error: io::Error| {
            AttemptError::Load(LoadFailure::of_process(
                "could not start a process to compile it in",
                &error,
            ))
        };
        let mut stderr = memory_file("words").map_err(no_child)?;
        let start = || self.start(&order, bytes, stderr.try_clone()?);
        let (mut child, verdict) = start().map_err(no_child)?;
        // Its start-up code may use its own CPU time, and wait for its own deadline.
        let cpu = grants.compile.cpu_max + grants.limits.cpu_max;
        let patience = cpu * WALL_TIME_FACTOR + grants.limits.deadline;
        let end = wait(&mut child, verdict, patience, bounds);
        reap(child);
        let end = end.map_err(no_child)?;
        let said = relay_log(&mut stderr);
        if bounds.cancel.is_cancelled() {
            let reason = "its file has changed or gone meanwhile";
            return Err(AttemptError::Load(LoadFailure::of_unclear(reason.into())));
        }
        match end {
            ChildOutcome::Frame(frame) => read_response(frame),
            ChildOutcome::OutOfMemory(failure) => Err(AttemptError::Load(failure)),
            ChildOutcome::Exit(status) if status.success() => {
                Err(AttemptError::Load(no_response()))
            }
            ChildOutcome::Exit(status) => {
                Err(self.diagnose_exit(status, &grants.compile, cpu, &said))
            }
            ChildOutcome::TimedOut => {
                let reason = "compiling it did not come to an end: try again";
                Err(AttemptError::Load(LoadFailure::of_file(reason.into())))
            }
        }
    }

    /// Starts a child with its job. Its verdict comes through the pipe.
    fn start(
        &self,
        order: &CompileRequest,
        bytes: &[u8],
        stderr: File,
    ) -> io::Result<(Child, PipeReader)> {
        let mut stdin = memory_file("job")?;
        write_framed(&mut stdin, order, bytes)?;
        stdin.rewind()?;
        let (verdict, stdout) = io::pipe().map_err(|error| syscall_error("pipe2", error))?;
        let log = match self.log {
            LogFormat::Text => "text",
            LogFormat::Json => "json",
        };
        let mut command = Command::new(PROGRAM);
        command.args([VERB, "--log", log]).stdin(stdin).stdout(stdout).stderr(stderr);
        // Not in the host's group: a terminal's signals are for the host.
        command.env_clear().process_group(0);
        // By default the allocator takes 1 GiB at a time, and all of it counts.
        command.env("MIMALLOC_ARENA_RESERVE", "32MiB");
        if let Some(filter) = std::env::var_os(crate::log::FILTER) {
            command.env(crate::log::FILTER, filter);
        }
        Ok((command.spawn()?, verdict))
    }

    /// Why a child ended without a verdict, in words.
    fn diagnose_exit(
        &self,
        status: ExitStatus,
        compile: &CompileLimits,
        cpu: Duration,
        said: &str,
    ) -> AttemptError {
        if said.contains("memory allocation of") {
            return AttemptError::Load(LoadFailure::of_file(format!(
                "compiling it took more than {} MiB of memory: make it smaller, or raise \
                 --compile-memory-max",
                compile.memory_bytes_max >> 20
            )));
        }
        let failure = match status.signal().and_then(Signal::from_named_raw) {
            Some(Signal::XCPU) => LoadFailure::of_file(format!(
                "compiling it and its start-up took more than {} s of CPU time: make it smaller, \
                 or raise --compile-max",
                cpu.as_secs_f64()
            )),
            // Someone else's doing, or the kernel's that ran out of memory.
            Some(Signal::KILL) => LoadFailure::of_unclear("its compiler was killed".into()),
            // By a filter that somebody has set.
            Some(Signal::SYS) => LoadFailure::of_unclear(
                "its compiler was ended for a system call that is not allowed here (SIGSYS): have \
                 the filter answer what it refuses with an error"
                    .into(),
            ),
            // By itself, which it never does on account of a guest.
            None if status.code().is_some() => {
                let said = said.lines().next_back().unwrap_or_default();
                let said = escape(said.trim_start_matches("error: ").as_bytes(), 400);
                LoadFailure::of_unclear(format!("its compiler cannot work here ({status}): {said}"))
            }
            _ => return AttemptError::Crash(format!(" ({status})")),
        };
        AttemptError::Load(failure)
    }
}

/// An error with the system call that gave it, since what is refused here may be allowed there.
#[derive(Debug)]
struct SyscallError(&'static str, io::Error);

impl std::fmt::Display for SyscallError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}: {}", self.0, self.1)
    }
}

impl std::error::Error for SyscallError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        Some(&self.1)
    }
}

fn syscall_error(call: &'static str, error: io::Error) -> io::Error {
    io::Error::new(error.kind(), SyscallError(call, error))
}

/// An anonymous file in memory.
fn memory_file(name: &str) -> io::Result<File> {
    let made = memfd_create(name, MemfdFlags::CLOEXEC);
    made.map(File::from).map_err(|error| syscall_error("memfd_create", error.into()))
}

/// Waits for a child's verdict or its end, but not if it takes too long or is cancelled.
fn wait(
    child: &mut Child,
    mut verdict: PipeReader,
    patience: Duration,
    bounds: &mut Bounds<'_>,
) -> io::Result<ChildOutcome> {
    let cancel = bounds.cancel;
    let give_up = Instant::now() + patience;
    let left = || {
        let left = give_up.saturating_duration_since(Instant::now());
        (!left.is_zero() && !cancel.is_cancelled()).then_some(left.min(CANCEL_POLL_INTERVAL))
    };
    let (mut frame, mut chunk) = (Vec::new(), [0; CHUNK_BYTES]);
    let mut has_memory = false;
    loop {
        let Some(left) = left().filter(|_| !is_excessive(&frame)) else {
            return Ok(ChildOutcome::TimedOut);
        };
        let mut fds = [PollFd::new(verdict.as_fd(), PollFlags::POLLIN)];
        match poll(&mut fds, PollTimeout::try_from(left).unwrap_or(PollTimeout::ZERO)) {
            Err(nix::errno::Errno::EINTR) | Ok(0) => continue,
            Err(error) => return Err(syscall_error("poll", error.into())),
            Ok(_) => {}
        }
        let len = verdict.read(&mut chunk)?;
        if len == 0 {
            break;
        }
        frame.extend_from_slice(&chunk[..len]);
        if !has_memory && let (Some((_, code)), false) = (lengths(&frame), is_excessive(&frame)) {
            if let Err(failure) = (bounds.take)(code) {
                return Ok(ChildOutcome::OutOfMemory(failure));
            }
            has_memory = true;
        }
        if frame_len(&frame) == Some(frame.len() as u64) {
            return Ok(ChildOutcome::Frame(frame));
        }
    }
    // It has ended or is about to. One that has closed its pipe and goes on is not waited for.
    let mut pause = EXIT_POLL_MIN;
    loop {
        if let Some(status) = status(child)? {
            return Ok(ChildOutcome::Exit(status));
        }
        let Some(left) = left() else { return Ok(ChildOutcome::TimedOut) };
        std::thread::sleep(pause.min(left));
        pause *= 2;
    }
}

/// How a child has ended, if it has. As far as it is possible it is not cleared away yet.
fn status(child: &mut Child) -> io::Result<Option<ExitStatus>> {
    let wait_options = WaitIdOptions::EXITED | WaitIdOptions::NOWAIT | WaitIdOptions::NOHANG;
    let Ok(found) = waitid(WaitId::Pid(Pid::from_child(child)), wait_options) else {
        return child.try_wait();
    };
    // As `wait` has it: a code in the second byte, or a signal in the first.
    Ok(found.map(|found| {
        let code = found.exit_status().map(|code| code << 8);
        ExitStatus::from_raw(code.or(found.terminating_signal()).unwrap_or_default())
    }))
}

/// Ends a child of which nothing more is expected, and has it cleared away in the background. The
/// kernel may take long over that, and keeps whoever waits for it busy meanwhile (20 s and more in
/// `shrink_dcache_parent`, seen with Linux 6.18 on busy cores).
fn reap(mut child: Child) {
    // It has ended already where this fails.
    drop(child.kill());
    static REAPER: LazyLock<Sender<Child>> = LazyLock::new(|| {
        let (children, done) = channel::<Child>();
        let wait = move || done.into_iter().for_each(wait_for_exit);
        // Where there can be no thread, nobody takes the children.
        drop(std::thread::Builder::new().name("reaper".into()).spawn(wait));
        children
    });
    if let Err(refused) = REAPER.send(child) {
        wait_for_exit(refused.0);
    }
}

fn wait_for_exit(mut child: Child) {
    if child.wait().is_err() {
        // One of the two calls may be refused here.
        let _ = waitid(WaitId::Pid(Pid::from_child(&child)), WaitIdOptions::EXITED);
    }
}

/// Repeats a child's log lines in the host's log. Returns everything else that it said.
fn relay_log(stderr: &mut File) -> String {
    let mut said = Vec::new();
    // What cannot be read is lost, and the guest is none the worse for it.
    let read = stderr.rewind().and_then(|()| stderr.take(STDERR_BYTES_MAX).read_to_end(&mut said));
    if read.is_err() || said.is_empty() {
        return String::new();
    }
    let said = String::from_utf8_lossy(&said).into_owned();
    // Other lines are a panic's or an abort's, and end up in the reason.
    let is_log = |line: &str| line.starts_with(|c: char| c == '{' || c.is_ascii_digit());
    let (log, other): (Vec<&str>, Vec<&str>) = said.lines().partition(|line| is_log(line));
    let log: String = log.into_iter().map(|line| format!("{line}\n")).collect();
    drop(io::stderr().write_all(log.as_bytes()));
    other.join("\n")
}

/// Writes the lengths of a head and of what comes behind it, and both.
fn write_framed(to: &mut impl Write, head: &impl Serialize, rest: &[u8]) -> io::Result<()> {
    let head = serde_json::to_vec(head)?;
    to.write_all(&(head.len() as u64).to_le_bytes())?;
    to.write_all(&(rest.len() as u64).to_le_bytes())?;
    to.write_all(&head)?;
    to.write_all(rest)
}

/// The lengths with which a frame begins; none before they have come.
fn lengths(frame: &[u8]) -> Option<(u64, u64)> {
    let (head, frame) = frame.split_first_chunk()?;
    let (rest, _) = frame.split_first_chunk()?;
    Some((u64::from_le_bytes(*head), u64::from_le_bytes(*rest)))
}

/// How long a frame that begins like this is.
fn frame_len(frame: &[u8]) -> Option<u64> {
    let (head, rest) = lengths(frame)?;
    LENGTHS_BYTES.checked_add(head)?.checked_add(rest)
}

/// Whether a frame that begins like this is longer than any verdict, or than it says.
fn is_excessive(frame: &[u8]) -> bool {
    let Some((head, rest)) = lengths(frame) else { return false };
    let is_long = head > HEAD_BYTES_MAX || rest > CODE_BYTES_MAX;
    is_long || frame_len(frame).is_none_or(|len| frame.len() as u64 > len)
}

/// Splits what [`write_framed`] has written.
fn read_framed<T: for<'a> Deserialize<'a>>(mut frame: Vec<u8>) -> Option<(T, Vec<u8>)> {
    let (head, _) = lengths(&frame)?;
    let start = LENGTHS_BYTES as usize;
    let end = start.checked_add(head as usize)?;
    let head = serde_json::from_slice(frame.get(start..end)?).ok()?;
    frame.drain(..end);
    Some((head, frame))
}

fn no_response() -> LoadFailure {
    LoadFailure::of_unclear("its compiler ended without a verdict".into())
}

fn read_response(frame: Vec<u8>) -> Result<(ArtifactMetadata, Vec<u8>), AttemptError> {
    let (verdict, code) =
        read_framed::<CompileResponse>(frame).ok_or_else(|| AttemptError::Load(no_response()))?;
    let facts = verdict.map_err(|refusal| match refusal {
        CompileError::Guest(failure) => AttemptError::Load(failure),
        CompileError::Machine(reason) => AttemptError::Load(LoadFailure::of_unclear(format!(
            "its compiler cannot work here: {reason}"
        ))),
        CompileError::Panic => AttemptError::Crash(String::new()),
    })?;
    Ok((facts, code))
}

//! Compiles in a child process, so that untrusted bytes cannot harm the host through the compiler.
//!
//! Owns both sides. The host starts its own program as `guesthouse compile`, gives it one job, and
//! takes one response. The child puts itself under limits before it parses the file, and the host
//! reads no more code from it than a guest may have. The job is in an anonymous file and the
//! response comes through a pipe, so a child needs neither the cache nor the handlers, and Landlock
//! keeps it from all files. Nobody waits for the kernel to clear away a child that has responded.

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

/// The verb that runs this program as a compiler.
pub const VERB: &str = "compile";
/// The running program, even if its file has been replaced since.
const PROGRAM: &str = "/proc/self/exe";
/// Bytes of machine code that one guest may have.
const CODE_BYTES_MAX: u64 = 1 << 30;
/// Bytes that a response may have beside the code.
const HEAD_BYTES_MAX: u64 = 1 << 20;
/// Bytes that are read of a child's stderr.
const STDERR_BYTES_MAX: u64 = 1 << 20;
/// A child that waits instead of computing is given up after its CPU limit times this.
const WALL_TIME_FACTOR: u32 = 20;

/// Bytes of the two lengths in front of each frame.
const LENGTHS_BYTES: u64 = 16;
/// Bytes that are read from the pipe at once: as much as it holds.
const CHUNK_BYTES: usize = 64 << 10;

/// How often it is checked whether a job is still wanted.
const CANCEL_POLL_INTERVAL: Duration = Duration::from_millis(50);
/// How soon it is first checked whether a child has exited that has closed its pipe. The interval
/// doubles.
const EXIT_POLL_MIN: Duration = Duration::from_micros(200);

/// Cancels a job whose result nobody wants any more.
#[derive(Clone, Debug, Default)]
pub struct CancelToken(Arc<AtomicBool>);

impl CancelToken {
    /// Cancels the job. It ends within 50 ms.
    pub fn cancel(&self) {
        self.0.store(true, Ordering::Relaxed);
    }

    /// Whether the job was cancelled.
    pub fn is_cancelled(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }
}

/// What bounds a job on the host's side.
pub struct Bounds<'a> {
    /// Cancels it.
    pub cancel: &'a CancelToken,
    /// Charges memory for so many bytes of code before they are read.
    pub take: &'a mut dyn FnMut(u64) -> Result<(), LoadFailure>,
}

/// Starts compilers in child processes.
#[derive(Clone, Copy, Debug)]
pub struct CompilerProcess {
    /// How the children log.
    pub log: LogFormat,
}

/// The job as the child reads it.
#[derive(Serialize, Deserialize)]
struct CompileRequest {
    job: CompileJob,
    /// The process id of the host.
    parent: u32,
}

type CompileResponse = Result<ArtifactMetadata, CompileError>;

/// Why a child has not compiled its guest.
#[derive(Serialize, Deserialize)]
enum CompileError {
    /// The guest is at fault.
    Guest(LoadFailure),
    /// The child cannot work on this machine, or not now.
    Machine(Reason),
    /// The compiler has panicked.
    Panic,
}

/// Why an attempt gave no usable response.
enum AttemptError {
    Load(LoadFailure),
    /// The compiler has crashed; the text says how.
    Crash(String),
}

/// A guest that every working compiler can compile.
const SMALLEST: &str = r#"(module (memory (export "memory") 1)
    (func (export "handle_request") (result i64) (i64.const 0)))"#;

/// How waiting for a child has ended.
enum ChildOutcome {
    /// With a frame that may be a response.
    Frame(Vec<u8>),
    /// With the child's exit.
    Exit(ExitStatus),
    /// After too much time.
    TimedOut,
    /// For want of memory for the code.
    OutOfMemory(LoadFailure),
}

impl CompilerProcess {
    /// Compiles one guest in a process of its own. Blocks until there is a response, or can be
    /// none.
    ///
    /// # Errors
    /// Why the guest cannot be compiled, or why no child could be started.
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

    /// Whether compilers work here at all. If so, a crash is the guest's doing.
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
        let request = CompileRequest { job, parent: std::process::id() };
        let no_child = |error: io::Error| {
            AttemptError::Load(LoadFailure::of_process(
                "could not start a process to compile it in",
                &error,
            ))
        };
        let mut stderr = memory_file("words").map_err(no_child)?;
        let start = || self.start(&request, bytes, stderr.try_clone()?);
        let (mut child, response) = start().map_err(no_child)?;
        // Start-up code has its own CPU limit and its own deadline.
        let cpu = grants.compile.cpu_max + grants.limits.cpu_max;
        let patience = cpu * WALL_TIME_FACTOR + grants.limits.deadline;
        let end = wait(&mut child, response, patience, bounds);
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
                let reason = "its compiler did not end: write the file again for another try";
                Err(AttemptError::Load(LoadFailure::of_file(reason.into())))
            }
        }
    }

    /// Starts a child with its job. The response comes through the pipe.
    fn start(
        &self,
        request: &CompileRequest,
        bytes: &[u8],
        stderr: File,
    ) -> io::Result<(Child, PipeReader)> {
        let mut stdin = memory_file("job")?;
        write_framed(&mut stdin, request, bytes)?;
        stdin.rewind()?;
        let (response, stdout) = io::pipe().map_err(|error| syscall_error("pipe2", error))?;
        let log = match self.log {
            LogFormat::Text => "text",
            LogFormat::Json => "json",
        };
        let mut command = Command::new(PROGRAM);
        command.args([VERB, "--log", log]).stdin(stdin).stdout(stdout).stderr(stderr);
        // Not in the host's process group: signals of a terminal are for the host.
        command.env_clear().process_group(0);
        // By default the allocator reserves 1 GiB at a time, and all of it counts for the child's
        // limit.
        command.env("MIMALLOC_ARENA_RESERVE", "32MiB");
        if let Some(filter) = std::env::var_os(crate::log::FILTER) {
            command.env(crate::log::FILTER, filter);
        }
        Ok((command.spawn()?, response))
    }

    /// Why a child has exited without a response, in words.
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
            // By somebody else, or by the kernel for want of memory.
            Some(Signal::KILL) => LoadFailure::of_unclear("its compiler was killed".into()),
            // By a seccomp filter that somebody has set.
            Some(Signal::SYS) => LoadFailure::of_unclear(
                "its compiler was ended for a system call that is not allowed here (SIGSYS): have \
                 the filter answer what it refuses with an error"
                    .into(),
            ),
            // By its own decision, which it never takes because of a guest.
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

/// An error with the system call that failed: if this is refused here, it may be allowed elsewhere.
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

/// Makes an anonymous file in memory.
fn memory_file(name: &str) -> io::Result<File> {
    let made = memfd_create(name, MemfdFlags::CLOEXEC);
    made.map(File::from).map_err(|error| syscall_error("memfd_create", error.into()))
}

/// Waits for a child's response or exit, unless that takes too long or is cancelled.
fn wait(
    child: &mut Child,
    mut response: PipeReader,
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
        let mut fds = [PollFd::new(response.as_fd(), PollFlags::POLLIN)];
        match poll(&mut fds, PollTimeout::try_from(left).unwrap_or(PollTimeout::ZERO)) {
            Err(nix::errno::Errno::EINTR) | Ok(0) => continue,
            Err(error) => return Err(syscall_error("poll", error.into())),
            Ok(_) => {}
        }
        let len = response.read(&mut chunk)?;
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
    // It has exited or is about to. A child that has closed its pipe and goes on is not waited for.
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

/// How a child has exited, if it has. Leaves it to be reaped, if the kernel allows that.
fn status(child: &mut Child) -> io::Result<Option<ExitStatus>> {
    let wait_options = WaitIdOptions::EXITED | WaitIdOptions::NOWAIT | WaitIdOptions::NOHANG;
    let Ok(found) = waitid(WaitId::Pid(Pid::from_child(child)), wait_options) else {
        return child.try_wait();
    };
    // In the format of `wait`: a code in the second byte, or a signal in the first.
    Ok(found.map(|found| {
        let code = found.exit_status().map(|code| code << 8);
        ExitStatus::from_raw(code.or(found.terminating_signal()).unwrap_or_default())
    }))
}

/// Kills a child that has nothing more to say, and has it reaped in the background. The kernel may
/// take long for that, and blocks whoever waits (20 s and more in `shrink_dcache_parent`, seen with
/// Linux 6.18 on busy cores).
fn reap(mut child: Child) {
    // This fails if the child has exited already.
    drop(child.kill());
    static REAPER: LazyLock<Sender<Child>> = LazyLock::new(|| {
        let (children, done) = channel::<Child>();
        let wait = move || done.into_iter().for_each(wait_for_exit);
        // If there can be no thread, sending fails below.
        drop(std::thread::Builder::new().name("reaper".into()).spawn(wait));
        children
    });
    if let Err(refused) = REAPER.send(child) {
        wait_for_exit(refused.0);
    }
}

fn wait_for_exit(mut child: Child) {
    if child.wait().is_err() {
        // One of the two system calls may be refused here.
        let _ = waitid(WaitId::Pid(Pid::from_child(&child)), WaitIdOptions::EXITED);
    }
}

/// Copies a child's log lines to the host's log. Returns everything else that the child has
/// written.
fn relay_log(stderr: &mut File) -> String {
    let mut said = Vec::new();
    // What cannot be read is lost, which does no harm to the guest.
    let read = stderr.rewind().and_then(|()| stderr.take(STDERR_BYTES_MAX).read_to_end(&mut said));
    if read.is_err() || said.is_empty() {
        return String::new();
    }
    let said = String::from_utf8_lossy(&said).into_owned();
    // Other lines come from a panic or an abort, and become part of the reason.
    let is_log = |line: &str| line.starts_with(|c: char| c == '{' || c.is_ascii_digit());
    let (log, other): (Vec<&str>, Vec<&str>) = said.lines().partition(|line| is_log(line));
    let log: String = log.into_iter().map(|line| format!("{line}\n")).collect();
    drop(io::stderr().write_all(log.as_bytes()));
    other.join("\n")
}

/// Writes a frame: the lengths of a head and of the bytes after it, and both.
fn write_framed(to: &mut impl Write, head: &impl Serialize, rest: &[u8]) -> io::Result<()> {
    let head = serde_json::to_vec(head)?;
    to.write_all(&(head.len() as u64).to_le_bytes())?;
    to.write_all(&(rest.len() as u64).to_le_bytes())?;
    to.write_all(&head)?;
    to.write_all(rest)
}

/// The lengths at the start of a frame; `None` as long as they are incomplete.
fn lengths(frame: &[u8]) -> Option<(u64, u64)> {
    let (head, frame) = frame.split_first_chunk()?;
    let (rest, _) = frame.split_first_chunk()?;
    Some((u64::from_le_bytes(*head), u64::from_le_bytes(*rest)))
}

/// The length of a frame, by its start.
fn frame_len(frame: &[u8]) -> Option<u64> {
    let (head, rest) = lengths(frame)?;
    LENGTHS_BYTES.checked_add(head)?.checked_add(rest)
}

/// Whether a frame is longer than any response may be, or than it says.
fn is_excessive(frame: &[u8]) -> bool {
    let Some((head, rest)) = lengths(frame) else { return false };
    let is_long = head > HEAD_BYTES_MAX || rest > CODE_BYTES_MAX;
    is_long || frame_len(frame).is_none_or(|len| frame.len() as u64 > len)
}

/// Splits a frame that [`write_framed`] has written.
fn read_framed<T: for<'a> Deserialize<'a>>(mut frame: Vec<u8>) -> Option<(T, Vec<u8>)> {
    let (head, _) = lengths(&frame)?;
    let start = LENGTHS_BYTES as usize;
    let end = start.checked_add(head as usize)?;
    let head = serde_json::from_slice(frame.get(start..end)?).ok()?;
    frame.drain(..end);
    Some((head, frame))
}

fn no_response() -> LoadFailure {
    LoadFailure::of_unclear("its compiler ended without a result".into())
}

fn read_response(frame: Vec<u8>) -> Result<(ArtifactMetadata, Vec<u8>), AttemptError> {
    let (response, code) =
        read_framed::<CompileResponse>(frame).ok_or_else(|| AttemptError::Load(no_response()))?;
    let metadata = response.map_err(|refusal| match refusal {
        CompileError::Guest(failure) => AttemptError::Load(failure),
        CompileError::Machine(reason) => AttemptError::Load(LoadFailure::of_unclear(format!(
            "its compiler cannot work here: {reason}"
        ))),
        CompileError::Panic => AttemptError::Crash(String::new()),
    })?;
    Ok((metadata, code))
}

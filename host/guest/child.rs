//! Compiling in a child process: what strangers' bytes do to the compiler stays there.
//!
//! Owns both ends: the host starts its own program as `guesthouse compile`, hands it one job, and
//! takes one verdict; the child puts itself under limits before it reads the guest. The job is in
//! an anonymous file and the verdict comes through a pipe, so that a child needs neither the cache
//! nor the handlers; Landlock keeps it from all files. With the verdict the work is done: how long
//! the kernel takes to clear away the process is nobody's wait.

use std::fs::File;
use std::io::{PipeReader, Read, Seek, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::process::{Child, Command, ExitStatus};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Sender, channel};
use std::sync::{Arc, LazyLock};
use std::time::{Duration, Instant};

use landlock::{Access, AccessFs, AccessNet, Ruleset, RulesetAttr};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{MemfdFlags, memfd_create};
use rustix::process::{
    Pid, PidfdFlags, Resource, Rlimit, Signal, WaitId, WaitIdOptions, getppid, pidfd_open,
    set_parent_process_death_signal, setpriority_process, setrlimit, waitid,
};
use serde::{Deserialize, Serialize};

use super::cache::Facts;
use super::compile::{Compiler, Job};
use super::failure::Failure;
use crate::config::{CompileLimits, LogFormat};
use crate::log::escape;

/// The verb that makes this program a compiler.
pub const VERB: &str = "compile";
/// The running program itself, even if its file has been replaced since.
const PROGRAM: &str = "/proc/self/exe";
/// A compiler gives way to the workers: it has a tenth of their weight. With less, a new version
/// would wait for many seconds while all cores are busy.
const NICENESS: i32 = 10;
/// Where the kernel runs out of memory, it ends compilers before anything else.
const OOM_SCORE: &str = "1000";
/// Machine code that one guest may have.
const CODE_BYTES_MAX: u64 = 1 << 30;
/// What a verdict may be besides.
const HEAD_BYTES_MAX: u64 = 1 << 20;
/// What a child may say on stderr, all in all.
const WORDS_BYTES_MAX: u64 = 1 << 20;
/// A child that waits, and does not compute, is given up after its CPU time this many times over.
const PATIENCE: u32 = 20;

/// Two lengths in front of each frame.
const LENGTHS_BYTES: u64 = 16;
/// What is taken from the pipe at once: as much as it holds.
const CHUNK_BYTES: usize = 64 << 10;

/// Between two looks whether a job is still wanted.
const CANCEL_LOOK: Duration = Duration::from_millis(50);

/// Ends a job whose result nobody wants any more.
#[derive(Clone, Debug, Default)]
pub struct Cancel(Arc<AtomicBool>);

impl Cancel {
    pub fn cancel(&self) {
        self.0.store(true, Ordering::Relaxed);
    }

    fn is_cancelled(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }
}

/// How children are started.
#[derive(Clone, Copy, Debug)]
pub struct Children {
    pub limits: CompileLimits,
    pub log: LogFormat,
}

/// A job as the child reads it.
#[derive(Serialize, Deserialize)]
struct Order {
    job: Job,
    limits: CompileLimits,
    /// The process that asked.
    parent: u32,
}

type Verdict = Result<Facts, Failure>;

/// How a child's work ended.
enum End {
    /// With what may be a verdict.
    Frame(Vec<u8>),
    /// Without one.
    Exit(ExitStatus),
    /// It has taken too long.
    GivenUp,
}

impl Children {
    /// Compiles one guest in a process of its own. Blocks until there is a verdict or can be none.
    ///
    /// # Errors
    /// Why the guest cannot be compiled, or why no child could be had.
    pub fn compile(
        &self,
        job: Job,
        bytes: &[u8],
        cancel: &Cancel,
    ) -> Result<(Facts, Vec<u8>), Failure> {
        let job_limits = (job.limits.cpu_max, job.limits.deadline);
        let order = Order { job, limits: self.limits, parent: std::process::id() };
        let no_child = |error: std::io::Error| {
            Failure::of_process("could not start a process to compile it in", &error)
        };
        let mut stderr = memory_file("words").map_err(no_child)?;
        let start = || self.start(&order, bytes, stderr.try_clone()?);
        let (child, verdict) = start().map_err(no_child)?;
        // Its start-up code may use its own CPU time, and wait for its own deadline.
        let cpu = self.limits.cpu_max + job_limits.0;
        let patience = cpu * PATIENCE + job_limits.1;
        let end = wait(&child, verdict, patience, cancel);
        reap(child);
        let end = end.map_err(no_child)?;
        let said = repeat(&mut stderr);
        if cancel.is_cancelled() {
            return Err(Failure::of_unclear("its file has changed or gone meanwhile".into()));
        }
        match end {
            End::Frame(frame) => read_verdict(frame),
            End::Exit(status) if status.success() => Err(no_verdict()),
            End::Exit(status) => Err(self.obituary(Some(status), cpu, &said)),
            End::GivenUp => Err(self.obituary(None, cpu, &said)),
        }
    }

    /// Starts a child with its job. Its verdict comes through the pipe.
    fn start(
        &self,
        order: &Order,
        bytes: &[u8],
        stderr: File,
    ) -> std::io::Result<(Child, PipeReader)> {
        let mut stdin = memory_file("job")?;
        write_framed(&mut stdin, order, bytes)?;
        stdin.rewind()?;
        let (verdict, stdout) = std::io::pipe()?;
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
    fn obituary(&self, ended: Option<ExitStatus>, cpu: Duration, said: &str) -> Failure {
        let seconds = cpu.as_secs_f64();
        let too_long = format!(
            "compiling it and its start-up took more than {seconds} s of CPU time: make it \
             smaller, or raise --compile-max"
        );
        let Some(status) = ended else {
            return Failure::of_file("compiling it did not come to an end: try again".into());
        };
        if said.contains("memory allocation of") {
            return Failure::of_file(format!(
                "compiling it took more than {} MiB of memory: make it smaller, or raise \
                 --compile-memory-max",
                self.limits.memory_bytes_max >> 20
            ));
        }
        match status.signal().and_then(Signal::from_named_raw) {
            Some(Signal::XCPU) => Failure::of_file(too_long),
            // Someone else's doing, or the kernel's that ran out of memory.
            Some(Signal::KILL) => Failure::of_unclear("its compiler was killed".into()),
            Some(_) => Failure::of_file(format!(
                "the compiler failed on it ({status}); please report the file as a bug"
            )),
            // It did not even begin, or had no words for what it found.
            None => Failure::of_unclear(format!(
                "its compiler failed ({status}): {}",
                escape(said.trim().as_bytes(), 500)
            )),
        }
    }
}

/// An anonymous file in memory.
fn memory_file(name: &str) -> std::io::Result<File> {
    Ok(File::from(memfd_create(name, MemfdFlags::CLOEXEC)?))
}

/// Waits for a child's verdict or its end, but not if it takes too long or is cancelled.
fn wait(
    child: &Child,
    mut verdict: PipeReader,
    patience: Duration,
    cancel: &Cancel,
) -> std::io::Result<End> {
    let ended: OwnedFd = pidfd_open(Pid::from_child(child), PidfdFlags::empty())?;
    let give_up = Instant::now() + patience;
    let (mut frame, mut chunk) = (Vec::new(), [0; CHUNK_BYTES]);
    let mut is_open = true;
    loop {
        let left = give_up.saturating_duration_since(Instant::now());
        if left.is_zero() || cancel.is_cancelled() || is_excessive(&frame) {
            return Ok(End::GivenUp);
        }
        let mut fds = [PollFd::new(&ended, PollFlags::IN), PollFd::new(&verdict, PollFlags::IN)];
        let wanted = if is_open { &mut fds[..] } else { &mut fds[..1] };
        match poll(wanted, Some(&Timespec::try_from(left.min(CANCEL_LOOK)).unwrap_or_default())) {
            Err(rustix::io::Errno::INTR) => continue,
            Err(error) => return Err(error.into()),
            Ok(_) => {}
        }
        let [has_ended, has_more] = fds.map(|fd| !fd.revents().is_empty());
        // First, since it may have said all and ended.
        if is_open && has_more {
            let len = verdict.read(&mut chunk)?;
            frame.extend_from_slice(&chunk[..len]);
            is_open = len > 0;
            if frame_len(&frame) == Some(frame.len() as u64) {
                return Ok(End::Frame(frame));
            }
        } else if has_ended {
            return status(&ended).map(End::Exit);
        }
    }
}

/// How a child has ended that is not cleared away yet.
fn status(ended: &OwnedFd) -> std::io::Result<ExitStatus> {
    let kept = WaitIdOptions::EXITED | WaitIdOptions::NOWAIT;
    let found = waitid(WaitId::PidFd(ended.as_fd()), kept)?;
    let found = found.ok_or(std::io::ErrorKind::NotFound)?;
    // As `wait` has it: a code in the second byte, or a signal in the first.
    let code = found.exit_status().map(|code| code << 8);
    Ok(ExitStatus::from_raw(code.or(found.terminating_signal()).unwrap_or_default()))
}

/// Ends a child of which nothing more is expected, and has it cleared away in the background. The
/// kernel may take long over that, and keeps whoever waits for it busy meanwhile (20 s and more in
/// `shrink_dcache_parent`, seen with Linux 6.18 on busy cores).
fn reap(mut child: Child) {
    // It has ended already where this fails.
    drop(child.kill());
    static REAPER: LazyLock<Sender<Child>> = LazyLock::new(|| {
        let (children, done) = channel::<Child>();
        let wait = move || done.into_iter().for_each(|mut child| drop(child.wait()));
        // Where there can be no thread, nobody takes the children.
        drop(std::thread::Builder::new().name("reaper".into()).spawn(wait));
        children
    });
    if let Err(mut refused) = REAPER.send(child) {
        drop(refused.0.wait());
    }
}

/// Repeats a child's log lines in the host's log. Returns everything else that it said.
fn repeat(stderr: &mut File) -> String {
    let mut said = Vec::new();
    // What cannot be read is lost, and the guest is none the worse for it.
    let read = stderr.rewind().and_then(|()| stderr.take(WORDS_BYTES_MAX).read_to_end(&mut said));
    if read.is_err() || said.is_empty() {
        return String::new();
    }
    let said = String::from_utf8_lossy(&said).into_owned();
    // Other lines are a panic's or an abort's, and end up in the reason.
    let is_log = |line: &str| line.starts_with(|c: char| c == '{' || c.is_ascii_digit());
    let (log, other): (Vec<&str>, Vec<&str>) = said.lines().partition(|line| is_log(line));
    let log: String = log.into_iter().map(|line| format!("{line}\n")).collect();
    drop(std::io::stderr().write_all(log.as_bytes()));
    other.join("\n")
}

/// Writes the lengths of a head and of what comes behind it, and both.
fn write_framed(to: &mut impl Write, head: &impl Serialize, rest: &[u8]) -> std::io::Result<()> {
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

fn no_verdict() -> Failure {
    Failure::of_unclear("its compiler ended without a verdict".into())
}

fn read_verdict(frame: Vec<u8>) -> Result<(Facts, Vec<u8>), Failure> {
    let (verdict, code) = read_framed::<Verdict>(frame).ok_or_else(no_verdict)?;
    Ok((verdict?, code))
}

/// The child: takes the job from stdin and gives the verdict on stdout.
///
/// # Errors
/// Where it was not started by a host, or cannot be put under its limits.
pub fn run() -> anyhow::Result<()> {
    let mut bytes = Vec::new();
    std::io::stdin().lock().read_to_end(&mut bytes)?;
    let (order, wasm) = read_framed::<Order>(bytes)
        .ok_or_else(|| anyhow::anyhow!("`{VERB}` is for the host's own use: try `check FILE`"))?;
    confine(&order)?;
    let (facts, code) = match Compiler::new() {
        Err(error) => (Err(Failure::of_unclear(format!("{error:#}"))), Vec::new()),
        Ok(compiler) => match compiler.compile(&order.job, &wasm) {
            Ok((facts, code)) => (Ok(facts), code),
            Err(failure) => (Err(failure.in_child()), Vec::new()),
        },
    };
    let verdict: Verdict = facts;
    // Past the lines of the standard library's buffer.
    let mut stdout = File::from(std::io::stdout().as_fd().try_clone_to_owned()?);
    write_framed(&mut stdout, &verdict, &code)?;
    Ok(())
}

/// Puts this process under its limits, for good.
fn confine(order: &Order) -> anyhow::Result<()> {
    set_parent_process_death_signal(Some(Signal::KILL))?;
    let parent = getppid().map_or(0, |pid| pid.as_raw_nonzero().get() as u32);
    anyhow::ensure!(parent == order.parent, "the host has gone");
    rustix::thread::set_no_new_privs(true)?;
    setpriority_process(None, NICENESS)?;
    let cpu = order.limits.cpu_max + order.job.limits.cpu_max;
    let seconds = cpu.as_secs() + u64::from(cpu.subsec_nanos() > 0);
    // Past the soft limit comes SIGXCPU; the hard one is for a process that would not end by it.
    limit(Resource::Cpu, seconds, seconds + 1)?;
    // Writable private memory, whatever address space is reserved; the guest is tried out, too.
    let memory = (order.limits.memory_bytes_max + order.job.limits.memory_bytes_max) as u64;
    limit(Resource::Data, memory, memory)?;
    limit(Resource::Fsize, CODE_BYTES_MAX, CODE_BYTES_MAX)?;
    limit(Resource::Core, 0, 0)?;
    // Where that is not allowed, the kernel chooses by size, as it does for all.
    drop(std::fs::write("/proc/self/oom_score_adj", OOM_SCORE));
    shut_off()
}

/// Takes away all files and the network, as far as this kernel can. What is open stays so: the job,
/// the verdict, stderr.
fn shut_off() -> anyhow::Result<()> {
    let abi = landlock::ABI::V5;
    Ruleset::default()
        .handle_access(AccessFs::from_all(abi))?
        .handle_access(AccessNet::from_all(abi))?
        .create()?
        .restrict_self()?;
    Ok(())
}

fn limit(resource: Resource, soft: u64, hard: u64) -> anyhow::Result<()> {
    // A limit that is lower already stays.
    let now = rustix::process::getrlimit(resource);
    let lower = |wanted: u64, now: Option<u64>| Some(now.map_or(wanted, |now| now.min(wanted)));
    let new = Rlimit { current: lower(soft, now.current), maximum: lower(hard, now.maximum) };
    Ok(setrlimit(resource, new)?)
}

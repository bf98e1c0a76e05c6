//! Compiling in a child process: what strangers' bytes do to the compiler stays there.
//!
//! Owns both ends: the host starts its own program as `guesthouse compile`, hands it one job, and
//! takes one verdict; the child puts itself under limits before it reads the guest. Job and
//! verdict pass through anonymous files in memory, so that neither end waits for the other and a
//! child needs neither the cache nor the handlers; Landlock keeps it from all files.

use std::fs::File;
use std::io::{Read, Seek, Write};
use std::os::fd::OwnedFd;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::process::{Child, Command, ExitStatus};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use landlock::{Access, AccessFs, AccessNet, Ruleset, RulesetAttr};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{MemfdFlags, memfd_create};
use rustix::process::{
    Pid, PidfdFlags, Resource, Rlimit, Signal, getppid, pidfd_open,
    set_parent_process_death_signal, setpriority_process, setrlimit,
};
use serde::{Deserialize, Serialize};

use super::cache::Facts;
use super::compile::{Compiler, Job};
use super::load::{Failure, Reason};
use crate::config::{CompileLimits, LogFormat};

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
/// What a child may say on stderr, all in all.
const WORDS_BYTES_MAX: u64 = 1 << 20;
/// A child that waits, and does not compute, is given up after its CPU time this many times over.
const PATIENCE: u32 = 20;

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

type Verdict = Result<Facts, Reason>;

impl Children {
    /// Compiles one guest in a process of its own. Blocks until that has ended.
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
            Failure::passing(format!("could not start a process to compile it in: {error}"))
        };
        let files = || -> std::io::Result<_> {
            let mut stdin = memory_file("job")?;
            write_framed(&mut stdin, &order, bytes)?;
            stdin.rewind()?;
            Ok((stdin, memory_file("verdict")?, memory_file("words")?))
        };
        let (stdin, mut stdout, mut stderr) = files().map_err(no_child)?;
        let streams = || Ok((stdout.try_clone()?, stderr.try_clone()?));
        let (out, words) = streams().map_err(no_child)?;
        let log = match self.log {
            LogFormat::Text => "text",
            LogFormat::Json => "json",
        };
        let mut command = Command::new(PROGRAM);
        command.args([VERB, "--log", log]).stdin(stdin).stdout(out).stderr(words);
        // Not in the host's group: a terminal's signals are for the host.
        command.env_clear().process_group(0);
        // By default the allocator takes 1 GiB at a time, and all of it counts.
        command.env("MIMALLOC_ARENA_RESERVE", "32MiB");
        if let Some(filter) = std::env::var_os(crate::log::FILTER) {
            command.env(crate::log::FILTER, filter);
        }
        let mut child = command.spawn().map_err(no_child)?;
        // Its start-up code may use its own CPU time, and wait for its own deadline.
        let cpu = self.limits.cpu_max + job_limits.0;
        let patience = cpu * PATIENCE + job_limits.1;
        let status = wait(&mut child, patience, cancel).map_err(no_child)?;
        let said = repeat(&mut stderr);
        if cancel.is_cancelled() {
            return Err(Failure::passing("its file has changed or gone meanwhile".into()));
        }
        match status {
            Some(status) if status.success() => read_verdict(&mut stdout),
            ended => Err(self.obituary(ended, cpu, &said)),
        }
    }

    /// Why a child ended without a verdict, in words.
    fn obituary(&self, ended: Option<ExitStatus>, cpu: Duration, said: &str) -> Failure {
        let seconds = cpu.as_secs_f64();
        let too_long = format!(
            "compiling it and its start-up took more than {seconds} s of CPU time: make it \
             smaller, or raise --compile-max"
        );
        let Some(status) = ended else {
            return Failure::lasting("compiling it did not come to an end: try again".into());
        };
        if said.contains("memory allocation of") {
            return Failure::lasting(format!(
                "compiling it took more than {} MiB of memory: make it smaller, or raise \
                 --compile-memory-max",
                self.limits.memory_bytes_max >> 20
            ));
        }
        match status.signal().and_then(Signal::from_named_raw) {
            Some(Signal::XCPU) => Failure::lasting(too_long),
            // Someone else's doing, or the kernel's that ran out of memory.
            Some(Signal::KILL) => Failure::passing("its compiler was killed".into()),
            _ => Failure::lasting(format!(
                "the compiler failed on it ({status}); please report the file as a bug"
            )),
        }
    }
}

/// An anonymous file in memory.
fn memory_file(name: &str) -> std::io::Result<File> {
    Ok(File::from(memfd_create(name, MemfdFlags::CLOEXEC)?))
}

/// Waits for a child to end, and ends it when it takes too long or is cancelled: then there is no
/// status.
fn wait(
    child: &mut Child,
    patience: Duration,
    cancel: &Cancel,
) -> std::io::Result<Option<ExitStatus>> {
    let pid = Pid::from_child(child);
    let ended: OwnedFd = pidfd_open(pid, PidfdFlags::empty())?;
    let give_up = Instant::now() + patience;
    loop {
        let left = give_up.saturating_duration_since(Instant::now());
        let left = if cancel.is_cancelled() { Duration::ZERO } else { left };
        let timeout =
            Timespec::try_from(left.min(CANCEL_LOOK)).unwrap_or(Timespec { tv_sec: 1, tv_nsec: 0 });
        let mut fds = [PollFd::new(&ended, PollFlags::IN)];
        match poll(&mut fds, Some(&timeout)) {
            Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(error.into()),
            Ok(0) if left.is_zero() => {
                child.kill()?;
                child.wait()?;
                return Ok(None);
            }
            Ok(0) => {}
            Ok(_) => return child.wait().map(Some),
        }
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

/// Writes a head with its length in front, and bytes behind it.
fn write_framed(to: &mut impl Write, head: &impl Serialize, rest: &[u8]) -> std::io::Result<()> {
    let head = serde_json::to_vec(head)?;
    to.write_all(&(head.len() as u32).to_le_bytes())?;
    to.write_all(&head)?;
    to.write_all(rest)
}

/// Splits what [`write_framed`] has written.
fn read_framed<T: for<'a> Deserialize<'a>>(mut bytes: Vec<u8>) -> Option<(T, Vec<u8>)> {
    let (len, rest) = bytes.split_first_chunk()?;
    let len = u32::from_le_bytes(*len) as usize;
    let head = serde_json::from_slice(rest.get(..len)?).ok()?;
    bytes.drain(..size_of::<u32>() + len);
    Some((head, bytes))
}

fn read_verdict(stdout: &mut File) -> Result<(Facts, Vec<u8>), Failure> {
    let mut bytes = Vec::new();
    let read = stdout.rewind().and_then(|()| stdout.read_to_end(&mut bytes));
    let verdict = read.ok().and_then(|_| read_framed::<Verdict>(bytes));
    let broken = || Failure::passing("its compiler ended without a verdict".into());
    let (verdict, code) = verdict.ok_or_else(broken)?;
    Ok((verdict.map_err(Failure::lasting)?, code))
}

/// The child: takes the job from stdin and leaves the verdict on stdout.
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
        Err(error) => (Err(format!("{error:#}")), Vec::new()),
        Ok(compiler) => match compiler.compile(&order.job, &wasm) {
            Ok((facts, code)) => (Ok(facts), code),
            Err(reason) => (Err(reason), Vec::new()),
        },
    };
    let verdict: Verdict = facts;
    write_framed(&mut std::io::stdout().lock(), &verdict, &code)?;
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

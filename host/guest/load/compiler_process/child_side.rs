//! The side of the child: what it puts itself under, for good, before it reads the guest.
//!
//! Owns the order of these steps. All of it is done while the process has one thread, since a
//! thread that was there before would keep what the others give up. Where a limit that is promised
//! cannot be set, nothing is compiled; where the kernel has no more to give, that is done without.

use std::fs::{self, File};
use std::io::{self, Read};
use std::os::fd::{AsFd, RawFd};

use landlock::{Access, AccessFs, AccessNet, Ruleset, RulesetAttr, RulesetStatus, Scope};
use rustix::process::{
    Resource, Rlimit, Signal, getppid, set_parent_process_death_signal, setpriority_process,
    setrlimit,
};
use rustix::thread::{CapabilitySet, CapabilitySets, set_capabilities, set_no_new_privs};

use super::{
    CODE_BYTES_MAX, CompileError, CompileRequest, CompileResponse, VERB, read_framed, write_framed,
};
use crate::config::LogFormat;
use crate::guest::load::compiler::{CompileJob, Compiler};
use crate::log;

/// A compiler gives way to the workers: it has a tenth of their weight. With less, a new version
/// would wait for many seconds while all cores are busy.
const NICENESS: i32 = 10;
/// Where the kernel runs out of memory, it ends compilers before anything else.
const OOM_SCORE: &str = "1000";

/// Takes the job from stdin and gives the verdict on stdout.
///
/// # Errors
/// It was not started by a host, or the host has gone.
pub fn run(format: LogFormat) -> anyhow::Result<()> {
    close_inherited();
    let mut bytes = Vec::new();
    io::stdin().lock().read_to_end(&mut bytes)?;
    let (order, wasm) = read_framed::<CompileRequest>(bytes)
        .ok_or_else(|| anyhow::anyhow!("`{VERB}` is for the host's own use: try `check FILE`"))?;
    // The seed of this thread's maps, for which the file may be read that is shut off then.
    let _seed = std::hash::RandomState::new();
    let (verdict, code) = match confine(&order) {
        Ok(()) => {
            log::start_unthreaded(format, "info")?;
            compile(&order.job, &wasm)
        }
        Err(reason) => (Err(CompileError::Machine(reason)), Vec::new()),
    };
    // Past the lines of the standard library's buffer.
    let mut stdout = File::from(io::stdout().as_fd().try_clone_to_owned()?);
    write_framed(&mut stdout, &verdict, &code)?;
    Ok(())
}

fn compile(job: &CompileJob, wasm: &[u8]) -> (CompileResponse, Vec<u8>) {
    let compiler = match Compiler::new() {
        Ok(compiler) => compiler,
        Err(error) => return (Err(CompileError::Machine(format!("{error:#}"))), Vec::new()),
    };
    match compiler.compile(job, wasm) {
        Ok(Ok((facts, code))) => (Ok(facts), code),
        Ok(Err(failure)) => (Err(CompileError::Guest(failure.in_child())), Vec::new()),
        Err(_) => (Err(CompileError::Panic), Vec::new()),
    }
}

/// Closes all but the job, the verdict and stderr. Whoever started the host may have had more
/// open, which is inherited.
fn close_inherited() {
    let Ok(open) = fs::read_dir("/proc/self/fd") else { return };
    let number = |entry: fs::DirEntry| entry.file_name().to_str()?.parse::<RawFd>().ok();
    let open: Vec<RawFd> = open.flatten().filter_map(number).collect();
    for descriptor in open.into_iter().filter(|it| *it > 2) {
        // The one that listed them is closed already.
        let _ = nix::unistd::close(descriptor);
    }
}

/// Puts this process under its limits.
///
/// # Errors
/// The host has gone, or one of them is refused, in words.
fn confine(order: &CompileRequest) -> Result<(), String> {
    let refused = |call: &'static str| {
        move |error: rustix::io::Errno| {
            let error = io::Error::from(error);
            format!("the system call {call} is refused, without which it has no limits: {error}")
        }
    };
    set_parent_process_death_signal(Some(Signal::KILL)).map_err(refused("prctl"))?;
    let parent = getppid().map_or(0, |pid| pid.as_raw_nonzero().get() as u32);
    if parent != order.parent {
        return Err("the host has gone".into());
    }
    if fs::read_dir("/proc/self/task").is_ok_and(|threads| threads.count() > 1) {
        return Err("it has a thread that cannot be confined, which is a bug of the host".into());
    }
    set_no_new_privs(true).map_err(refused("prctl"))?;
    // The next two cannot be had everywhere, and are for the good of others.
    let _ = setpriority_process(None, NICENESS);
    drop(fs::write("/proc/self/oom_score_adj", OOM_SCORE));
    let cpu = order.job.grants.compile.cpu_max + order.job.grants.limits.cpu_max;
    let seconds = cpu.as_secs() + u64::from(cpu.subsec_nanos() > 0);
    // Writable private memory, whatever address space is reserved; the guest is tried out, too.
    let memory = (order.job.grants.compile.memory_bytes_max
        + order.job.grants.limits.memory_bytes_max) as u64;
    let limits = [
        // Past the soft limit comes SIGXCPU; the hard one is for whatever does not end by it.
        (Resource::Cpu, seconds, seconds + 1),
        (Resource::Data, memory, memory),
        (Resource::Fsize, CODE_BYTES_MAX, CODE_BYTES_MAX),
        (Resource::Core, 0, 0),
    ];
    for (resource, soft, hard) in limits {
        limit(resource, soft, hard).map_err(refused("prlimit64"))?;
    }
    // A host that is run by root may do without; there is nothing that a compiler needs.
    let none = CapabilitySet::empty();
    let sets = CapabilitySets { effective: none, permitted: none, inheritable: none };
    let _ = set_capabilities(None, sets);
    // Whether it has this, the host has said when it started.
    drop(restrict_access());
    Ok(())
}

/// Takes all files from the calling thread, TCP, and the processes outside to send signals to, as
/// far as this kernel can; also from all threads that it starts later. What is open stays so. Says
/// whether anything was taken away.
///
/// # Errors
/// It is refused.
pub fn restrict_access() -> anyhow::Result<bool> {
    let abi = landlock::ABI::V6;
    let status = Ruleset::default()
        .handle_access(AccessFs::from_all(abi))?
        .handle_access(AccessNet::from_all(abi))?
        .scope(Scope::from_all(abi))?
        .create()?
        .restrict_self()?;
    Ok(status.ruleset != RulesetStatus::NotEnforced)
}

fn limit(resource: Resource, soft: u64, hard: u64) -> rustix::io::Result<()> {
    // A limit that is lower already stays.
    let now = rustix::process::getrlimit(resource);
    let lower = |wanted: u64, now: Option<u64>| Some(now.map_or(wanted, |now| now.min(wanted)));
    let new = Rlimit { current: lower(soft, now.current), maximum: lower(hard, now.maximum) };
    setrlimit(resource, new)
}

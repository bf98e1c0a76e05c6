//! The child's side: the limits that it sets itself, for good, before it parses the file.
//!
//! Owns the order of these steps. All of them are taken while the process has one thread, since an
//! earlier thread would keep what the others give up. If a promised limit cannot be set, nothing is
//! compiled. Limits that some kernels lack are done without.

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

/// Compilers give way to workers: they have a tenth of the weight. With less, a new version would
/// wait for many seconds while all cores are busy.
const NICENESS: i32 = 10;
/// If memory runs out, the kernel kills compilers before anything else.
const OOM_SCORE: &str = "1000";

/// Reads the job from stdin and writes the response to stdout.
///
/// # Errors
/// The process was not started by a host, or the response cannot be written.
pub fn run(format: LogFormat) -> anyhow::Result<()> {
    close_inherited();
    let mut bytes = Vec::new();
    io::stdin().lock().read_to_end(&mut bytes)?;
    let (request, wasm) = read_framed::<CompileRequest>(bytes)
        .ok_or_else(|| anyhow::anyhow!("`{VERB}` is for the host's own use: try `check FILE`"))?;
    // Seeds the hash maps of this thread now: the source of randomness is out of reach later.
    let _seed = std::hash::RandomState::new();
    let (response, code) = match confine(&request) {
        Ok(()) => {
            log::start_unthreaded(format, "info")?;
            compile(&request.job, &wasm)
        }
        Err(reason) => (Err(CompileError::Machine(reason)), Vec::new()),
    };
    // Bypasses the line buffer of the standard library.
    let mut stdout = File::from(io::stdout().as_fd().try_clone_to_owned()?);
    write_framed(&mut stdout, &response, &code)?;
    Ok(())
}

fn compile(job: &CompileJob, wasm: &[u8]) -> (CompileResponse, Vec<u8>) {
    let compiler = match Compiler::new() {
        Ok(compiler) => compiler,
        Err(error) => return (Err(CompileError::Machine(format!("{error:#}"))), Vec::new()),
    };
    match compiler.compile(job, wasm) {
        Ok(Ok((metadata, code))) => (Ok(metadata), code),
        Ok(Err(failure)) => (Err(CompileError::Guest(failure.in_child())), Vec::new()),
        Err(_) => (Err(CompileError::Panic), Vec::new()),
    }
}

/// Closes all descriptors but the job, the response and stderr. The host may have inherited more.
fn close_inherited() {
    let Ok(open) = fs::read_dir("/proc/self/fd") else { return };
    let number = |entry: fs::DirEntry| entry.file_name().to_str()?.parse::<RawFd>().ok();
    let open: Vec<RawFd> = open.flatten().filter_map(number).collect();
    for descriptor in open.into_iter().filter(|it| *it > 2) {
        // One of them is the folder listing's own, which is closed already.
        let _ = nix::unistd::close(descriptor);
    }
}

/// Puts this process under its limits.
///
/// # Errors
/// The host is gone, or a limit is refused, in words.
fn confine(request: &CompileRequest) -> Result<(), String> {
    let refused = |call: &'static str| {
        move |error: rustix::io::Errno| {
            let error = io::Error::from(error);
            format!("the kernel refuses {call}, which the compiler needs to limit itself: {error}")
        }
    };
    set_parent_process_death_signal(Some(Signal::KILL)).map_err(refused("prctl"))?;
    let parent = getppid().map_or(0, |pid| pid.as_raw_nonzero().get() as u32);
    if parent != request.parent {
        return Err("the host has gone".into());
    }
    if fs::read_dir("/proc/self/task").is_ok_and(|threads| threads.count() > 1) {
        return Err("it has a thread that cannot be confined, which is a bug of the host".into());
    }
    set_no_new_privs(true).map_err(refused("prctl"))?;
    // These two are not available everywhere. They only protect others.
    let _ = setpriority_process(None, NICENESS);
    drop(fs::write("/proc/self/oom_score_adj", OOM_SCORE));
    let cpu = request.job.grants.compile.cpu_max + request.job.grants.limits.cpu_max;
    let seconds = cpu.as_secs() + u64::from(cpu.subsec_nanos() > 0);
    // Limits writable private memory, not address space. The guest is tried out here, too.
    let memory = (request.job.grants.compile.memory_bytes_max
        + request.job.grants.limits.memory_bytes_max) as u64;
    let limits = [
        // The soft limit sends SIGXCPU. The hard one kills what survives that.
        (Resource::Cpu, seconds, seconds + 1),
        (Resource::Data, memory, memory),
        (Resource::Fsize, CODE_BYTES_MAX, CODE_BYTES_MAX),
        (Resource::Core, 0, 0),
    ];
    for (resource, soft, hard) in limits {
        limit(resource, soft, hard).map_err(refused("prlimit64"))?;
    }
    // A host that runs as root may be refused this. The compiler needs no capability.
    let none = CapabilitySet::empty();
    let sets = CapabilitySets { effective: none, permitted: none, inheritable: none };
    let _ = set_capabilities(None, sets);
    // The host has logged at its start whether this kernel can do it.
    drop(restrict_access());
    Ok(())
}

/// Denies the calling thread all files, TCP, and signals to outside processes, as far as this
/// kernel can; also to threads that it starts later. Open descriptors stay usable. Returns whether
/// anything is denied.
///
/// # Errors
/// The kernel refuses.
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

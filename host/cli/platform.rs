//! Checks that the machine allows the system calls that the host cannot do without.
//!
//! Owns the list, each with its purpose. The calls are tried once, before anything else, because
//! many are made where a failure could not be explained: in the C library, the standard library or
//! the async runtime. Optional calls are tried where they are used.

use std::fs::{self, File};
use std::io::{self, Read, Seek, Write};
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;
use std::process::{Command, Stdio};
use std::sync::mpsc::channel;
use std::time::{Duration, Instant};

use anyhow::{Result, bail};
use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout};
use nix::sys::eventfd::{EfdFlags, EventFd};
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use nix::sys::time::{TimeSpec, TimeValLike};
use nix::time::{ClockId, ClockNanosleepFlags, clock_gettime, clock_nanosleep};
use rustix::fs::{MemfdFlags, memfd_create};
use rustix::thread::{gettid, set_no_new_privs};
use socket2::{Domain, Socket, Type};

use crate::guest::engine::engines;
use crate::guest::load::compiler_process;

/// How long an ended thread may take to disappear. Only an overloaded machine takes this long.
const END_PATIENCE: Duration = Duration::from_secs(10);
/// A system call that fails here, with its error.
struct RefusedCall {
    call: &'static str,
    error: io::Error,
}

type ProbeResult = Result<(), RefusedCall>;
/// What is impossible without the calls, and the function that tries them.
type Requirement = (&'static str, fn() -> ProbeResult);

const REQUIREMENTS: [Requirement; 7] = [
    ("no thread can work", threads),
    ("no time can be told", clocks),
    ("nothing can be waited for", events),
    ("no connection can be served", sockets),
    ("no file can be loaded", files),
    ("no file can be compiled within limits", limits),
    ("no file can be compiled", processes),
];

/// Tries all calls that a host needs.
///
/// # Errors
/// A call is refused. The text says which, what it is for, and what to do.
pub fn require() -> Result<()> {
    for (without, tried) in REQUIREMENTS {
        judge(without, tried())?;
    }
    Ok(())
}

/// Tries the calls for threads, which every verb with a log needs.
///
/// # Errors
/// Threads cannot be started.
pub fn require_threads() -> Result<()> {
    let (without, tried) = REQUIREMENTS[0];
    judge(without, tried())
}

/// Logs a warning about optional features that are missing.
pub fn warn_of_missing() {
    let tried = std::thread::spawn(compiler_process::restrict_access).join();
    if !matches!(tried, Ok(Ok(true))) {
        tracing::warn!(
            "Landlock is not available (Linux 5.13 has it, where it is on and a container allows \
             it): the processes that compile can open what this user can"
        );
    }
}

fn judge(without: &str, tried: ProbeResult) -> Result<()> {
    use rustix::io::Errno;
    let Err(RefusedCall { call, error }) = tried else { return Ok(()) };
    // Any other error is a shortage. The code that runs into it can explain it better.
    let errno = Errno::from_io_error(&error);
    if !matches!(errno, Some(Errno::PERM | Errno::NOSYS | Errno::ACCESS)) {
        return Ok(());
    }
    let workaround = match call {
        "clone3" => {
            "or have it fail with ENOSYS, so that the C library takes clone, as Docker does from \
             20.10.10 on"
        }
        _ => "or run on a newer kernel",
    };
    bail!(
        "{without}, because the system call {call} is refused here ({error}): allow it in the \
         seccomp profile (in a systemd unit: SystemCallFilter), {workaround}"
    )
}

fn probed<T, E: Into<io::Error>>(
    call: &'static str,
    result: Result<T, E>,
) -> Result<T, RefusedCall> {
    result.map_err(|error| RefusedCall { call, error: error.into() })
}

/// The result for a call whose error is not known.
fn refused(call: &'static str) -> ProbeResult {
    probed(call, Err(rustix::io::Errno::PERM))
}

fn threads() -> ProbeResult {
    let (sender, receiver) = channel();
    let work = move || {
        // Sending cannot fail, because the receiver waits for this.
        let _ = sender.send((gettid(), set_no_new_privs(true), engines::can_run_here()));
    };
    // Do not join the thread, because that may never return.
    drop(probed("clone3", std::thread::Builder::new().name("probe".into()).spawn(work))?);
    let Ok((id, privileges, can_run)) = receiver.recv() else { return refused("clone3") };
    probed("prctl", privileges)?;
    if !can_run {
        return refused("sigaltstack");
    }
    let path = format!("/proc/self/task/{}", id.as_raw_nonzero());
    let give_up = Instant::now() + END_PATIENCE;
    while fs::exists(&path).is_ok_and(|exists| exists) {
        if Instant::now() > give_up {
            return refused("exit");
        }
        std::thread::yield_now();
    }
    Ok(())
}

fn clocks() -> ProbeResult {
    probed("clock_gettime", clock_gettime(ClockId::CLOCK_THREAD_CPUTIME_ID))?;
    let none = TimeSpec::nanoseconds(0);
    let flags = ClockNanosleepFlags::empty();
    probed("clock_nanosleep", clock_nanosleep(ClockId::CLOCK_REALTIME, flags, &none))?;
    Ok(())
}

fn events() -> ProbeResult {
    let epoll = probed("epoll_create1", Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC))?;
    let flags = EfdFlags::EFD_CLOEXEC | EfdFlags::EFD_NONBLOCK;
    let event = probed("eventfd2", EventFd::from_flags(flags))?;
    probed("epoll_ctl", epoll.add(&event, EpollEvent::new(EpollFlags::EPOLLIN, 0)))?;
    probed("epoll_wait", epoll.wait(&mut [EpollEvent::empty()], EpollTimeout::ZERO))?;
    Ok(())
}

fn sockets() -> ProbeResult {
    let (mut one, mut other) = probed("socketpair", UnixStream::pair())?;
    probed("sendto", one.write(b"x"))?;
    probed("recvfrom", other.read(&mut [0]))?;
    let socket = probed("socket", Socket::new(Domain::IPV4, Type::STREAM, None))?;
    // The socket does not listen, so the call must fail, but not because it is refused.
    probed("accept4", socket.accept())?;
    Ok(())
}

fn files() -> ProbeResult {
    let listed = fs::read_dir("/proc/self/fd").and_then(|mut entries| entries.next().transpose());
    probed("getdents64", listed)?;
    let mut file = File::from(probed("memfd_create", memfd_create("probe", MemfdFlags::CLOEXEC))?);
    probed("lseek", file.rewind())?;
    Ok(())
}

fn limits() -> ProbeResult {
    let (soft, hard) = probed("prlimit64", getrlimit(Resource::RLIMIT_CORE))?;
    probed("prlimit64", setrlimit(Resource::RLIMIT_CORE, soft, hard))?;
    // A compiler process gets the id of the host, and ends with the host.
    if i32::try_from(std::process::id()).is_err() {
        return refused("getpid");
    }
    if nix::unistd::getppid().as_raw() < 0 {
        return refused("getppid");
    }
    Ok(())
}

fn processes() -> ProbeResult {
    probed("pipe2", io::pipe())?;
    // Start a program that does not exist: everything is done up to the last step.
    let mut command = Command::new("/proc/self/fd/guesthouse-probe");
    command.stdin(Stdio::null()).stdout(Stdio::null()).process_group(0);
    match command.spawn() {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        started => probed("clone, setpgid, dup2 or execve", started).map(drop),
    }
}

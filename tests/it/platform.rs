//! Kernels that refuse a system call. Each system call in the trace (`strace -f`) of a start, a
//! compile, a request and a drain is refused, first with EPERM and then with ENOSYS. The host
//! serves without it, or says in one line what it needs.
//!
//! The lists leave out the calls that the kernel and the C library need for any program:
//! arch_prctl, close, execve, exit_group, futex, geteuid, mmap, mprotect, munmap, newfstatat,
//! openat, poll, pread64, read, rt_sigaction, rt_sigreturn and write.

use std::os::unix::process::CommandExt as _;
use std::process::Command;
use std::sync::Mutex;

use rustix::process::Signal;
use seccompiler::{TargetArch, apply_filter, compile_from_json};

use crate::host::{HELLO, Host, Setup};

mod listening;
mod terminal;

/// Calls that the host can do without.
const SPARED: [&str; 43] = [
    "access",
    "brk",
    "capset",
    "clone",
    "fsync",
    "getcwd",
    "getpriority",
    "getrandom",
    "gettid",
    "inotify_add_watch",
    "inotify_init1",
    "inotify_rm_watch",
    "ioctl",
    "kill",
    "landlock_create_ruleset",
    "landlock_restrict_self",
    "madvise",
    "membarrier",
    "mkdir",
    "mlock",
    "mremap",
    "open",
    "pidfd_open",
    "ppoll",
    "readlink",
    "rename",
    "rseq",
    "rt_sigprocmask",
    "sched_getaffinity",
    "sched_setaffinity",
    "sched_yield",
    "set_robust_list",
    "set_tid_address",
    "setpriority",
    "shutdown",
    "statx",
    "sysinfo",
    "timerfd_create",
    "uname",
    "userfaultfd",
    "vfork",
    "wait4",
    "waitid",
];

/// Calls that the host needs, and its messages.
const NEEDED: [&str; 29] = [
    "exit",
    "accept4",
    "bind",
    "clock_gettime",
    "clock_nanosleep",
    "clone3",
    "dup2",
    "epoll_create1",
    "epoll_ctl",
    "epoll_wait",
    "eventfd2",
    "fcntl",
    "getdents64",
    "getpid",
    "getppid",
    "getsockname",
    "listen",
    "lseek",
    "memfd_create",
    "pipe2",
    "prctl",
    "prlimit64",
    "recvfrom",
    "sendto",
    "setpgid",
    "setsockopt",
    "sigaltstack",
    "socket",
    "socketpair",
];

/// The call to refuse, as `ERRNO NAME`, and then the command line of the program, one word a line.
const REFUSED: &str = "GUESTHOUSE_TEST_REFUSED";
const WORDS: &str = "GUESTHOUSE_TEST_WORDS";
/// The exit code if this machine does not have the call.
const UNKNOWN: i32 = 77;

const EPERM: i32 = 1;
const ENOSYS: i32 = 38;

/// This is not a test but a program: it makes the kernel refuse a call, and then becomes a host.
#[test]
fn launch() {
    let (Ok(refused), Ok(words)) = (std::env::var(REFUSED), std::env::var(WORDS)) else { return };
    let (errno, call) = refused.split_once(' ').expect("two words");
    let filter = format!(
        r#"{{"host": {{"mismatch_action": "allow", "match_action": {{"errno": {errno}}},
            "filter": [{{"syscall": "{call}"}}]}}}}"#
    );
    let arch = TargetArch::try_from(std::env::consts::ARCH).expect("an architecture");
    let Ok(filters) = compile_from_json(filter.as_bytes(), arch) else {
        std::process::exit(UNKNOWN)
    };
    let mut words = words.lines();
    let mut command = Command::new(words.next().expect("a program"));
    command.args(words).env_remove(REFUSED).env_remove(WORDS);
    apply_filter(&filters["host"]).expect("a filter");
    panic!("{}", command.exec());
}

/// A host that is refused a call.
fn refusing(call: &str, errno: i32) -> Setup {
    const BECOME: &str = "IFS='\n' && export GUESTHOUSE_TEST_WORDS=\"$*\" && \
         exec \"$0\" --exact platform::launch --nocapture --test-threads 1";
    let tests = std::env::current_exe().expect("this program");
    Host::with("good.wat", HELLO)
        .through(["sh".as_ref(), "-c".as_ref(), BECOME.as_ref(), tests.as_os_str()])
        .env(REFUSED, &format!("{errno} {call}"))
}

/// Runs a test for each call and error, two at a time.
fn for_each(calls: &[&'static str], check: impl Fn(&str, i32) + Sync) {
    let pairs = calls.iter().flat_map(|call| [(*call, EPERM), (*call, ENOSYS)]);
    let left = Mutex::new(pairs);
    let next = || left.lock().unwrap_or_else(std::sync::PoisonError::into_inner).next();
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                while let Some((call, errno)) = next() {
                    eprintln!("{call} {errno}");
                    check(call, errno);
                }
            });
        }
    });
}

#[test]
fn a_host_serves_without_what_it_can_spare() {
    for_each(&SPARED, serves_without);
}

#[track_caller]
fn serves_without(call: &str, errno: i32) {
    let host = match refusing(call, errno).try_start() {
        Ok(host) => host,
        Err((Some(UNKNOWN), _)) => return,
        Err((code, log)) => panic!("{call} {errno}: {code:?}\n{log}"),
    };
    let answer = crate::loading::get(&host, "/good");
    assert_eq!((answer.status, &*answer.text()), (200, "Hello, World!"), "{call} {errno}");
    host.signal(Signal::TERM);
    assert!(host.wait_exit().success(), "{call} {errno}");
    host.assert_no_panic();
    let blames = host.lines().into_iter().find(|line| line.has(&["bug"]));
    assert!(blames.is_none(), "{call} {errno}: {blames:?}");
}

#[test]
fn a_host_says_what_it_must_have() {
    for_each(&NEEDED, |call, errno| {
        // The C library then uses `clone`.
        if (call, errno) == ("clone3", ENOSYS) {
            return serves_without(call, errno);
        }
        let (code, said) = refusing(call, errno).fails();
        if code == Some(UNKNOWN) {
            return;
        }
        let is_one_line = said.trim_end().lines().count() == 1;
        let is_named = said.starts_with("error: ") && said.contains(call);
        assert!(code == Some(1) && is_one_line && is_named, "{call} {errno}: {code:?}\n{said}");
    });
}

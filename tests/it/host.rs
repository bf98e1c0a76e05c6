//! One host under test: the real program in a child process, with a handler folder of its own.
//!
//! Owns the child, its folders and its log. A test states the files in the folder and the flags,
//! and then speaks HTTP to [`Host::addr`]:
//!
//! ```ignore
//! let host = Host::with("hello.wat", HELLO).arg("--isolation").arg("reuse").start();
//! assert_eq!(host.get("/hello").status, 200);
//! host.at_rest();
//! ```

use std::collections::BTreeSet;
use std::ffi::{OsStr, OsString};
use std::fs::{self, File};
use std::net::SocketAddr;
use std::os::fd::AsRawFd as _;
use std::os::unix::fs::chown;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, geteuid, kill_process};
use tempfile::TempDir;

use crate::client::{Connection, Response};
use crate::patience::{patience, soon};

pub use log::Line;
pub use status::Status;

use log::Log;

mod log;
mod status;

/// A user and a group without any rights.
const NOBODY: u32 = 65_534;

/// The interval at which a state is polled.
const GLANCE: Duration = Duration::from_millis(5);

/// The smallest of all guests: it answers every request with `Hello, World!`.
pub const HELLO: &str = r#"
(module
  (import "http_handler" "write_body" (func $write_body (param i32 i32 i32)))
  (memory (export "memory") 1)
  (data (i32.const 0) "Hello, World!")
  (func (export "handle_request") (result i64)
    (call $write_body (i32.const 1) (i32.const 0) (i32.const 13))
    (i64.const 0)))"#;

/// The program under test.
pub fn program() -> PathBuf {
    let built = option_env!("CARGO_BIN_EXE_guesthouse").map(OsString::from);
    let path = built.or_else(|| std::env::var_os("GUESTHOUSE_BIN"));
    path.expect("cargo test sets the path; without it, GUESTHOUSE_BIN does").into()
}

/// The program, without environment variables of the caller that would change what it does.
pub fn command() -> Command {
    clean(Command::new(program()))
}

fn clean(mut command: Command) -> Command {
    for name in ["GUESTHOUSE_LOG", "GUESTHOUSE_CACHE_DIR", "RUST_BACKTRACE"] {
        command.env_remove(name);
    }
    command.env("NO_COLOR", "1").stdin(Stdio::null());
    command
}

/// How a host is to be started.
pub struct Setup {
    dir: TempDir,
    verb: &'static str,
    args: Vec<OsString>,
    env: Vec<(String, String)>,
    through: Vec<OsString>,
    /// The program, if it is to run as nobody.
    as_nobody: Option<File>,
}

/// A running host. Dropping it kills the child.
pub struct Host {
    addr: SocketAddr,
    child: Mutex<Child>,
    pid: Pid,
    log: Arc<Log>,
    asking: Mutex<()>,
    dir: TempDir,
}

impl Host {
    /// A host with one file in its folder.
    pub fn with(file: &str, contents: impl AsRef<[u8]>) -> Setup {
        Host::empty().file(file, contents)
    }

    /// A host with an empty folder.
    pub fn empty() -> Setup {
        Setup::new("serve")
    }

    /// A host with the demo guests and their native twins.
    pub fn demo() -> Setup {
        Setup::new("demo")
    }

    pub fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// The folder of compiled guests, unless the test chose another one.
    pub fn cache(&self) -> PathBuf {
        self.dir.path().join("cache")
    }

    #[track_caller]
    pub fn connect(&self) -> Connection {
        Connection::open(self.addr)
    }

    /// A GET on a connection of its own.
    #[track_caller]
    pub fn get(&self, path: &str) -> Response {
        self.connect().get(path)
    }

    /// A request on a connection of its own; `headers` as `name: value` lines.
    #[track_caller]
    pub fn request(&self, method: &str, path: &str, headers: &[&str], body: &[u8]) -> Response {
        self.connect().request(method, path, headers, body)
    }

    /// Asserts that the host serves: a `GET` of this path on a new connection is a 200.
    #[track_caller]
    pub fn assert_serves(&self, path: &str) {
        let answer = self.get(path);
        assert_eq!(answer.status, 200, "{path}: {answer:?}");
    }

    /// All lines of stderr so far.
    pub fn lines(&self) -> Vec<Line> {
        self.log.lines()
    }

    /// Waits for the first line that is as wanted, among those so far and those to come.
    #[track_caller]
    pub fn wait_log(&self, wanted: impl Fn(&Line) -> bool) -> Line {
        match self.log.wait(0, patience(), wanted) {
            Ok(line) => line,
            Err(why) => panic!("the log line that the test waits for did not come: {why}"),
        }
    }

    /// Waits for a line whose message or fields have all these words.
    #[track_caller]
    pub fn wait_log_with(&self, words: &[&str]) -> Line {
        match self.log.wait(0, patience(), |line| line.has(words)) {
            Ok(line) => line,
            Err(why) => panic!("no log line with {words:?}: {why}"),
        }
    }

    /// The host's counts at this moment.
    #[track_caller]
    pub fn status(&self) -> Status {
        let _one_at_a_time = self.asking.lock();
        let seen = self.log.count();
        self.signal(Signal::USR1);
        let is_status = |line: &Line| line.message().starts_with("status:");
        match self.log.wait(seen, patience(), is_status) {
            Ok(line) => Status::parse(line.message()),
            Err(why) => panic!("no status after SIGUSR1: {why}"),
        }
    }

    /// Asserts that no thread of the host has panicked so far.
    #[track_caller]
    pub fn assert_no_panic(&self) {
        assert!(!self.log.has_panic(), "the host has panicked");
    }

    /// Waits until no request is in flight and every instance is back. Returns the status then.
    #[track_caller]
    pub fn at_rest(&self) -> Status {
        let rests = |status: &Status| status.in_flight == 0 && status.instances_out == 0;
        self.status_when("at rest", soon(), rests)
    }

    /// Waits until every handler has been loaded or has failed. Returns the status then.
    #[track_caller]
    pub fn settled(&self) -> Status {
        let settled = |status: &Status| status.cold == 0 && status.loading == 0;
        self.status_when("settled", patience(), settled)
    }

    /// The handler folder.
    pub fn handlers(&self) -> PathBuf {
        self.dir.path().join("handlers")
    }

    /// The number of descriptors that the host has open.
    pub fn descriptors(&self) -> BTreeSet<u64> {
        let folder = format!("/proc/{}/fd", self.pid.as_raw_nonzero());
        let entries = fs::read_dir(folder).expect("the host runs").filter_map(Result::ok);
        let number = |entry: fs::DirEntry| entry.file_name().to_str()?.parse().ok();
        entries.filter_map(number).collect()
    }

    /// Its resident memory in bytes.
    pub fn rss_bytes(&self) -> u64 {
        self.memory_bytes("VmRSS:")
    }

    /// The peak of its resident memory since the last call of this.
    pub fn peak_bytes(&self) -> u64 {
        let peak = self.memory_bytes("VmHWM:");
        let path = format!("/proc/{}/clear_refs", self.pid.as_raw_nonzero());
        fs::write(path, "5").expect("a child of this process");
        peak
    }

    fn memory_bytes(&self, kind: &str) -> u64 {
        let path = format!("/proc/{}/status", self.pid.as_raw_nonzero());
        let status = fs::read_to_string(path).expect("the host runs");
        let line = status.lines().find_map(|line| line.strip_prefix(kind)).expect("a size");
        let kib = line.trim().trim_end_matches(" kB").parse::<u64>();
        kib.expect("a number of KiB") << 10
    }

    pub fn pid(&self) -> Pid {
        self.pid
    }

    /// Waits until the host's counts are as wanted.
    #[track_caller]
    pub fn status_when(
        &self,
        what: &str,
        patience: Duration,
        wanted: impl Fn(&Status) -> bool,
    ) -> Status {
        let deadline = Instant::now() + patience;
        loop {
            let status = self.status();
            if wanted(&status) {
                return status;
            }
            assert!(Instant::now() < deadline, "not {what} after {patience:?}: {status:?}");
            std::thread::sleep(GLANCE);
        }
    }

    #[track_caller]
    pub fn signal(&self, signal: Signal) {
        kill_process(self.pid, signal).unwrap_or_else(|error| panic!("no such host: {error}"));
    }

    /// Waits for the host to end by itself.
    #[track_caller]
    pub fn wait_exit(&self) -> ExitStatus {
        until("end of the host", patience(), || self.ended())
    }

    /// The exit status of the host, if it has ended.
    pub fn ended(&self) -> Option<ExitStatus> {
        self.child().try_wait().expect("a child of this process")
    }

    fn child(&self) -> MutexGuard<'_, Child> {
        self.child.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        let ended = self.child().try_wait().ok().flatten();
        // It may have ended already, which does not matter here.
        let _ = self.child().kill();
        let _ = self.child().wait();
        let is_broken = self.log.has_panic();
        let is_lost = ended.is_some_and(|status| !status.success());
        if std::thread::panicking() {
            eprintln!("the host's log:\n{}", self.log.text());
        } else if is_lost || is_broken {
            panic!("the host broke, its end {ended:?}:\n{}", self.log.text());
        }
    }
}

impl Setup {
    fn new(verb: &'static str) -> Setup {
        let dir = tempfile::tempdir().expect("a temporary folder");
        fs::create_dir(dir.path().join("handlers")).expect("a folder in it");
        Setup { dir, verb, args: Vec::new(), env: Vec::new(), through: Vec::new(), as_nobody: None }
    }

    /// Writes a file into the handler folder. `name` may have folders in it.
    #[must_use]
    pub fn file(self, name: &str, contents: impl AsRef<[u8]>) -> Setup {
        self.prepare(|folder| {
            let path = folder.join(name);
            fs::create_dir_all(path.parent().expect("a file is in a folder")).expect("a folder");
            fs::write(path, contents).expect("a file");
        })
    }

    /// Makes any other change to the handler folder before the host starts.
    #[must_use]
    pub fn prepare(self, change: impl FnOnce(&Path)) -> Setup {
        change(&self.dir.path().join("handlers"));
        self
    }

    #[must_use]
    pub fn arg(mut self, arg: impl AsRef<OsStr>) -> Setup {
        self.args.push(arg.as_ref().to_owned());
        self
    }

    #[must_use]
    pub fn args<A: AsRef<OsStr>>(self, args: impl IntoIterator<Item = A>) -> Setup {
        args.into_iter().fold(self, Setup::arg)
    }

    #[must_use]
    pub fn env(mut self, name: &str, value: &str) -> Setup {
        self.env.push((name.to_owned(), value.to_owned()));
        self
    }

    /// Starts the host by another program, which has to become the host (`exec`). The program gets
    /// these words and then the command line of the host.
    #[must_use]
    pub fn through<A: AsRef<OsStr>>(mut self, words: impl IntoIterator<Item = A>) -> Setup {
        self.through = words.into_iter().map(|word| word.as_ref().to_owned()).collect();
        self
    }

    /// If the test runs as root, runs the host as nobody, because root may read everything.
    #[must_use]
    pub fn unprivileged(mut self) -> Setup {
        if geteuid().is_root() {
            // The program is opened here, since nobody may not have access to its folders.
            self.as_nobody = Some(File::open(program()).expect("the program"));
            chown(self.dir.path(), Some(NOBODY), Some(NOBODY)).expect("root may do so");
        }
        self
    }

    /// Starts the host and waits until it listens.
    #[track_caller]
    pub fn start(self) -> Host {
        let started = self.try_start();
        started.unwrap_or_else(|(code, log)| panic!("the host does not listen: {code:?}\n{log}"))
    }

    /// Starts the host and waits until its guests are loaded. A request waits for its guest as
    /// well, but not for ever, and the demo has many.
    #[track_caller]
    pub fn start_settled(self) -> Host {
        let host = self.start();
        host.settled();
        host
    }

    /// Starts the host and waits until it listens. Returns its exit code and its stderr if it ends.
    pub fn try_start(self) -> Result<Host, (Option<i32>, String)> {
        let mut child = self.command().spawn().expect("the program starts");
        let log = Log::collect(&mut child);
        let pid = Pid::from_child(&child);
        let listens = |line: &Line| line.message().contains("listening on http://");
        let Ok(line) = log.wait(0, patience(), listens) else {
            // If its stderr has ended, the host ends by itself.
            if !log.is_ended() {
                let _ = child.kill();
            }
            let code = child.wait().ok().and_then(|status| status.code());
            return Err((code, log.text()));
        };
        let (_, url) = line.message().split_once("http://").expect("just looked for");
        let addr = url.split([' ', '/']).next().unwrap_or_default();
        Ok(Host {
            addr: addr.parse().unwrap_or_else(|error| panic!("{addr:?}: {error}")),
            child: Mutex::new(child),
            pid,
            log,
            asking: Mutex::new(()),
            dir: self.dir,
        })
    }

    /// Runs a host that is expected to end by itself. Returns its exit code and its stderr.
    #[track_caller]
    pub fn fails(self) -> (Option<i32>, String) {
        let mut child = self.command().spawn().expect("the program starts");
        let log = Log::collect(&mut child);
        let deadline = Instant::now() + patience();
        let status = loop {
            if let Some(status) = child.try_wait().expect("a child of this process") {
                break status;
            }
            if Instant::now() > deadline {
                let _ = child.kill();
                let _ = child.wait();
                panic!("the host did not end:\n{}", log.text());
            }
            std::thread::sleep(GLANCE);
        };
        // Such a line never comes, so this waits for the end of stderr.
        let _ = log.wait(0, patience(), |_| false);
        (status.code(), log.text())
    }

    /// Two workers unless the test chooses, so that all machines have the same number.
    fn command(&self) -> Command {
        let mut command = match (self.through.split_first(), &self.as_nobody) {
            (None, None) => command(),
            (None, Some(open)) => {
                let path = format!("/proc/self/fd/{}", open.as_raw_fd());
                let mut command = clean(Command::new(path));
                command.uid(NOBODY).gid(NOBODY);
                command
            }
            (Some((first, words)), _) => {
                let mut command = clean(Command::new(first));
                command.args(words).arg(program());
                command
            }
        };
        command.arg(self.verb).args(&self.args);
        let defaults: [(&str, PathBuf); 4] = [
            ("--listen", "127.0.0.1:0".into()),
            ("--workers", "2".into()),
            ("--log", "json".into()),
            ("--cache-dir", self.dir.path().join("cache")),
        ];
        for (flag, value) in defaults {
            let is_given =
                |arg: &OsString| arg == flag || (flag == "--cache-dir" && arg == "--no-cache");
            if !self.args.iter().any(is_given) {
                command.arg(flag).arg(value);
            }
        }
        let handlers = self.dir.path().join("handlers");
        if self.verb == "serve" {
            command.arg(handlers);
        } else if !self.args.iter().any(|arg| arg == "--also" || arg == "--many") {
            // Guests that were built into the folder of the sources are not part of the test.
            command.arg("--also").arg(handlers);
        }
        command
            .envs(self.env.iter().map(|(name, value)| (name, value)))
            .stdout(Stdio::null())
            .stderr(Stdio::piped());
        command
    }
}

/// Polls until there is a value.
#[track_caller]
pub fn until<T>(what: &str, patience: Duration, look: impl Fn() -> Option<T>) -> T {
    let deadline = Instant::now() + patience;
    loop {
        if let Some(seen) = look() {
            return seen;
        }
        assert!(Instant::now() < deadline, "no {what} after {patience:?}");
        std::thread::sleep(GLANCE);
    }
}

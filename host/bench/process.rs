//! Runs a server in a process of its own: starts it, waits until it is up, and ends it with all
//! processes that it has started.
//!
//! Owns the server's port, its temporary folder and its log. `usage.rs` measures its CPU time and
//! memory, `counters.rs` reads its counters, and `machine.rs` describes the machine. Does not know
//! which requests the server gets.

use std::fs::{self, File};
use std::io::{self, BufRead as _, BufReader, Read as _};
use std::net::{Ipv4Addr, TcpListener};
use std::os::unix::fs::FileExt as _;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use guesthouse_escape::escape;
use rustix::process::{Pid, Signal, WaitId, WaitIdOptions, kill_process_group, waitid};
use tempfile::TempDir;

pub use machine::{cpus_allowed, files_max, machine, ports_max};
pub use usage::{Meter, Usage, rss_now_bytes};

use super::cpus::pin;
use super::launch::Launch;
use super::load::Request;
use super::probe;
use super::stream::Destination;

mod counters;
mod machine;
mod usage;

/// Pause between two checks of a state that is waited for.
const LOOK_EVERY: Duration = Duration::from_micros(500);
/// How long one answer may take while the server is coming up.
const ANSWER_WITHIN: Duration = Duration::from_secs(5);
/// How long a server may take to end after SIGTERM, before SIGKILL.
const STOP_WITHIN: Duration = Duration::from_secs(10);
/// How long a server's version command may take.
const VERSION_WITHIN: Duration = Duration::from_secs(10);
const VERSION_BYTES_MAX: u64 = 4096;
/// A server has nothing left to do by itself if it uses less than this share of a core for
/// [`REST_FOR`].
const REST_CPU_SHARE: f64 = 0.05;
const REST_FOR: Duration = Duration::from_secs(1);
/// The names of the server's folder and of its log in the temporary folder.
const DIR: &str = "dir";
const LOG: &str = "log";
/// How much of a log's end an error shows.
const LOG_BYTES_SHOWN: u64 = 4096;
const LOG_LINES_SHOWN: usize = 12;

/// A running server. Dropping it ends the server, as [`Server::stop`] does.
pub struct Server {
    name: String,
    child: Child,
    authority: String,
    /// The temporary folder. It has the server's folder, and beside that the log, because the
    /// server may serve everything in its folder.
    scratch: TempDir,
    /// The server's stdout and stderr.
    log: File,
    first_answer: Duration,
    /// Resident memory once it was up.
    rss_ready_bytes: u64,
    /// The names of the counters to be read.
    counters: Vec<String>,
    stopped: bool,
}

impl Server {
    /// Starts a server. Blocks until the server has answered and, if the launch asks for it, has
    /// nothing left to do by itself.
    ///
    /// # Errors
    /// The server cannot be started, ends, or is not up or at rest in time; or `interrupted` is
    /// set. The error has the last lines of the server's log.
    pub fn start(launch: &Launch, interrupted: &AtomicBool) -> Result<Server> {
        let name = &launch.name;
        let scratch = tempfile::Builder::new().prefix("guesthouse-bench-").tempdir();
        let scratch = scratch.context("cannot make a temporary folder for a server")?;
        let dir = scratch.path().join(DIR);
        fs::create_dir(&dir).context("cannot make the folder of a server")?;
        let port = free_port().context("there is no free port on 127.0.0.1")?;
        let shown = dir.to_string_lossy();
        let fill = |text: &str| text.replace("{port}", &port.to_string()).replace("{dir}", &shown);
        for (from, to) in &launch.files {
            copy(from, &dir.join(to))
                .with_context(|| format!("cannot copy {} for `{name}`", from.display()))?;
        }
        let words: Vec<String> = launch.command.iter().map(|word| fill(word)).collect();
        let (program, arguments) =
            words.split_first().with_context(|| format!("the server `{name}` has no command"))?;
        let log = scratch.path().join(LOG);
        let log = File::options().read(true).write(true).create_new(true).open(log);
        let log = log.context("cannot make a log for a server")?;
        let mut command = Command::new(program);
        command.args(arguments).envs(launch.env.iter().map(|(key, text)| (key, fill(text))));
        command.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log.try_clone()?);
        command.process_group(0);
        if let Some(dir) = &launch.dir {
            command.current_dir(dir);
        }
        let began = Instant::now();
        let child = spawn(&mut command, &launch.cpus)
            .with_context(|| format!("cannot start the server `{name}` (`{}`)", words.join(" ")))?;
        let authority = format!("127.0.0.1:{port}");
        let first_answer = Duration::ZERO;
        let (name, counters) = (name.clone(), launch.counters.clone());
        let mut server = Server {
            name,
            child,
            authority,
            scratch,
            log,
            first_answer,
            rss_ready_bytes: 0,
            counters,
            stopped: false,
        };
        let until = began + launch.ready_within;
        server.wait_until_ready(&fill(&launch.ready), until, interrupted)?;
        server.first_answer = began.elapsed();
        if !launch.settle_within.is_zero() {
            let until = Instant::now() + launch.settle_within;
            if !server.wait_until_idle(until, interrupted)? {
                let words = server.log_tail();
                bail!("the server `{}` is still busy with itself{words}", server.name);
            }
        }
        server.rss_ready_bytes = rss_now_bytes(server.pid())?;
        Ok(server)
    }

    /// `127.0.0.1:PORT`.
    pub fn authority(&self) -> &str {
        &self.authority
    }

    /// The folder that `{dir}` stood for.
    pub fn dir(&self) -> PathBuf {
        self.scratch.path().join(DIR)
    }

    /// Resident memory of the server and its descendants, in bytes, when it had just come up.
    pub fn rss_ready_bytes(&self) -> u64 {
        self.rss_ready_bytes
    }

    /// The id of the process that was started.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// The time from its start to its first answer.
    pub fn first_answer(&self) -> Duration {
        self.first_answer
    }

    /// Whether the server has ended. [`check_alive`](Self::check_alive) says why.
    pub fn has_ended(&self) -> bool {
        let options = WaitIdOptions::EXITED | WaitIdOptions::NOWAIT | WaitIdOptions::NOHANG;
        let found = waitid(WaitId::Pid(Pid::from_child(&self.child)), options);
        !matches!(found, Ok(None))
    }

    /// Checks that the server still runs.
    ///
    /// # Errors
    /// The server has ended. The error has the last lines of its log.
    pub fn check_alive(&mut self) -> Result<()> {
        match self.child.try_wait()? {
            None => Ok(()),
            Some(status) => {
                bail!("the server `{}` has ended ({status}){}", self.name, self.log_tail())
            }
        }
    }

    /// Ends the server and all processes of its group, first by SIGTERM, later by SIGKILL. Blocks
    /// until all have gone.
    pub fn stop(&mut self) {
        if std::mem::replace(&mut self.stopped, true) {
            return;
        }
        // Reaping the child frees its number for other processes, so it comes last.
        stop_group(Pid::from_child(&self.child));
        let _ = self.child.wait();
    }

    fn wait_until_ready(
        &mut self,
        path: &str,
        until: Instant,
        interrupted: &AtomicBool,
    ) -> Result<()> {
        let mut last = String::from("nothing listened");
        let (to, request) = (Destination::resolve(&self.authority)?, Request::get(path));
        while Instant::now() < until {
            self.check_alive()?;
            check_interrupted(interrupted)?;
            match probe::ask(&to, &request, ANSWER_WITHIN, interrupted) {
                Ok(answered) if answered.status < 400 => return Ok(()),
                Ok(answered) => last = format!("the last status was {}", answered.status),
                Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => {}
                Err(error) => last = format!("the last try ended with: {error}"),
            }
            thread::sleep(LOOK_EVERY);
        }
        let words = self.log_tail();
        bail!("the server `{}` does not answer {path} in time: {last}{words}", self.name)
    }

    /// Blocks until the server has nothing left to do by itself, but not beyond `until`. Returns
    /// whether it is at rest.
    ///
    /// # Errors
    /// The server has ended, or `interrupted` is set.
    pub fn wait_until_idle(&mut self, until: Instant, interrupted: &AtomicBool) -> Result<bool> {
        let share_max = REST_FOR.mul_f64(REST_CPU_SHARE);
        while Instant::now() < until {
            self.check_alive()?;
            let meter = Meter::start(self.pid())?;
            let look_again = Instant::now() + REST_FOR;
            while Instant::now() < look_again {
                check_interrupted(interrupted)?;
                thread::sleep(LOOK_EVERY * 100);
            }
            if meter.stop()?.cpu() < share_max {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// The last lines of its log, as the end of a sentence.
    fn log_tail(&self) -> String {
        let end = self.end_of_log().unwrap_or_default();
        let lines: Vec<&[u8]> = end.split(|byte| *byte == b'\n').collect();
        let lines: Vec<&[u8]> = lines.into_iter().filter(|line| !line.is_empty()).collect();
        let shown = lines.iter().skip(lines.len().saturating_sub(LOG_LINES_SHOWN));
        let shown: Vec<String> = shown.map(|line| format!("  {}", escape(line, 400))).collect();
        if shown.is_empty() {
            return "; it has logged nothing".to_owned();
        }
        format!("; its last words:\n{}", shown.join("\n"))
    }

    /// The last bytes of its log. Reads at a given position, because the server writes at the
    /// position of the same open file.
    fn end_of_log(&self) -> io::Result<Vec<u8>> {
        let len = self.log.metadata()?.len();
        let start = len.saturating_sub(LOG_BYTES_SHOWN);
        let mut end = vec![0; (len - start) as usize];
        self.log.read_exact_at(&mut end, start)?;
        Ok(end)
    }
}

/// A server's name, and the first line that its version command prints. `None` if there is none
/// within [`VERSION_WITHIN`], or before `interrupted` is set.
pub fn version(launch: &Launch, interrupted: &AtomicBool) -> Option<(String, String)> {
    let (program, arguments) = launch.version.split_first()?;
    let mut command = Command::new(program);
    command.args(arguments).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null());
    let mut child = command.process_group(0).spawn().ok()?;
    let stdout = child.stdout.take()?;
    let (tell, told) = mpsc::channel();
    thread::spawn(move || {
        let mut line = Vec::new();
        let read = BufReader::new(stdout.take(VERSION_BYTES_MAX)).read_until(b'\n', &mut line);
        // Nobody listens any more after an interruption.
        let _ = tell.send(read.map(|_| line));
    });
    let until = Instant::now() + VERSION_WITHIN;
    let line = loop {
        match told.recv_timeout(LOOK_EVERY * 10) {
            Ok(line) => break line.ok(),
            Err(_) if interrupted.load(Ordering::Relaxed) || Instant::now() > until => break None,
            Err(_) => {}
        }
    };
    stop_group(Pid::from_child(&child));
    let _ = child.wait();
    let line = line?;
    let line = line.trim_ascii();
    (!line.is_empty()).then(|| (launch.name.clone(), escape(line, 100)))
}

/// Ends every process of a group: by SIGTERM, and by SIGKILL if that takes too long. Blocks until
/// all of them have ended.
pub fn stop_group(group: Pid) {
    for signal in [Signal::TERM, Signal::KILL] {
        if !usage::is_group_alive(group) {
            break;
        }
        // An error means that the group has gone already.
        let _ = kill_process_group(group, signal);
        let until = Instant::now() + STOP_WITHIN;
        while usage::is_group_alive(group) && Instant::now() < until {
            thread::sleep(LOOK_EVERY * 4);
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.stop();
    }
}

fn check_interrupted(interrupted: &AtomicBool) -> Result<()> {
    if interrupted.load(Ordering::Relaxed) {
        bail!("interrupted");
    }
    Ok(())
}

/// Starts a process on these CPUs alone. A process inherits the CPUs of the thread that starts it,
/// so a new thread does.
fn spawn(command: &mut Command, cpus: &[usize]) -> io::Result<Child> {
    let start = || {
        pin(cpus)?;
        command.spawn()
    };
    thread::scope(|scope| scope.spawn(start).join())
        .unwrap_or_else(|_| Err(io::Error::other("the thread that starts servers has panicked")))
}

/// Copies a file, or a folder with everything in it.
fn copy(from: &Path, to: &Path) -> io::Result<()> {
    if !from.is_dir() {
        to.parent().map_or(Ok(()), fs::create_dir_all)?;
        return fs::copy(from, to).map(|_| ());
    }
    fs::create_dir_all(to)?;
    for entry in fs::read_dir(from)? {
        let name = entry?.file_name();
        copy(&from.join(&name), &to.join(&name))?;
    }
    Ok(())
}

/// A port on which nobody listens. Another process may take it before the server does.
fn free_port() -> io::Result<u16> {
    Ok(TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()?.port())
}

//! A program that runs beside a measurement, for example one that attacks the server.
//!
//! Owns the program's process, and ends it with the measurement.

use std::fs::File;
use std::os::unix::fs::FileExt as _;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};
use guesthouse_escape::escape;
use rustix::process::Pid;

use super::process::stop_group;
use super::suite::Along;
use super::target::Target;

/// Pause between two checks of a process that runs.
const LOOK_EVERY: Duration = Duration::from_millis(10);
/// How many bytes of a program's stderr an error shows.
const LOG_BYTES_SHOWN: usize = 400;

/// A running program. Dropping it ends the program's process group, first by SIGTERM, later by
/// SIGKILL, and blocks until the program has gone.
pub struct Running {
    name: String,
    child: Child,
    /// Its stderr.
    log: File,
    may_end: bool,
}

impl Running {
    /// Starts the program and blocks until its lead is over. Once `stop` is set, it returns at
    /// once. `{port}` in the command becomes the port of `target`.
    ///
    /// # Errors
    /// The program cannot be started, or ends within its lead.
    pub fn start(along: &Along, target: &Target, stop: &AtomicBool) -> anyhow::Result<Self> {
        let port = target.destination.address.port().to_string();
        let words: Vec<String> =
            along.command.iter().map(|word| word.replace("{port}", &port)).collect();
        let (program, arguments) = words.split_first().context("a program has no name")?;
        let mut command = Command::new(program);
        command.args(arguments).stdin(Stdio::null()).stdout(Stdio::null());
        // A file takes all that it says, whoever else holds it open.
        let log = tempfile::tempfile().context("cannot make a log for a program")?;
        command.stderr(log.try_clone()?);
        // The signals at the end go to the whole group, so that its child processes end, too.
        std::os::unix::process::CommandExt::process_group(&mut command, 0);
        let child = command.spawn().with_context(|| format!("cannot start {program}"))?;
        let mut running = Self { name: program.clone(), child, log, may_end: along.may_end };
        let until = Instant::now() + along.lead;
        while Instant::now() < until && !stop.load(Ordering::Relaxed) {
            running.check()?;
            thread::sleep(LOOK_EVERY);
        }
        Ok(running)
    }

    /// Checks that the program still runs, or has ended with success if it may.
    ///
    /// # Errors
    /// The program has ended otherwise. The error has the beginning of its stderr.
    pub fn check(&mut self) -> anyhow::Result<()> {
        let Some(status) = self.child.try_wait()? else { return Ok(()) };
        if self.may_end && status.success() {
            return Ok(());
        }
        let mut log = vec![0; LOG_BYTES_SHOWN];
        // If stderr cannot be read, the error says less.
        let bytes = self.log.read_at(&mut log, 0).unwrap_or(0);
        let words = escape(log[..bytes].trim_ascii(), LOG_BYTES_SHOWN);
        bail!("{} has ended before the measurement ({status}): {words}", self.name)
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        stop_group(Pid::from_child(&self.child));
        // It has ended, or nothing can end it.
        let _ = self.child.try_wait();
    }
}

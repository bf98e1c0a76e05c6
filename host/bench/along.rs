//! A program that runs beside a measurement, for example one that attacks the server.
//!
//! Owns the program's process, and ends it with the measurement.

use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};
use rustix::process::{Pid, Signal, kill_process_group};

use super::suite::Along;
use super::target::Target;

/// Pause between two checks of a process that runs.
const LOOK_EVERY: Duration = Duration::from_millis(10);
/// How long a program may take to end after SIGTERM, before SIGKILL.
const STOP_WITHIN: Duration = Duration::from_secs(5);
/// How many characters of a program's stderr an error shows.
const WORDS_SHOWN: usize = 400;

/// A running program. Dropping it ends the program's process group, first by SIGTERM, later by
/// SIGKILL, and blocks until the program has gone.
pub struct Running {
    name: String,
    child: Child,
}

impl Running {
    /// Starts the program and blocks until its lead is over. Once `stop` is set, it returns at
    /// once. `{port}` in the command becomes the port of `target`.
    ///
    /// # Errors
    /// The program cannot be started, or fails within its lead.
    pub fn start(along: &Along, target: &Target, stop: &AtomicBool) -> anyhow::Result<Self> {
        let port = target.destination.address.port().to_string();
        let words: Vec<String> =
            along.command.iter().map(|word| word.replace("{port}", &port)).collect();
        let (program, arguments) = words.split_first().context("a program has no name")?;
        let mut command = Command::new(program);
        command.args(arguments).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
        // The signals at the end go to the whole group, so that its child processes end, too.
        std::os::unix::process::CommandExt::process_group(&mut command, 0);
        let child = command.spawn().with_context(|| format!("cannot start {program}"))?;
        let mut running = Self { name: program.clone(), child };
        let until = Instant::now() + along.lead;
        while Instant::now() < until && !stop.load(Ordering::Relaxed) {
            running.check()?;
            thread::sleep(LOOK_EVERY);
        }
        Ok(running)
    }

    /// Checks that the program has not failed. It may have ended with success.
    ///
    /// # Errors
    /// The program has ended with a failure. The error has the beginning of its stderr.
    pub fn check(&mut self) -> anyhow::Result<()> {
        match self.child.try_wait()? {
            Some(status) if !status.success() => {
                let mut words = String::new();
                if let Some(mut stderr) = self.child.stderr.take() {
                    // If stderr cannot be read, the error says less.
                    let _ = std::io::Read::read_to_string(&mut stderr, &mut words);
                }
                let words: String = words.trim().chars().take(WORDS_SHOWN).collect();
                bail!("{} has ended ({status}): {words}", self.name)
            }
            _ => Ok(()),
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let group = Pid::from_child(&self.child);
        for signal in [Signal::TERM, Signal::KILL] {
            // An error means that the group has gone already.
            let _ = kill_process_group(group, signal);
            let until = Instant::now() + STOP_WITHIN;
            while Instant::now() < until {
                if matches!(self.child.try_wait(), Ok(Some(_)) | Err(_)) {
                    return;
                }
                thread::sleep(LOOK_EVERY);
            }
        }
    }
}

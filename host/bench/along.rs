//! A program that runs beside a measurement, as one that attacks the server.
//!
//! Owns its process, which ends with the measurement.

use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};
use rustix::process::{Pid, Signal, kill_process_group};

use super::suite::Along;
use super::target::Target;

const LOOK_EVERY: Duration = Duration::from_millis(10);
/// How long it may take to end when asked to, before it is killed.
const STOP_WITHIN: Duration = Duration::from_secs(5);
/// How much of what it said is shown.
const WORDS_SHOWN: usize = 400;

/// A program that runs. It ends when this is dropped.
pub struct Running {
    name: String,
    child: Child,
}

impl Running {
    /// Starts it, and comes back after its lead. With `stop` it comes back at once.
    ///
    /// # Errors
    /// It cannot be started, or has failed by then.
    pub fn start(along: &Along, target: &Target, stop: &AtomicBool) -> anyhow::Result<Self> {
        let port = target.destination.address.port().to_string();
        let words: Vec<String> =
            along.command.iter().map(|word| word.replace("{port}", &port)).collect();
        let (program, arguments) = words.split_first().context("a program has no name")?;
        let mut command = Command::new(program);
        command.args(arguments).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
        // So that what it starts ends with it.
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

    /// # Errors
    /// It has ended with a failure; what it said is in the error.
    pub fn check(&mut self) -> anyhow::Result<()> {
        match self.child.try_wait()? {
            Some(status) if !status.success() => {
                let mut words = String::new();
                if let Some(mut stderr) = self.child.stderr.take() {
                    // What it leaves unsaid is not known.
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
            // It may have gone just now, which is what is wanted.
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

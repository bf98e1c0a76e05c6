//! Reads the counters of a server: asks for them by SIGUSR1, and finds them in its log.
//!
//! `guesthouse` logs a line `status: NAME=NUMBER ...` after that signal.

use std::collections::BTreeMap;
use std::io;
use std::os::unix::fs::FileExt as _;
use std::sync::atomic::AtomicBool;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::bail;
use rustix::process::{Pid, Signal, kill_process};

use super::{LOOK_EVERY, Server, check_interrupted};

/// How long a server may take to log its counters.
const COUNTED_WITHIN: Duration = Duration::from_secs(10);
/// The text before the counters in their line.
const LEAD: &str = "status: ";

impl Server {
    /// The present values of the counters that the launch names, each under its name with
    /// `counter_` before it. Counters that the server does not log are absent. Blocks until the
    /// server has logged its line. A launch without counters sends no signal.
    ///
    /// # Errors
    /// The server does not log its counters in time, or `interrupted` is set.
    pub fn counters(&self, interrupted: &AtomicBool) -> anyhow::Result<BTreeMap<String, f64>> {
        if self.counters.is_empty() {
            return Ok(BTreeMap::new());
        }
        let from = self.log.metadata()?.len();
        kill_process(Pid::from_child(&self.child), Signal::USR1)?;
        let until = Instant::now() + COUNTED_WITHIN;
        while Instant::now() < until {
            check_interrupted(interrupted)?;
            let text = self.log_from(from)?;
            let lines = text.split_inclusive('\n').filter(|line| line.ends_with('\n'));
            if let Some((_, counts)) = lines.filter_map(|it| it.split_once(LEAD)).next_back() {
                let wanted = |name: &String| {
                    let number = number(counts, name)?;
                    Some((format!("counter_{name}"), number))
                };
                return Ok(self.counters.iter().filter_map(wanted).collect());
            }
            thread::sleep(LOOK_EVERY);
        }
        bail!("the server `{}` does not say what it counts", self.name)
    }

    /// The log from this byte on.
    fn log_from(&self, from: u64) -> io::Result<String> {
        let len = self.log.metadata()?.len().saturating_sub(from);
        let mut bytes = vec![0; usize::try_from(len).map_err(io::Error::other)?];
        self.log.read_exact_at(&mut bytes, from)?;
        Ok(String::from_utf8_lossy(&bytes).into_owned())
    }
}

/// The number after `name=`. One that is not finite is none.
fn number(counts: &str, name: &str) -> Option<f64> {
    let words = counts.split_whitespace();
    let (_, number) =
        words.filter_map(|word| word.split_once('=')).find(|(key, _)| *key == name)?;
    number.parse().ok().filter(|it: &f64| it.is_finite())
}

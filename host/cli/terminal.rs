//! The terminal from which the host was started, and whether it is still there.
//!
//! SIGHUP has two meanings: a closing terminal sends it to all its processes, and an operator sends
//! it to make a service look for changes. Owns how to tell these apart.

use std::fs::OpenOptions;
use std::io::{self, IsTerminal};
use std::os::unix::fs::OpenOptionsExt;

use rustix::fs::OFlags;

use crate::file;

/// The name by which every process can open its own controlling terminal.
const OWN: &str = "/dev/tty";

/// A terminal that was there when the host started.
pub struct Terminal {
    is_controlling: bool,
}

impl Terminal {
    /// The terminal of this process. `None` if it has none, or if it must not end with it: `nohup`
    /// makes a process ignore SIGHUP. Call this before anything listens to signals.
    pub fn at_start() -> Option<Terminal> {
        let is_controlling = can_open();
        let has_one = is_controlling || io::stdin().is_terminal() || io::stderr().is_terminal();
        (has_one && !is_hangup_ignored()).then_some(Terminal { is_controlling })
    }

    /// Whether the terminal has been closed since.
    pub fn is_gone(&self) -> bool {
        if self.is_controlling {
            return !can_open();
        }
        // A closed terminal no longer answers as one.
        !io::stdin().is_terminal() && !io::stderr().is_terminal()
    }
}

fn can_open() -> bool {
    let flags = OFlags::NONBLOCK | OFlags::NOCTTY;
    OpenOptions::new().read(true).custom_flags(flags.bits() as i32).open(OWN).is_ok()
}

/// Whether this process ignores SIGHUP, by the bit mask in `/proc/self/status`
/// (proc_pid_status(5)).
fn is_hangup_ignored() -> bool {
    let status = file::kernel_text("/proc/self/status").unwrap_or_default();
    let mask = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    let mask = mask.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok());
    mask.is_some_and(|mask| mask & 1 != 0)
}

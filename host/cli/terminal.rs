//! The terminal from which the host was started, and whether it is still there.
//!
//! Owns how that is found out. When a terminal is closed, whatever was started in it is told so by
//! SIGHUP, with which a service is told to look for changes.

use std::fs::OpenOptions;
use std::io::{self, IsTerminal};
use std::os::unix::fs::OpenOptionsExt;

use rustix::fs::OFlags;

use crate::file;

/// The controlling terminal of a process, under a name that every process has for its own.
const OWN: &str = "/dev/tty";

/// A terminal that was there when the host started.
pub struct Terminal {
    is_controlling: bool,
}

impl Terminal {
    /// None where the host was started without one, or is not to end with it: `nohup` has SIGHUP
    /// ignored. To be called before anything listens to signals.
    pub fn at_start() -> Option<Terminal> {
        let is_controlling = can_open();
        let has_one = is_controlling || io::stdin().is_terminal() || io::stderr().is_terminal();
        (has_one && !is_hangup_ignored()).then_some(Terminal { is_controlling })
    }

    /// Whether it has been closed since.
    pub fn is_gone(&self) -> bool {
        if self.is_controlling {
            return !can_open();
        }
        // One that is closed answers no question any more.
        !io::stdin().is_terminal() && !io::stderr().is_terminal()
    }
}

fn can_open() -> bool {
    let flags = OFlags::NONBLOCK | OFlags::NOCTTY;
    OpenOptions::new().read(true).custom_flags(flags.bits() as i32).open(OWN).is_ok()
}

/// proc_pid_status(5): the signals that are ignored, as bits from the first one on.
fn is_hangup_ignored() -> bool {
    let status = file::kernel_text("/proc/self/status").unwrap_or_default();
    let mask = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    let mask = mask.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok());
    mask.is_some_and(|mask| mask & 1 != 0)
}

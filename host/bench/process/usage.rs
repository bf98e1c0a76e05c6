//! Measures the CPU time and memory of a process and its descendants, as the kernel counts them.
//!
//! Owns the reading of `/proc`. Knows nothing of what the processes do.

use std::fs;
use std::io;
use std::time::Duration;

use nix::time::{ClockId, clock_getcpuclockid};
use rustix::process::Pid;

/// The unit of CPU times in `/proc`: `USER_HZ` is 100 wherever Rust runs on Linux.
const TICK: Duration = Duration::from_millis(10);
/// Written to `clear_refs`, it sets a process's peak of memory to its present memory.
const RESET_PEAK: &str = "5";

/// CPU time and memory that a process and its descendants used while they were measured.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Usage {
    /// CPU time in user mode.
    pub user: Duration,
    /// CPU time in the kernel.
    pub kernel: Duration,
    /// The sum of each process's peak of resident memory. Memory that processes share counts in
    /// each of them.
    pub rss_peak_bytes: u64,
    /// Resident memory at the beginning, summed in the same way.
    pub rss_before_bytes: u64,
}

impl Usage {
    /// User and kernel time together.
    pub fn cpu(&self) -> Duration {
        self.user + self.kernel
    }
}

/// Measures a process and its descendants from now on.
///
/// A descendant that starts and ends in this time, such as a compiler for one file, counts in steps
/// of 10 ms, as its parent knows it. It does not count if its parent did not wait for it, or ended
/// before it.
pub struct Meter {
    pid: u32,
    before: Total,
    rss_before_bytes: u64,
}

impl Meter {
    /// Begins to measure, and resets the peaks of memory.
    ///
    /// # Errors
    /// There is no such process.
    pub fn start(pid: u32) -> io::Result<Meter> {
        for (pid, _) in tree(pid)? {
            // Without that permission, the peak is that since the start of the process.
            let _ = fs::write(format!("/proc/{pid}/clear_refs"), RESET_PEAK);
        }
        let rss_before_bytes = rss_now_bytes(pid)?;
        Ok(Meter { pid, before: Total::of(&tree(pid)?)?, rss_before_bytes })
    }

    /// Reads what was used since [`Meter::start`]. User and kernel time are exact in sum; how they
    /// divide it is the kernel's estimate.
    ///
    /// # Errors
    /// The process has gone.
    pub fn stop(&self) -> io::Result<Usage> {
        let tree = tree(self.pid)?;
        let after = Total::of(&tree)?;
        let cpu = after.cpu.saturating_sub(self.before.cpu);
        let user_ticks = after.user_ticks.saturating_sub(self.before.user_ticks);
        let kernel_ticks = after.kernel_ticks.saturating_sub(self.before.kernel_ticks);
        let share = if user_ticks + kernel_ticks > 0 {
            share(user_ticks, kernel_ticks)
        } else {
            // The time was too short for the kernel's ticks: take the shares of all time so far.
            share(after.user_ticks, after.kernel_ticks)
        };
        let user = cpu.mul_f64(share);
        let rss_peak_bytes = tree.iter().map(|(pid, _)| peak_kib(*pid)).sum::<u64>() * 1024;
        let rss_before_bytes = self.rss_before_bytes;
        let kernel = cpu.saturating_sub(user);
        Ok(Usage { user, kernel, rss_peak_bytes, rss_before_bytes })
    }
}

/// The share of user time.
fn share(user_ticks: u64, kernel_ticks: u64) -> f64 {
    user_ticks as f64 / (user_ticks + kernel_ticks).max(1) as f64
}

/// Present resident memory of a process and its descendants, summed. Memory that processes share
/// counts in each of them.
///
/// # Errors
/// There is no such process.
pub fn rss_now_bytes(pid: u32) -> io::Result<u64> {
    Ok(tree(pid)?.iter().map(|(pid, _)| now_kib(*pid)).sum::<u64>() * 1024)
}

/// A process's peak of resident memory. The kernel's quick counters lag behind by some pages for
/// each thread, and so does its peak: the exact present memory may be more.
fn peak_kib(pid: i32) -> u64 {
    kib(&format!("/proc/{pid}/status"), "VmHWM:").unwrap_or(0).max(now_kib(pid))
}

fn now_kib(pid: i32) -> u64 {
    kib(&format!("/proc/{pid}/smaps_rollup"), "Rss:")
        .or_else(|| kib(&format!("/proc/{pid}/status"), "VmRSS:"))
        .unwrap_or(0)
}

/// Whether at least one process of this group has not ended.
pub fn is_group_alive(group: Pid) -> bool {
    let group = group.as_raw_nonzero().get();
    let all = all().unwrap_or_default();
    all.iter().any(|(_, stat)| stat.group == group && !stat.has_ended)
}

/// The CPU time of some processes since they began, and of their descendants that have ended.
#[derive(Default)]
struct Total {
    cpu: Duration,
    user_ticks: u64,
    kernel_ticks: u64,
}

impl Total {
    fn of(tree: &[(i32, Stat)]) -> io::Result<Total> {
        let mut total = Total::default();
        for (place, (pid, stat)) in tree.iter().enumerate() {
            match clock_getcpuclockid(nix::unistd::Pid::from_raw(*pid)).and_then(ClockId::now) {
                Ok(own) => total.cpu += Duration::from(own),
                Err(error) if place == 0 => return Err(error.into()),
                // This descendant has just ended. Its parent knows of it next time.
                Err(_) => continue,
            }
            total.cpu += TICK * u32::try_from(stat.reaped_ticks()).unwrap_or(u32::MAX);
            total.user_ticks += stat.user + stat.reaped_user;
            total.kernel_ticks += stat.kernel + stat.reaped_kernel;
        }
        Ok(total)
    }
}

/// A line of `/proc/PID/stat`. CPU times are in ticks.
#[derive(Debug, PartialEq, Eq)]
struct Stat {
    has_ended: bool,
    parent: i32,
    group: i32,
    user: u64,
    kernel: u64,
    reaped_user: u64,
    reaped_kernel: u64,
}

impl Stat {
    fn read(pid: i32) -> Option<Stat> {
        Stat::parse(&fs::read_to_string(format!("/proc/{pid}/stat")).ok()?)
    }

    /// Parses the line by proc_pid_stat(5). The name in parentheses may contain any character.
    fn parse(line: &str) -> Option<Stat> {
        let fields: Vec<&str> = line.rsplit_once(") ")?.1.split(' ').collect();
        let number = |field: usize| fields.get(field)?.parse::<u64>().ok();
        Some(Stat {
            has_ended: matches!(*fields.first()?, "Z" | "X"),
            parent: fields.get(1)?.parse().ok()?,
            group: fields.get(2)?.parse().ok()?,
            user: number(11)?,
            kernel: number(12)?,
            reaped_user: number(13)?,
            reaped_kernel: number(14)?,
        })
    }

    fn reaped_ticks(&self) -> u64 {
        self.reaped_user + self.reaped_kernel
    }
}

/// A process and its descendants, the process first.
fn tree(pid: u32) -> io::Result<Vec<(i32, Stat)>> {
    let mut others = all()?;
    let root = i32::try_from(pid).map_err(io::Error::other)?;
    let at = others.iter().position(|(pid, _)| *pid == root);
    let Some(at) = at else {
        return Err(io::Error::new(io::ErrorKind::NotFound, format!("there is no process {pid}")));
    };
    let mut tree = vec![others.swap_remove(at)];
    let mut next = 0;
    while let Some((parent, _)) = tree.get(next) {
        let parent = *parent;
        tree.extend(others.extract_if(.., |(_, stat)| stat.parent == parent));
        next += 1;
    }
    Ok(tree)
}

fn all() -> io::Result<Vec<(i32, Stat)>> {
    let mut all = Vec::new();
    for entry in fs::read_dir("/proc")? {
        let name = entry?.file_name();
        if let Some(pid) = name.to_str().and_then(|name| name.parse().ok()) {
            all.extend(Stat::read(pid).map(|stat| (pid, stat)));
        }
    }
    Ok(all)
}

/// The number after a key, in KiB.
fn kib(path: &str, key: &str) -> Option<u64> {
    let text = fs::read_to_string(path).ok()?;
    let line = text.lines().find_map(|line| line.strip_prefix(key))?;
    line.trim().strip_suffix(" kB")?.trim().parse().ok()
}

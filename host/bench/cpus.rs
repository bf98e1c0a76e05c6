//! On which CPUs a thread runs.

use std::io;

use rustix::thread::{CpuSet, sched_setaffinity};

/// Keeps this thread, and what it starts, on some CPUs; none means all.
pub fn pin(cpus: &[usize]) -> io::Result<()> {
    if cpus.is_empty() {
        return Ok(());
    }
    let mut set = CpuSet::new();
    for &cpu in cpus {
        if cpu >= CpuSet::MAX_CPU {
            return Err(io::Error::other(format!("there is no CPU {cpu}")));
        }
        set.set(cpu);
    }
    Ok(sched_setaffinity(None, &set)?)
}

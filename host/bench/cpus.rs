//! Pins threads to CPUs.

use std::io;

use rustix::thread::{CpuSet, sched_setaffinity};

/// Keeps this thread on these CPUs, and every thread and process that it starts later. An empty
/// list changes nothing.
///
/// # Errors
/// There is no such CPU, or this process may not use it.
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

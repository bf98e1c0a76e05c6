//! Describes the machine for a report, and finds its limits for a process.
//!
//! Decides nothing about the processes that run on it.

use std::fs;

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use rustix::thread::{CpuSet, sched_getaffinity};

/// Facts about the machine at this moment, each with a title and a text.
pub fn machine() -> Vec<(String, String)> {
    let cpuinfo = read("/proc/cpuinfo");
    let model = value(&cpuinfo, "model name").unwrap_or("unknown");
    let memory = read("/proc/meminfo");
    let memory = value(&memory, "MemTotal").and_then(|text| text.strip_suffix(" kB"));
    let memory_kib = memory.and_then(|text| text.trim().parse::<f64>().ok());
    let memory =
        memory_kib.map_or("unknown".to_owned(), |kib| format!("{:.1} GiB", kib / 1048576.0));
    let load = read("/proc/loadavg");
    let load: Vec<&str> = load.split(' ').take(3).collect();
    let cpus = cpus_allowed().len();
    let facts = [
        ("CPU", model.to_owned()),
        ("CPUs", format!("{cpus} of {}", cpus_online())),
        ("Memory", memory),
        ("Kernel", format!("Linux {}", read("/proc/sys/kernel/osrelease").trim())),
        ("Open files", files_max().to_string()),
        ("Load average before", load.join(", ")),
    ];
    facts.map(|(title, text)| (title.to_owned(), text)).to_vec()
}

fn read(path: &str) -> String {
    fs::read_to_string(path).unwrap_or_default()
}

/// The text after `key:`.
fn value<'a>(text: &'a str, key: &str) -> Option<&'a str> {
    text.lines().find_map(|line| {
        let (name, value) = line.split_once(':')?;
        (name.trim() == key).then(|| value.trim())
    })
}

fn cpus_online() -> usize {
    let text = read("/proc/stat");
    text.lines().filter(|line| line.starts_with("cpu") && !line.starts_with("cpu ")).count()
}

/// The CPUs that this thread may use, in rising order.
pub fn cpus_allowed() -> Vec<usize> {
    let allowed = sched_getaffinity(None).unwrap_or_default();
    (0..CpuSet::MAX_CPU).filter(|&cpu| allowed.is_set(cpu)).collect()
}

/// How many files and sockets a process may have open. Raises the limit first as far as the user
/// may, for this process and those that it starts.
pub fn files_max() -> usize {
    let limit = getrlimit(Resource::Nofile);
    let raised = Rlimit { current: limit.maximum, maximum: limit.maximum };
    let reached = match setrlimit(Resource::Nofile, raised) {
        Ok(()) => limit.maximum,
        Err(_) => limit.current,
    };
    reached.map_or(usize::MAX, |count| usize::try_from(count).unwrap_or(usize::MAX))
}

/// How many connections can be open from one address of this machine to one address and port.
pub fn ports_max() -> usize {
    let text = read("/proc/sys/net/ipv4/ip_local_port_range");
    let mut ends = text.split_whitespace().filter_map(|end| end.parse::<usize>().ok());
    match (ends.next(), ends.next()) {
        (Some(first), Some(last)) if first <= last => last - first + 1,
        // The kernel's default.
        _ => 28_232,
    }
}

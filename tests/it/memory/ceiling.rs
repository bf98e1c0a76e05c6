//! The host's memory as the kernel counts it, compared with `--memory-total`: whatever guests do,
//! the host never takes more than that and a tenth above an idle host.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use rustix::process::Pid;

use super::MIB;
use crate::client::{Connection, message};
use crate::host::Host;
use crate::patience::soon;

const FILL: &str = include_str!("../../../benches/ceiling/fill.wat");
const TOTAL: &str = "256MiB";
const TOTAL_BYTES: u64 = 256 * MIB;
/// The number of requests at once.
const CLIENTS: usize = 120;
const LOOK_EVERY: Duration = Duration::from_millis(50);

/// Guests for every engine but the concurrent one, by the number of their pages.
const FILLS: [(&str, u32); 6] = [
    ("fill-1", 1),
    ("fill-2", 2),
    ("fill-17", 17),
    ("fill-5", 5),
    ("fill-large", 33),
    ("fill-records", 1),
];

/// Private memory, in bytes.
fn private_bytes(pid: Pid) -> u64 {
    let path = format!("/proc/{}/status", pid.as_raw_nonzero());
    let status = std::fs::read_to_string(path).expect("the host runs");
    let line = status.lines().find_map(|line| line.strip_prefix("RssAnon:"));
    let kib = line.and_then(|line| line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok());
    kib.expect("Linux says it") << 10
}

fn host() -> Host {
    let arguments = ["--memory-total", TOTAL, "--workers", "2"];
    let mut setup = Host::empty().args(arguments);
    for (name, pages) in FILLS {
        // An image of more than 64 KiB is mapped.
        let data = match name {
            "fill-large" => format!("(data (i32.const 0) \"{}\")", "x".repeat(100_000)),
            "fill-records" => records(),
            _ => String::new(),
        };
        let text = FILL.replace("PAGES", &pages.to_string()).replace("DATA", &data);
        setup = setup.file(&format!("{name}.wat"), text);
    }
    setup
        .file("deep.wat", include_str!("../../../benches/ceiling/deep.wat"))
        .file("body.wat", include_str!("../../../benches/ceiling/body.wat"))
        .file("poll.wat", include_str!("../../../benches/ceiling/poll.wat"))
        .file("fields.wat", include_str!("../../../benches/ceiling/fields.wat"))
        .start()
}

/// Makes the engine keep a MiB for each instance: the records of many functions, and a passive
/// segment with references to them.
fn records() -> String {
    let functions: String = (0..12_000).map(|number| format!("(func $f{number})")).collect();
    let elements: String = (0..40_000).map(|number| format!(" $f{}", number % 12_000)).collect();
    format!("{functions} (elem func{elements})")
}

/// Sends one request from each of many clients, which do not read. Waits until every request has an
/// instance or an answer.
fn ask(host: &Host, bytes: &[u8], clients: usize) -> Vec<Connection> {
    let before = host.at_rest();
    let mut asked: Vec<Connection> = (0..clients).map(|_| host.connect()).collect();
    for connection in &mut asked {
        // The connection of a refused request may be closed.
        let _ = connection.try_send(bytes);
    }
    host.status_when("all with a guest or answered", soon(), |status| {
        let asked = status.requests - before.requests;
        asked >= clients as u64 && status.in_flight == status.instances_out
    });
    asked
}

#[test]
fn private_memory_keeps_to_the_ceiling() {
    let idle = {
        let host = Host::empty().args(["--memory-total", TOTAL, "--workers", "2"]).start();
        host.at_rest();
        private_bytes(host.pid())
    };
    let host = host();
    host.settled();
    let (is_over, most) = (AtomicBool::new(false), AtomicU64::new(0));
    let mut log = vec![("idle".to_owned(), idle >> 20)];
    let mut note = |what: &str| {
        log.push((what.to_owned(), most.swap(0, Ordering::Relaxed).saturating_sub(idle) >> 20));
    };
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !is_over.load(Ordering::Relaxed) {
                most.fetch_max(private_bytes(host.pid()), Ordering::Relaxed);
                std::thread::sleep(LOOK_EVERY);
            }
        });
        for _ in 0..2 {
            drop(ask(&host, &message("GET", "/poll", &[], b""), 12));
            note("poll");
            drop(ask(&host, &message("GET", "/body", &[], b""), 40));
            note("bodies that nobody reads");
            for name in FILLS.map(|(name, _)| name).into_iter().chain(["fields"]) {
                // The body is still to come.
                let head = format!("POST /{name} HTTP/1.1\r\nhost: guest.test\r\n");
                let head = head + "content-length: 4\r\n\r\n";
                drop(ask(&host, head.as_bytes(), CLIENTS));
                note(name);
            }
            drop(ask(&host, &message("GET", "/deep", &[], b""), CLIENTS));
            note("deep");
        }
        is_over.store(true, Ordering::Relaxed);
    });
    let most = log.iter().skip(1).map(|(_, mib)| *mib).max().unwrap_or_default();
    assert!(most * MIB <= TOTAL_BYTES / 10 * 11, "MiB above idle: {log:?}");
    // The memory was in use.
    assert!(most * MIB >= TOTAL_BYTES / 2, "MiB above idle: {log:?}");
}

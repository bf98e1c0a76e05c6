//! `guesthouse bench` without arguments: the demo, and its guests against their native twins.
//!
//! Also that no server that it started is left behind.

use std::fs;

use rustix::process::Signal;

use crate::host::until;
use crate::patience::patience;

use super::{Bench, assert_within};

/// An environment variable that marks the command and every process that it starts.
const MARK: &str = "GUESTHOUSE_TEST_MARK";

/// The command lines of the processes with the mark.
fn marked(mark: &str) -> Vec<String> {
    let mark = format!("{MARK}={mark}");
    let has_mark = |folder: &std::path::PathBuf| {
        let environment = fs::read(folder.join("environ")).unwrap_or_default();
        environment.split(|byte| *byte == 0).any(|entry| entry == mark.as_bytes())
    };
    let entries = fs::read_dir("/proc").expect("the processes");
    let folders = entries.filter_map(|entry| Some(entry.ok()?.path()));
    let command = |folder: std::path::PathBuf| fs::read(folder.join("cmdline")).unwrap_or_default();
    let commands = folders.filter(has_mark).map(command);
    commands.map(|it| String::from_utf8_lossy(&it).replace('\0', " ")).collect()
}

fn cache() -> std::path::PathBuf {
    std::path::Path::new(env!("CARGO_TARGET_TMPDIR")).join("bench-demo-cache")
}

#[test]
fn the_demo_is_measured_against_its_twins() {
    let mark = "the_demo_is_measured";
    let done = Bench::new(["--duration", "100ms", "--rounds", "1"])
        .env("GUESTHOUSE_CACHE_DIR", cache())
        .env(MARK, mark)
        .run();
    done.assert_good();
    assert_eq!(marked(mark), [""; 0]);
    let names: Vec<&str> = done.cases().iter().filter_map(|case| case["name"].as_str()).collect();
    assert_eq!(names, ["hello", "fib", "json"]);
    for case in done.cases() {
        let targets = case["targets"].as_array().expect("a list");
        let [native, guest] = &targets[..] else { panic!("{}", done.text()) };
        assert!(native["name"] == "native" && guest["name"] == "guest", "{}", done.text());
        for target in [native, guest] {
            let summary = &target["summary"];
            for key in ["req_per_s", "cpu_us_per_req", "rss_peak_bytes"] {
                assert!(summary[key].as_f64().is_some_and(|it| it > 0.0), "{key}: {summary}");
            }
            for key in ["cpu_user_us_per_req", "cpu_kernel_us_per_req"] {
                assert!(summary[key].is_f64(), "{key}: {summary}");
            }
        }
        assert_eq!(guest["ratio"]["to"], "native");
        let ratio = guest["ratio"]["cpu_us_per_req"].as_f64().expect("a ratio");
        // Wide bounds, on both sides of the usual value. The sandbox has a cost.
        assert_within("CPU time of a guest over its twin", ratio, 0.2, 100.0);
    }
    assert!(done.out.contains("CPU ratio") || done.out.contains("ratio"), "{}", done.text());
    // What it comes to, in one sentence at the end.
    let last = done.out.lines().last().expect("a line");
    let is_said =
        ["The sandbox cost ", " for each request to hello (", " for fib (", " for json ("];
    assert!(is_said.iter().all(|words| last.contains(words)), "{}", done.text());
    assert!(last.ends_with(" times)."), "{}", done.text());
}

/// Whether the tests were started with SIGHUP ignored, as by nohup.
fn ignores_hangup() -> bool {
    let status = fs::read_to_string("/proc/self/status").expect("Linux says it");
    let mask = status.lines().find_map(|line| line.strip_prefix("SigIgn:")).expect("a mask");
    u64::from_str_radix(mask.trim(), 16).expect("a number") & 1 == 1
}

#[test]
fn an_interrupted_demo_leaves_nothing_behind() {
    // A closed terminal sends the last one.
    for signal in [Signal::INT, Signal::TERM, Signal::HUP] {
        if signal == Signal::HUP && ignores_hangup() {
            // Then the command ignores it too, as it should.
            continue;
        }
        let mark = format!("an_interrupted_demo_{signal:?}");
        let running = Bench::new(["--duration", "100s"])
            .env("GUESTHOUSE_CACHE_DIR", cache())
            .env(MARK, &mark)
            .start();
        let is_there = || marked(&mark).iter().any(|it| it.contains("demo"));
        until("the demo", patience(), || is_there().then_some(()));
        running.signal(signal);
        if signal == Signal::HUP {
            // The shell and the kernel send one each.
            running.signal(signal);
        }
        let done = running.end();
        assert_eq!((done.code, done.err.as_str()), (Some(130), ""), "{}", done.text());
        assert!(done.out.contains("INTERRUPTED"), "{}", done.text());
        assert_eq!(marked(&mark), [""; 0]);
    }
}
